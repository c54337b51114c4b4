"""A request that the engine is working on: its strategy, its sequences, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pellucid.engine.decoding import Drafter, Steps
from pellucid.engine.decoding.line import Line
from pellucid.engine.decoding.plain import Plain, Unwritten
from pellucid.engine.decoding.reading import AsItIs
from pellucid.engine.request import Logprob, Output, Request
from pellucid.engine.runner import Runner
from pellucid.engine.sequence import Seq, Task
from pellucid.models.model import Model

if TYPE_CHECKING:
    from pellucid.engine.engine import Engine


@dataclass(eq=False)
class Job:
    """A request under way, and then its result.

    Args:
        most: new tokens of a sequence at most.
        outputs: one for each sequence; they grow as tokens are chosen (of a beam search, at its end).
        error: what went wrong, where something did; the outputs hold what came before.
        prompt_logprobs: of the prompt's tokens from the second on.
        beam_scores, beam_logits: of a beam search, [beams, V] for each step, where the request keeps them: scores are
            log-probabilities after the rules, without those of the tokens before.
        beam_ids: the tokens of each beam before each step, the prompt among them; None where there is no beam any more.
        state: "waiting" for room, "running", or "done".
    """

    engine: Engine
    request: Request
    most: int
    order: int
    outputs: list[Output] = field(default_factory=list)
    error: Exception | None = None
    prompt_logprobs: list[Logprob] = field(default_factory=list)
    beam_scores: list[Tensor] = field(default_factory=list)
    beam_logits: list[Tensor] = field(default_factory=list)
    beam_ids: list[list[list[int] | None]] = field(default_factory=list)
    state: Literal["waiting", "running", "done"] = "waiting"
    tasks: list[Task] = field(default_factory=list)
    seqs: set[Seq] = field(default_factory=set)
    preempted: int = 0  # how often its pages were taken away
    root: Seq | None = None  # where the first line goes on, of a fork or of a row that the caller keeps
    steps: Steps | None = None
    drafter: Drafter | None = None
    opened: Line | None = None  # the first output's
    _chances: list[torch.Generator] = field(default_factory=list)

    # ---------------------------------------------------------------------------------------- for strategies

    @property
    def model(self) -> Model:
        return self.engine.model

    def seq(self) -> Seq:
        """A new sequence behind the request's source, where there is one; `root` once, where there is that."""
        root, self.root = self.root, None
        request = self.request
        if root is not None:
            root.greedy, root.taps = self.greedy, request.taps
            if root.home is None and (request.n > 1 or request.decoding not in (None, Plain())):
                return root.fork(self.seqs)  # others will branch off: its owner keeps what it holds
            return root
        source = tuple(request.ids) if request.begin else ()
        runner = self.engine.main
        return Seq(
            runner, runner.row(), source=source, given=request.given, taps=request.taps, adapter=request.adapter,
            greedy=self.greedy, home=self.seqs,
        )  # fmt: skip

    @property
    def greedy(self) -> bool:
        """Whether nothing but the likeliest token can come next."""
        request = self.request
        straight = request.decoding in (None, Plain()) and request.reading is None and request.speculation is None
        return straight and not request.sample and not request.rules

    def line(self) -> Line:
        """The first output's line."""
        output, request = self.outputs[0], self.request
        reader = (request.reading or AsItIs()).reader(self)
        ids = [*request.prompt, *output.ids]
        rules, stops = [rule.fork() for rule in request.rules], [stop.fork() for stop in request.stops]
        self.opened = Line(self, reader, output, ids, self.chance(0), rules, stops)
        return self.opened

    def chance(self, output: int) -> torch.Generator | None:
        """The source of chance of an output; None for greedy."""
        return self._chances[output] if self.request.sample else None

    def side(self, model: Model) -> Runner:
        """Where a model beside the main one runs: a draft."""
        return self.engine.side(model)

    def emit(self, output: Output, token: int) -> None:
        """A token was chosen: whoever listens hears of it."""
        place = next(i for i, own in enumerate(self.outputs) if own is output)  # two may be alike
        self.engine.events.append((self, place, token))

    # ---------------------------------------------------------------------------------------- for the engine

    def begin(self) -> None:
        """The strategy begins."""
        request = self.request
        if not self.outputs:
            self.outputs = [Output() for _ in range(request.n)]
        self.drafter = request.speculation.drafter(self) if request.speculation is not None else None
        decoding = request.decoding or Plain() if self.most > 0 else Unwritten()
        self.steps = decoding.steps(self)

    def draw_seeds(self) -> None:
        """Seeds are drawn when the request is made, so that its company does not matter to them."""
        request = self.request
        if request.sample:
            first = request.seed
            seeds = [first + i if first is not None else int(torch.randint(2**62, ())) for i in range(request.n)]
            self._chances = [torch.Generator().manual_seed(seed) for seed in seeds]

    def advance(self) -> None:
        """Hands the answers to the strategy until it has wishes that must be run."""
        steps = self.steps
        assert steps is not None
        try:
            seen = [task.seen() for task in self.tasks]
            feeds = steps.send(seen) if self.tasks else next(steps)
            while not feeds:
                feeds = steps.send([])
            if self.state == "done":  # a rule or a stop of its own has cancelled it
                return
            for feed in feeds:
                feed.seq.runner.check(feed)
            self.tasks = [Task.of(feed) for feed in feeds]
        except StopIteration:
            self.end()
        except Exception as error:  # the request's own: a rule, a stop, NaN logits. The others go on
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """The request ends with an error; what was generated stays."""
        self.error = error
        self._finish("error")

    def cancel(self) -> None:
        """The request ends here; what was generated stays."""
        if self.state != "done":
            self._finish("cancelled")

    def _finish(self, how: Literal["error", "cancelled"]) -> None:
        for output in self.outputs:
            output.finish = output.finish or how
        self.end()

    def end(self) -> None:
        """Gives everything back."""
        self.state = "done"
        self.tasks = []
        self.steps = None
        for seq in list(self.seqs):
            seq.drop()

    def result(self) -> list[Output]:
        """The outputs.

        Raises:
            PellucidError: what went wrong.
        """
        if self.error is not None:
            raise self.error
        return self.outputs
