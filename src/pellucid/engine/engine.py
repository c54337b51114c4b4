"""The engine: requests of any kind through one model, in steps.

Each step takes a piece of every running request, at most `budget` tokens together: one token of those that decode, some
of those whose guesses are confirmed, chunks of long prompts with what is left. What a request's strategy wants run next
(engine/decoding) is its own affair; so is what goes wrong in it. A request's tokens do not depend on its company.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from pellucid.cache.group import PAGE
from pellucid.cache.pages import Pages
from pellucid.engine.admission import check as check
from pellucid.engine.admission import room
from pellucid.engine.decoding.plain import Plain
from pellucid.engine.job import Job
from pellucid.engine.request import Output, Request
from pellucid.engine.runner import Part, Runner
from pellucid.engine.sequence import Seq, Task
from pellucid.errors import ArgumentError, InputError, Unsupported
from pellucid.models.model import Model

BUDGET = 2048  # tokens of a step: bounds the memory of long prompts, and the wait of others behind them
ROWS = 256  # requests that run at once
LEAST = 32  # prompt tokens worth a step of their own

Event = tuple[Job, int, int]  # a request, which of its outputs, and the token that was chosen


class Engine:
    """Runs requests; one thread calls it (engine/serving.py for several).

        engine = Engine(model)
        job = engine.add(Request(ids=[1, 2, 3], max_new=20))
        while engine.busy:
            for job, output, token in engine.step(): …

    Args:
        pages: where keys, values and states are kept, or how many pages of 32 tokens they may take; None for as many as
            it takes. When they run out, the request that came last gives its pages back and is read again later.
        budget: tokens of one step at most; more only where a model's tokens see each other and go together.
        rows: requests that run at once at most; the others wait.
        share: requests that begin with the same tokens share the pages, and only the first of them reads them.

    Raises:
        ArgumentError: a budget or rows below 1.
    """

    def __init__(
        self,
        model: Model,
        pages: Pages | int | None = None,
        *,
        budget: int = BUDGET,
        rows: int = ROWS,
        share: bool = True,
    ) -> None:
        for name, value in (("budget", budget), ("rows", rows)):
            if value < 1:
                raise ArgumentError(f"{name}={value}", where="Engine", next="use at least 1")
        self.model = model
        self.main = Runner(model, Pages(pages) if isinstance(pages, int) else pages, share=share)
        self.budget, self.rows = budget, rows
        self.jobs: list[Job] = []  # neither waiting nor done
        self.waiting: list[Job] = []
        self.events: list[Event] = []
        self._sides: dict[int, Runner] = {}
        self._orders = count()

    # ---------------------------------------------------------------------------------------- requests

    @property
    def busy(self) -> bool:
        """Whether any request is not done."""
        return bool(self.jobs or self.waiting)

    def add(self, request: Request, root: Seq | None = None) -> Job:
        """Takes a request in. One that the model cannot take is done at once, with its error.

        Args:
            root: a sequence of this engine, for one request at a time. What it holds of the prompt is not read again,
                and what else it holds is forgotten.
        """
        job = Job(self, request, most=request.max_new, order=next(self._orders), root=root)
        try:
            check(self.model, request)
            if root is not None:
                self._check_root(root, request)
            if (most := room(self.model)) is not None:
                job.most = min(job.most, most - len(request.prompt))
            job.draw_seeds()
            job.begin()
        except Exception as error:  # the request's own, as later on: the others go on
            job.fail(error)
            return job
        self.waiting.append(job)
        return job

    def _check_root(self, root: Seq, request: Request) -> None:
        if root.runner is not self.main:
            raise InputError("a sequence of another engine", where="root", next="take one of engine.sequence()")
        if root.tokens and root.adapter != request.adapter:
            what = f"a sequence that adapter {root.adapter!r} has read, for adapter {request.adapter!r}"
            raise InputError(what, where="root", next="take another sequence")

    def cancel(self, job: Job) -> None:
        """Ends a request early; what was generated stays."""
        if job.state != "done":
            job.cancel()
            self._sweep()

    def fork(self, job: Job, seed: int | None = None) -> Job:
        """A copy of a running request that goes its own way from here; they share what the cache holds.

        Args:
            seed: of the copy; None draws one.

        Raises:
            Unsupported: the request is not of one plain sequence, or not under way.
            ArgumentError: a seed out of range.
        """
        request = job.request
        if request.decoding not in (None, Plain()) or request.reading is not None or request.n != 1:
            raise Unsupported("only a request of one plain sequence is forked", where="fork", next="add it again")
        line, old = job.opened, job.outputs[0]
        if job.state == "done" or line is None or not old.ids:
            raise Unsupported("the request is not under way", where="fork", next="fork it between its tokens")
        taken = len(request.prompt) + len(old.ids) - 1  # a feed may be under way: its tokens are fed again
        rules, stops = [rule.fork() for rule in line.rules], [stop.fork() for stop in line.stops]
        request = replace(request, seed=seed, rules=rules, stops=stops)
        check(self.model, request)
        copy = Job(self, request, most=job.most, order=next(self._orders))
        copy.root = line.reader.seq.fork(copy.seqs)
        copy.root.trim(min(taken, len(copy.root.tokens)))
        copy.outputs = [replace(old, ids=list(old.ids), logprobs=list(old.logprobs), scores=list(old.scores),
                                logits=list(old.logits))]  # fmt: skip
        copy.prompt_logprobs = job.prompt_logprobs
        copy.draw_seeds()
        copy.begin()
        self.waiting.append(copy)
        return copy

    def generate(self, requests: Sequence[Request]) -> list[Job]:
        """Runs requests to their ends, beside whatever else is under way; each has its outputs or its error."""
        jobs = [self.add(request) for request in requests]
        try:
            while any(job.state != "done" for job in jobs):
                self.step()
        finally:  # interrupted: nobody would ever ask for them again
            for job in jobs:
                self.cancel(job)
        return jobs

    def sequence(self) -> Seq:
        """An empty sequence that the caller keeps: what a talk grows on."""
        return Seq(self.main, self.main.row())

    def stream(self, requests: Request | Sequence[Request], root: Seq | None = None) -> Iterator[Event]:
        """The tokens of some requests as they are chosen. Leaving early cancels what is not done.

        Args:
            root: for one request, a sequence that may hold some of its prompt, and afterwards holds all; see `add`.

        Raises:
            PellucidError: of the first request that failed, when the others are done.
        """
        requests = [requests] if isinstance(requests, Request) else requests
        jobs = [self.add(request, root) for request in requests]
        told: Counter[tuple[int, int]] = Counter()  # tokens by job and output: others may step the engine, too
        try:
            while True:
                done = all(job.state == "done" for job in jobs)
                for job in jobs:
                    for place, output in enumerate(job.outputs):
                        new = output.ids[told[job.order, place] :]
                        told[job.order, place] += len(new)
                        yield from ((job, place, token) for token in new)
                if done:
                    break
                self.step()
            for job in jobs:
                job.result()
        finally:
            for job in jobs:
                self.cancel(job)

    def side(self, model: Model) -> Runner:
        """Where a model beside the main one runs, for all requests that draft with it."""
        if id(model) not in self._sides:
            self._sides[id(model)] = Runner(model)
        return self._sides[id(model)]

    def check(self) -> None:
        """Proves that every page is free, held or remembered; for tests."""
        for runner in (self.main, *self._sides.values()):
            runner.pages.check()

    # ---------------------------------------------------------------------------------------- steps

    def step(self) -> list[Event]:
        """One forward of the model, after those that drafts have to make; returns the tokens that were chosen."""
        self.events = []
        self._admit()
        while drafts := self._drafts():
            runner = drafts[0].seq.runner
            self._run(runner, self._within_budget(runner, drafts))
        parts = self._plan()
        if parts:
            self._run(self.main, parts)
        self._sweep()
        return self.events

    def _admit(self) -> None:
        """Requests begin as long as there is room for them, in the order of their priority and arrival."""
        self.waiting.sort(key=_turn)
        limited = self.main.pages.total is not None
        while self.waiting and len(self.jobs) < self.rows:
            job = self.waiting[0]
            if self.jobs and limited and not self.main.fits(sum(self._needs(each) for each in (*self.jobs, job))):
                return
            self.jobs.append(self.waiting.pop(0))
            job.state = "running"
            if not job.tasks:  # else it was preempted
                job.advance()

    def _needs(self, job: Job) -> int:
        """Tokens for which a request takes pages in its next steps; those that others share may make it less."""
        if not job.tasks:
            return len(job.request.ids) + PAGE
        return sum(task.seq.behind + PAGE for task in job.tasks if task.seq.runner is self.main)

    def _drafts(self) -> list[Task]:
        """Tasks of one of the models beside the main one: they go first, so that the main one serves all at once."""
        for job in self.jobs:
            for task in job.tasks:
                if task.seq.runner is not self.main and not task.done:
                    runner = task.seq.runner
                    return [t for job in self.jobs for t in job.tasks if t.seq.runner is runner and not t.done]
        return []

    def _plan(self) -> list[Part]:
        """What runs in this step."""
        tasks = [task for job in sorted(self.jobs, key=_turn) for task in job.tasks if not task.done]
        for task in tasks:
            self.main.turn(task.seq)
        fresh = [task for task in tasks if task.seq.row.length == 0]
        late = self._behind_others(fresh) if fresh and self.main.share and not self.main.listened else set()
        parts = self._within_budget(self.main, [task for task in tasks if task not in late])
        return parts if self.main.pages.total is None else self._with_room(parts)

    def _within_budget(self, runner: Runner, tasks: Sequence[Task]) -> list[Part]:
        """All that is short, then pieces of what is long, as far as the budget goes; what comes later waits.

        Some of the budget is for what is long, so that it comes to its end however many short ones there are.
        """
        counts = {task: runner.stride(task.seq) for task in tasks}
        short = [task for task in tasks if counts[task] <= LEAST]
        long = [task for task in tasks if counts[task] > LEAST]
        kept = min(LEAST, self.budget // 2) if long else 0
        parts, left = _pieces(short, counts, self.budget - kept, whole=runner.mutual)
        return parts + _pieces(long, counts, left + kept, whole=runner.mutual)[0]

    def _behind_others(self, fresh: Sequence[Task]) -> set[Task]:
        """Begins rows with pages that are known; those that another row is about to fill are waited for, one step."""
        late: set[Task] = set()
        coming: set[Hashable] = set()
        for task in fresh:
            self.main.attach(task)
            seq = task.seq
            page = tuple(seq.tokens[: seq.row.length + PAGE])
            if len(page) - seq.row.length < PAGE or not self.main.shares(seq) or task.first < len(page):
                continue  # less than a page that another could use
            key = self.main.salt(seq), page
            if key in coming:
                late.add(task)
                seq.release()
            coming.add(key)
        return late

    def _with_room(self, parts: Sequence[Part]) -> list[Part]:
        """Those for which there are pages. Where they lack, the requests that came last give theirs back, and wait."""
        running = {id(task): job for job in self.jobs for task in job.tasks}
        planned: list[Part] = []
        for part in sorted(parts, key=lambda part: _turn(running[id(part.task)])):
            job = running[id(part.task)]
            while job.state == "running" and not self.main.reserve(part):
                holders = [each for each in (*self.jobs, *self.waiting) if self._holds(each)]
                if holders in ([], [job]):
                    self._too_long(job)
                    break
                self._preempt(max((job, *holders), key=_turn))
            planned.append(part)
        self._sweep()
        return [part for part in planned if running[id(part.task)].state == "running"]

    def _holds(self, job: Job) -> bool:
        """Whether a request has pages that it could give back; a fork may have some before it runs."""
        return any(seq.runner is self.main and seq.row.tables for seq in self._seqs(job))

    def _seqs(self, job: Job) -> set[Seq]:
        return {*job.seqs, *(task.seq for task in job.tasks)}  # one that the caller keeps is among the latter

    def _preempt(self, job: Job) -> None:
        """Takes a request's pages away. Its tokens stay, and are read again when there is room."""
        job.preempted += 1
        for seq in self._seqs(job):
            if seq.runner is self.main:
                seq.release()
        if job.state == "running":
            job.state = "waiting"
            self.waiting.append(job)

    def _too_long(self, job: Job) -> None:
        total = self.main.pages.total or 0
        longest = max(len(task.seq.tokens) for task in job.tasks)
        how = f"{longest} tokens" if len(job.tasks) == 1 else f"{len(job.tasks)} sequences of up to {longest} tokens"
        what = f"{how}, and the cache has pages for {total * PAGE} tokens in all"
        job.fail(InputError(what, where="Engine", next="give it more pages, or shorten the prompt or the output"))

    def _run(self, runner: Runner, parts: Sequence[Part]) -> None:
        """One forward. Where it fails, so do the requests that are in it: what it left in their rows is unknown."""
        ran = {id(part.task) for part in parts}
        jobs = [job for job in self.jobs if any(id(task) in ran for task in job.tasks)]
        try:
            runner.forward(parts)
        except Exception as error:
            for job in jobs:
                job.fail(error)
            return
        for job in jobs:
            if errors := [task.seq.error for task in job.tasks if task.seq.error is not None]:
                job.fail(errors[0])
            elif all(task.done for task in job.tasks):
                job.advance()

    def _sweep(self) -> None:
        self.jobs = [job for job in self.jobs if job.state == "running"]
        self.waiting = [job for job in self.waiting if job.state != "done"]


def generate(model: Model, requests: Sequence[Request], pages: Pages | None = None) -> list[list[Output]]:
    """Continues all requests to their ends, in an engine of their own, and these pages.

    Raises:
        PellucidError: of the first request that failed.
    """
    return [job.result() for job in Engine(model, pages).generate(requests)]


def _pieces(tasks: Sequence[Task], counts: Mapping[Task, int], left: int, *, whole: bool) -> tuple[list[Part], int]:
    """As much of each task as there is budget left for, and what is left then; `whole` ones are not cut."""
    parts: list[Part] = []
    for task in tasks:
        if left <= 0:
            break
        parts.append(Part(task, counts[task] if whole else min(counts[task], left)))
        left -= parts[-1].count
    return parts, left


def _turn(job: Job) -> tuple[int, int]:
    return job.request.priority, job.order
