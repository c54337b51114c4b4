"""Decode steps on an accelerator: captured once for each size, and launched before the host has heard of the last one.

A decode step gives every row one token. On an accelerator the host takes longer to say what is to be done than the
device to do it. So what a step does is recorded once, as a graph, and replayed: for 1, 2, 4 ... rows and tables of 8,
16, 32 ... pages, whichever holds the rows at hand. Rows that fill up a step lie in the page that nobody reads.

    input    all that a step reads lies in one tensor at one place: one copy from the host for each step
    chosen   every step leaves the likeliest tokens on the device; the next one can take its ids from there
    ahead    rows whose next token is the likeliest one (`Seq.greedy`) are launched once more before the host has seen
             it. In the next forward the host asks for just that token, and what was launched is its answer. Where it
             asks for anything else, or for nothing, what was launched is forgotten: rows do not know of it.

A graph holds addresses. So pages do not grow (`fixed_pages`), and a model that is changed is recorded anew.
Attention is `ops.paged.attend_newest`; which models consist of nothing else that asks the host is what `refusal` says.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid import spec as s
from pellucid.cache.batch import Batch, Memory
from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE, Base
from pellucid.cache.pages import Pages
from pellucid.cache.places import Places
from pellucid.engine.admission import room
from pellucid.errors import ArgumentError
from pellucid.models.model import Model
from pellucid.nn.unchanged import Unchanged
from pellucid.ops.rope import turning_points, turns_with_length

if TYPE_CHECKING:
    from pellucid.engine.runner import Part, Runner
    from pellucid.engine.sequence import Seq

ROWS = 256  # of a step at most
LEAST = 8  # table entries of a step at least: 256 tokens
SHARE = 0.8  # of the free memory, for pages; the rest is for what a forward computes

Run = Callable[[], Tensor]
Graphs = Callable[[Run], Run]  # what a function does on the device, recorded


# ---------------------------------------------------------------------------------------------- graphs


class CudaGraphs:
    """Records functions as CUDA graphs. They share the memory they compute in: a result lasts until the next replay."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):  # what is made at the first call, such as pages and workspaces, is not recorded
            for _ in range(2):
                run()
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            result = run()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


def again(run: Run) -> Run:
    """A graph for devices that have none: the function itself."""
    return run


# ---------------------------------------------------------------------------------------------- one size


@dataclass(eq=False)
class Fed:
    """A token of a row in a step.

    Args:
        place: its position in the row.
        token: None as long as only the device knows it.
        source: where `chosen` has it; -1 where `token` says it.
        slots: where its keys and values go, by kind of layers.
    """

    seq: Seq
    place: int
    token: int | None
    source: int
    slots: list[int]


