"""The engine: requests of any kind through one model, in steps.

Each step takes a piece of every running request, at most `budget` tokens together: one token of those that decode, some
of those whose guesses are confirmed, chunks of long prompts with what is left. What a request's strategy wants run next
(engine/decoding) is its own affair; so is what goes wrong in it. A request's tokens do not depend on its company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from pellucid.cache.group import PAGE
from pellucid.cache.pages import Pages
from pellucid.engine.decoding.plain import Plain
from pellucid.engine.job import Job
from pellucid.engine.request import Output, Request
from pellucid.engine.runner import Part, Runner
from pellucid.engine.sequence import Seq, Task
from pellucid.errors import InputError, PellucidError, Unsupported
from pellucid.models.model import Model

BUDGET = 4096  # tokens of a step: bounds the memory of long prompts, and the wait of others behind them
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
        budget: tokens of one step at most.
        rows: requests that run at once at most; the others wait.
        share: requests that begin with the same tokens share the pages, and only the first of them reads them.
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
            root: a sequence of this engine that holds the beginning of the prompt already.
        """
        job = Job(self, request, most=request.max_new, order=next(self._orders), root=root)
        try:
            check(self.model, request)
            if self.model.spec.context is not None and self.model.encoder is None:
                job.most = min(job.most, self.model.spec.context - len(request.ids))
            job.draw_seeds()
            job.begin()
        except PellucidError as error:
            job.fail(error)
            return job
        if job.most <= 0:
            job.end()
        else:
            self.waiting.append(job)
        return job

    def cancel(self, job: Job) -> None:
        """Ends a request early; what was generated stays."""
        job.cancel()
        self._sweep()

    def fork(self, job: Job, seed: int | None = None) -> Job:
        """A copy of a running request that goes its own way from here; they share what the cache holds.

        Args:
            seed: of the copy; None draws one.

        Raises:
            Unsupported: the request is not of one plain sequence, or not under way.
        """
        request = job.request
        if request.decoding not in (None, Plain()) or request.reading is not None or request.n != 1:
            raise Unsupported("only a request of one plain sequence is forked", where="fork", next="add it again")
        if job.state == "done" or not job.outputs[0].ids:
            raise Unsupported("the request is not under way", where="fork", next="fork it between its tokens")
        (seq,) = (seq for seq in job.seqs if seq.runner is self.main)
        old = job.outputs[0]
        taken = len(request.prompt) + len(old.ids) - 1  # a feed may be under way: its tokens are fed again
        copy = Job(self, replace(request, seed=seed), most=job.most, order=next(self._orders))
        root = replace(seq, row=seq.row.copy(), tokens=list(seq.tokens), home=copy.seqs)
        root.trim(min(taken, len(root.tokens)))
        copy.root = root
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
        while any(job.state != "done" for job in jobs):
            self.step()
        return jobs

    def sequence(self) -> Seq:
        """An empty sequence that the caller keeps: what a talk grows on."""
        return Seq(self.main, self.main.row())

    def stream(self, requests: Request | Sequence[Request], root: Seq | None = None) -> Iterator[Event]:
        """The tokens of some requests as they are chosen. Leaving early cancels what is not done.

        Args:
            root: for one request, a sequence that holds the beginning of its prompt, and all of it afterwards.

        Raises:
            PellucidError: of the first request that failed, when the others are done.
        """
        requests = [requests] if isinstance(requests, Request) else requests
        jobs = [self.add(request, root) for request in requests]
        mine = set(map(id, jobs))
        try:
            while any(job.state != "done" for job in jobs):
                yield from (event for event in self.step() if id(event[0]) in mine)
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
            self._run(drafts[0].seq.runner, [Part(task, task.seq.behind) for task in drafts])
        parts = self._plan()
        if parts:
            self._run(self.main, parts)
        self._sweep()
        return self.events

    def _admit(self) -> None:
        """Requests begin as long as there is room for them, in the order of their priority and arrival."""
        self.waiting.sort(key=_turn)
        while self.waiting and len(self.jobs) < self.rows:
            job = self.waiting[0]
            if self.jobs and not self.main.fits(sum(self._needs(each) for each in (*self.jobs, job))):
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
        """What runs in this step: all that is short, then pieces of what is long, as far as the budget goes."""
        tasks = [task for job in sorted(self.jobs, key=_turn) for task in job.tasks if not task.done]
        fresh = [task for task in tasks if task.seq.row.length == 0]
        late = self._behind_others(fresh) if self.main.share and fresh else set()
        counts = {task: self.main.stride(task.seq) for task in tasks if task not in late}
        parts = [Part(task, n) for task, n in counts.items() if n <= LEAST]
        left = self.budget - sum(part.count for part in parts)
        for task, n in counts.items():
            if n > LEAST and (left >= LEAST or not parts):
                parts.append(Part(task, n if self.main.mutual else min(n, max(left, 1))))
                left -= parts[-1].count
        return parts if self.main.pages.total is None else self._with_room(parts)

    def _behind_others(self, fresh: Sequence[Task]) -> set[Task]:
        """Begins rows with pages that are known; those that another row is about to fill are waited for, one step."""
        late, coming = set(), set()
        for task in fresh:
            self.main.attach(task)
            seq = task.seq
            page = tuple(seq.tokens[: seq.row.length + PAGE])
            if len(page) - seq.row.length < PAGE or seq.taps or task.first < len(page):
                continue  # less than a page that another could use
            if (seq.adapter, page) in coming:
                late.add(task)
                seq.release()
            coming.add((seq.adapter, page))
        return late

    def _with_room(self, parts: Sequence[Part]) -> list[Part]:
        """Those for which there are pages. Where they lack, the requests that came last give theirs back, and wait."""
        running = {id(task): job for job in self.jobs for task in job.tasks}
        planned: list[Part] = []
        for part in sorted(parts, key=lambda part: _turn(running[id(part.task)])):
            job = running[id(part.task)]
            while job.state == "running" and not self.main.reserve(part):
                last = max((job for job in self.jobs if job.state == "running"), key=_turn)
                if last is job and not any(each is not job and each.state == "running" for each in self.jobs):
                    self._too_long(job)
                    break
                self._preempt(last)
            planned.append(part)
        self._sweep()
        return [part for part in planned if running[id(part.task)].state == "running"]

    def _preempt(self, job: Job) -> None:
        """Takes a request's pages away. Its tokens stay, and are read again when there is room."""
        job.preempted += 1
        job.state = "waiting"
        for seq in job.seqs:
            if seq.runner is self.main:
                seq.release()
        self.waiting.append(job)

    def _too_long(self, job: Job) -> None:
        total = self.main.pages.total or 0
        tokens = sum(len(task.seq.tokens) for task in job.tasks)
        what = f"{tokens} tokens, and the cache has pages for {total * PAGE} in all"
        job.fail(InputError(what, where="Engine", next="give it more pages, or shorten the prompt or the output"))

    def _run(self, runner: Runner, parts: Sequence[Part]) -> None:
        runner.forward(parts)
        ran = {id(part.task) for part in parts}
        for job in self.jobs:
            if any(id(task) in ran for task in job.tasks) and all(task.done for task in job.tasks):
                job.advance()

    def _sweep(self) -> None:
        self.jobs = [job for job in self.jobs if job.state == "running"]
        self.waiting = [job for job in self.waiting if job.state != "done"]