class Step:
    """A forward of one token for each of `rows` rows, whose tables have `width` entries.

    Args:
        kinds: of the layers' groups.
        chosen: [ROWS] int64, the likeliest token after each row of the last step; read, then written.
    """

    def __init__(
        self, model: Model, pages: Pages, kinds: Sequence[Base], rows: int, width: int, chosen: Tensor
    ) -> None:
        self.model, self.pages, self.kinds, self.chosen = model, pages, kinds, chosen
        self.rows, self.width = rows, width
        size = rows * (3 + len(kinds) * (1 + width))
        self.input = torch.zeros(size, dtype=torch.int32, device=chosen.device)
        pinned = chosen.is_cuda
        # two of them: while the device reads one, the host writes the other
        self._staged = [torch.zeros(size, dtype=torch.int32, pin_memory=pinned) for _ in range(2)]

    def fill(self, fed: Sequence[Fed]) -> None:
        """Says what the next run computes; the rest of the rows are none."""
        spare = self.rows - len(fed)
        data = array("i", [one.source for one in fed] + [-1] * spare)
        data.extend([one.token or 0 for one in fed] + [0] * spare)
        data.extend([one.place for one in fed] + [0] * spare)
        for at, kind in enumerate(self.kinds):
            data.extend([one.slots[at] for one in fed] + [0] * spare)
            for one in fed:
                pages = one.seq.row.tables[kind].pages[: one.place // PAGE + 1]
                data.extend(pages)
                data.extend([0] * (self.width - len(pages)))
            data.extend([0] * (spare * self.width))
        self._staged.reverse()
        self._staged[0].copy_(torch.frombuffer(data, dtype=torch.int32))
        self.input.copy_(self._staged[0], non_blocking=True)

    def __call__(self) -> Tensor:
        """The logits, [rows, V] float32. What a graph records: nothing here waits for the device."""
        rows, width = self.rows, self.width
        group = rows * (1 + width)
        source_B, given_B, place_B, *groups = self.input.split([rows] * 3 + [group] * len(self.kinds))
        ids_B = torch.where(source_B < 0, given_B.long(), self.chosen[source_B.long().clamp_min(0)])
        batch = Batch([1] * rows, place_B.long(), [2] * rows, Cache(0, self.pages), ids=ids_B)
        for kind, group_G in zip(self.kinds, groups):
            slots_B, tables = group_G.split([rows, rows * width])
            places = Places.in_tensors(self.pages, kind, slots_B.long(), tables.view(rows, width), place_B + 1)
            batch.share(("places", kind), places)
        x_BD = self.model.run(self.model.embed.tokens(ids_B), batch)
        logits_BV = self.model.predict(x_BD).float()
        self.chosen[:rows] = logits_BV.argmax(-1)
        return logits_BV


# ---------------------------------------------------------------------------------------------- launched steps


class Flight:
    """A step that was launched: what it computes, and its results on their way to the host."""

    def __init__(self, fed: Sequence[Fed], logits_BV: Tensor, chosen: Tensor) -> None:
        self.fed = {id(one.seq): (i, one) for i, one in enumerate(fed)}
        self._logits_BV, self._chosen_B = _leaving(logits_BV[: len(fed)]), _leaving(chosen[: len(fed)])
        self._landed = torch.cuda.Event() if logits_BV.is_cuda else None
        if self._landed is not None:
            self._landed.record()

    def wait(self) -> tuple[Tensor, list[int]]:
        """The logits [B, V] on the CPU, and the likeliest tokens."""
        if self._landed is not None:
            self._landed.synchronize()
        return self._logits_BV, self._chosen_B.tolist()

    def learn(self, chosen: Sequence[int]) -> None:
        """Which tokens the device took from the step before."""
        for _, one in self.fed.values():
            one.token = chosen[one.source]


def _leaving(x: Tensor) -> Tensor:
    if not x.is_cuda:
        return x.clone()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


class Captured:
    """The decode steps of a runner, from graphs.

    Args:
        graphs: what records them; None for CUDA graphs, and on a CPU for none.
        ahead: launch rows whose next token is the likeliest one before the host has seen it.

    Raises:
        ArgumentError: the runner's pages grow, or are packed.
    """

    def __init__(self, runner: Runner, graphs: Graphs | None = None, *, ahead: bool = True) -> None:
        pages, model = runner.pages, runner.model
        if pages.total is None or pages.bits is not None:
            what = "pages that grow" if pages.total is None else "packed pages"
            raise ArgumentError(f"{what} under captured steps", where="Captured", next="give it Pages(total)")
        self.runner, self.model, self.pages, self.ahead = runner, model, pages, ahead
        on_cuda = model.device.type == "cuda"
        self.graphs = graphs or (CudaGraphs() if on_cuda else again)
        self.kinds = kinds_of(model)
        self.limit = room(model)
        self.chosen = torch.zeros(ROWS, dtype=torch.int64, device=model.device)
        self.captures = 0  # sizes that were recorded
        self.replays = 0  # steps that were launched
        self.hits = 0  # tokens that were launched ahead, and were asked for
        self._steps: dict[tuple[int, int], tuple[Step, Run]] = {}
        self._unchanged: Unchanged | None = None
        self._flight: Flight | None = None

    def run(self, parts: Sequence[Part]) -> list[Part]:
        """Computes the parts that are single steps; returns the others."""
        if not self._ready():
            self._flight = None
            return list(parts)
        mine = [part for part in parts if alone(part, self.pages)]
        if len(mine) <= ROWS:
            self._step(mine)
        else:
            self._flight = None
            for begin in range(0, len(mine), ROWS):
                self._land(self._launch([self._fed(part) for part in mine[begin : begin + ROWS]]), mine[begin:][:ROWS])
        done = set(map(id, mine))
        return [part for part in parts if id(part) not in done]

    def _ready(self) -> bool:
        """Whether nobody wants more of a step than its logits; a model that was changed is recorded anew."""
        if self.model.training or self.runner.listened:
            return False
        if self._unchanged is None or not self._unchanged.holds():
            self._steps.clear()
            self._unchanged = Unchanged(self.model)
        if self._unchanged.plain:
            return True
        self._unchanged = None  # and look again
        return False

    # ---------------------------------------------------------------------------------------- a step

    def _step(self, parts: Sequence[Part]) -> None:
        flight, self._flight = self._flight, None
        known: list[Part] = []
        fresh: list[Part] = []
        for part in parts:
            answered = flight is not None and self._answers(flight, part.task.seq)
            (known if answered else fresh).append(part)
        self.hits += len(known)
        if fresh:
            self.model.check_positions(max(part.task.seq.row.length for part in fresh) + 1)
        now = self._launch([self._fed(part) for part in fresh]) if fresh else None
        if flight is None or not known:
            flight, known = now, fresh
        if flight is None:
            return
        if now in (None, flight) and self.ahead and all(part.task.seq.greedy for part in known):
            self._go_ahead(flight, known)
        chosen = self._land(flight, known)
        if now is not None and now is not flight:
            self._land(now, fresh)
        if self._flight is not None:
            self._flight.learn(chosen)

    def _answers(self, flight: Flight, seq: Seq) -> bool:
        """Whether a row's next token is the one that was launched, and stands where the row now wants it."""
        _, fed = flight.fed.get(id(seq), (0, None))
        if fed is None or (fed.place, fed.token) != (seq.row.length, seq.tokens[-1]):
            return False
        return fed.slots == self._slots(seq, fed.place)

    def _go_ahead(self, flight: Flight, parts: Sequence[Part]) -> None:
        fed = []
        for seq in (part.task.seq for part in parts):
            place = seq.row.length + 1
            if (self.limit is None or place < self.limit) and self.pages.reserve(seq.row, 2):
                source = flight.fed[id(seq)][0]
                fed.append(Fed(seq, place, None, source, self._slots(seq, place)))
        if fed:
            self._flight = self._launch(fed)

    def _fed(self, part: Part) -> Fed:
        seq = part.task.seq
        return Fed(seq, seq.row.length, seq.tokens[-1], -1, self._slots(seq, seq.row.length))

    def _slots(self, seq: Seq, place: int) -> list[int]:
        """Where a row's token goes, in pages that it may write to."""
        tables = [seq.row.room(kind, place + 1) for kind in self.kinds]
        return [table.slots(place, place + 1)[0] for table in tables]

    def _launch(self, fed: Sequence[Fed]) -> Flight:
        step, replay = self._size(len(fed), max(one.place for one in fed) // PAGE + 1)
        step.fill(fed)
        self.replays += 1
        return Flight(fed, replay(), self.chosen)

    def _size(self, rows: int, width: int) -> tuple[Step, Run]:
        size = _power(rows), max(LEAST, _power(width))
        if size not in self._steps:
            step = Step(self.model, self.pages, self.kinds, *size, self.chosen)
            chosen = self.chosen.clone()  # recording runs the step
            self._steps[size] = step, self.graphs(step)
            self.chosen.copy_(chosen)
            self.captures += 1
        return self._steps[size]

    def _land(self, flight: Flight, parts: Sequence[Part]) -> list[int]:
        """Waits for a step, moves its rows on, and hands its logits out; returns the likeliest tokens."""
        logits_BV, chosen = flight.wait()
        seqs = [part.task.seq for part in parts]
        for seq in seqs:
            seq.row.length += 1
            seq.row.position = seq.row.length
        self.runner.moved(seqs, [max(seq.first, seq.row.length) for seq in seqs], len(seqs))
        taken = [flight.fed[id(seq)][0] for seq in seqs]
        self.runner.hand_out(parts, [1] * len(parts), logits_BV[taken], ())
        return chosen


def alone(part: Part, pages: Pages) -> bool:
    """Whether a part is one token whose logits alone are wanted, with nobody listening, of a row in these pages."""
    task, seq = part.task, part.task.seq
    plain = not (seq.source or seq.taps or seq.mute or seq.adapter or task.feed.hidden)
    return plain and seq.behind == 1 and task.first == len(seq.tokens) - 1 and seq.row.pages is pages


def kinds_of(model: Model) -> list[Base]:
    """The kinds of pages that a model's layers have."""
    attentions = [spec.attn for spec in model.stack.blocks if isinstance(spec, s.Block)]
    kinds = [spec.window or spec.chunk for spec in attentions if isinstance(spec, s.Attention)]
    return list(dict.fromkeys(kinds))


def steps_of(runner: Runner) -> Captured | None:
    """The captured steps of a runner on an accelerator; None where there are none."""
    pages, model = runner.pages, runner.model
    fixed = pages.total is not None and pages.bits is None
    return Captured(runner) if model.device.type == "cuda" and fixed and refusal(model) is None else None


def _power(n: int) -> int:
    """The power of two from n on."""
    return 1 << (n - 1).bit_length()


# ---------------------------------------------------------------------------------------------- which models


def refusal(model: Model) -> str | None:
    """Why a model's decode steps cannot be recorded; None where they can."""
    stack = model.stack
    if model.encoder is not None or model.spec.mutual or stack.body is not None:
        return "more than a causal stack of blocks"
    if turns_with_length(stack) or turning_points(stack):
        return "rotary positions that go by a row's length"
    for block in stack.blocks:
        attn = block.attn if isinstance(block, s.Block) else block
        if not isinstance(attn, s.Attention | None):
            return f"{type(attn).__name__} instead of attention"
        if isinstance(block, s.Block) and isinstance(block.mlp, s.Moe):
            return "experts that the host looks up"
    for part in (*_parts(stack), *_parts(model.head_spec)):
        match part:
            case s.Custom() | s.RelativeBias():
                return f"a {type(part).__name__} of its own"
            case s.Alibi(rounded=True):
                return "a bias in rounded steps"
            case s.LearnedPositions(skip=int()) | s.Sinusoidal(skip=int()):
                return "positions that are counted by ids"
    return None


def _parts(spec: object) -> Iterator[object]:
    """A dataclass and all that are in it."""
    if isinstance(spec, tuple):
        for one in spec:
            yield from _parts(one)
    elif is_dataclass(spec):
        yield spec
        for field in fields(spec):
            yield from _parts(getattr(spec, field.name))


# ---------------------------------------------------------------------------------------------- how many pages


def fixed_pages(model: Model, free: int | None = None, *, rows: int = ROWS, most: int | None = None) -> Pages:
    """Pages that do not grow: as many as there is memory for, and no more than so many rows of the whole context fill.

    Args:
        free: bytes; None for what the model's accelerator has.
        most: pages at most.
    """
    sizes = page_bytes(model)
    free = free_bytes(model.device) if free is None else free
    total = max(1, int(free * SHARE) // max(1, sum(sizes.values())))
    if model.spec.context is not None:
        total = min(total, rows * -(-model.spec.context // PAGE))
    total = total if most is None else min(total, most)
    return Pages(total, windows=[kind for kind in sizes if kind is None or isinstance(kind, int)])


@torch.inference_mode()
def page_bytes(model: Model) -> dict[object, int]:
    """Bytes of a page in each group of layers that has any, as a forward of one token makes them."""
    ids = torch.zeros(1, dtype=torch.int64, device=model.device)
    place = torch.zeros_like(ids)
    memory = None
    if model.encoder is not None:
        read = Batch([1], place, [1], ids=ids)
        memory = Memory(model.encoder.run(model.encoder.embed.tokens(ids), read), [1])
    cache = Cache(1)
    model.run(model.embed.tokens(ids), Batch([1], place, [1], cache, memory=memory, ids=ids))
    return {kind: group.page_bytes for kind, group in cache.pages.groups.items() if group.pools}


def free_bytes(device: torch.device) -> int:
    """Memory of an accelerator that nobody uses, what torch has put by included."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