def generate(model: Model, requests: Sequence[Request]) -> list[list[Output]]:
    """Continues all requests to their ends, in an engine of their own.

    Raises:
        PellucidError: of the first request that failed.
    """
    return [job.result() for job in Engine(model).generate(requests)]


def check(model: Model, request: Request) -> None:
    """Refuses what the model cannot take.

    Raises:
        InputError: an empty prompt, an id outside the vocabulary, a prompt that fills the context.
        Unsupported: guesses for a decoding that has no use for them.
    """
    if request.speculation is not None and request.decoding not in (None, Plain()):
        what = f"guesses for {type(request.decoding).__name__}, which does not take one token after the other"
        raise Unsupported(what, where="speculation", next="leave it out, or use Plain()")
    vocab, context = model.spec.vocab, model.spec.context
    if not request.ids:
        raise InputError("the prompt is empty", where="prompt", next="give at least one token, such as the BOS token")
    bad = next((token for token in (*request.ids, *request.begin) if not 0 <= token < vocab), None)
    if bad is not None:
        what = f"token id {bad} is outside the vocabulary of {vocab}"
        raise InputError(what, where="prompt", next="use the tokenizer of this model")
    if context is not None and model.encoder is None and len(request.ids) >= context:
        what = f"the prompt has {len(request.ids)} tokens, the model's context {context}"
        raise InputError(what, where="prompt", next="shorten the prompt")


def _turn(job: Job) -> tuple[int, int]:
    return job.request.priority, job.order
