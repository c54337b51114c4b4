"""Decode steps on a CPU: recorded once for each number of rows, and replayed as one list of native calls.

A decode step gives every row one token. What a step does is the same for each of them, so it is recorded when a second
one of a size is asked for (`ops/cpu/steps.py`), and from then on the host only says which tokens there are and where
they lie. The bits are those of the plain way: the same kernels in the same order.

The plain way is taken where anything else is wanted (prompts, taps, hooks, drafts, hidden states), and where a step
cannot be recorded. A recording goes when the model is not what it was (`nn/unchanged.py`), or the pages have moved.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE, Base
from pellucid.cache.places import Places
from pellucid.engine.captured import alone, kinds_of, refusal
from pellucid.models.model import Model
from pellucid.nn.unchanged import Unchanged
from pellucid.ops import cpu
from pellucid.ops.cpu import steps
from pellucid.ops.packed import asked_exactly

if TYPE_CHECKING:
    from pellucid.cache.pages import Pages
    from pellucid.engine.runner import Part, Runner
    from pellucid.engine.sequence import Seq

ROWS = 8  # of a step at most: with more, what is around the products counts for little
LEAST = 8  # table entries of a row at least: 256 tokens
PATIENCE = 64  # plain steps after a step that could not be recorded


class Step:
    """A forward of one token for each of `rows` rows, whose tables have `width` entries; `run` makes it once more."""

    spent: steps.Spent | None = None  # where the time of each run is added, if anybody measures

    def __init__(self, model: Model, pages: Pages, kinds: Sequence[Base], rows: int, width: int) -> None:
        self.model, self.pages, self.kinds, self.rows, self.width = model, pages, kinds, rows, width
        self._ids, self._places, self._ends = (array("q", [0] * rows) for _ in range(3))
        self._slots = [array("q", [0] * rows) for _ in kinds]
        self._tables = [array("i", [0] * rows * width) for _ in kinds]
        self.recording = steps.Recording()
        self.logits_BV = self.recording.of(self._forward)

    def _forward(self) -> Tensor:
        """The logits, float32."""
        rows = self.rows
        ids_B, place_B, end_B = (torch.frombuffer(x, dtype=torch.int64) for x in (self._ids, self._places, self._ends))
        batch = Batch([1] * rows, place_B, [2] * rows, Cache(0, self.pages), ids=ids_B)
        for kind, slots, table in zip(self.kinds, self._slots, self._tables):
            slots_B = torch.frombuffer(slots, dtype=torch.int64)
            tables_BI = torch.frombuffer(table, dtype=torch.int32).view(rows, self.width)
            batch.share(("places", kind), Places.in_tensors(self.pages, kind, slots_B, tables_BI, end_B))
        return self.model.predict(self.model.run(self.model.embed.tokens(ids_B), batch)).float()

    def run(self, seqs: Sequence[Seq]) -> Tensor:
        """The logits after the last token of each, [rows, V] float32."""
        for b, seq in enumerate(seqs):
            place = seq.row.length
            self._ids[b], self._places[b], self._ends[b] = seq.tokens[-1], place, place + 1
            for kind, slots, tables in zip(self.kinds, self._slots, self._tables):
                table = seq.row.room(kind, place + 1)
                slots[b] = table.slots(place, place + 1)[0]
                pages = table.pages[: place // PAGE + 1]
                tables[b * self.width : b * self.width + len(pages)] = pages
        with self.model.threads(self.rows):
            self.recording.run(torch.get_num_threads(), self.spent)
        return self.logits_BV.clone()


class Replayed:
    """The decode steps of a runner, from recordings."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.model, self.pages = runner, runner.model, runner.pages
        self.kinds = kinds_of(runner.model)
        self.recorded = 0  # steps that were recorded
        self.replays = 0  # steps that were made from a recording
        self.refused = ""  # why the last one could not be recorded
        self._steps: dict[tuple[int, bool], Step] = {}
        self._unchanged: Unchanged | None = None
        self._lie: list[int] = []
        self._seen: set[int] = set()  # numbers of rows that a step has had
        self._wait = 0  # steps until the next attempt

    def run(self, parts: Sequence[Part]) -> list[Part]:
        """Computes the parts, if they are single steps; returns those that are left."""
        seqs = [part.task.seq for part in parts]
        if not 0 < len(parts) <= ROWS or not all(alone(part, self.pages) for part in parts) or not self._ready():
            return list(parts)
        self.model.check_positions(max(seq.row.length for seq in seqs) + 1)
        step = self._step(seqs)
        if step is None:
            return list(parts)
        logits_BV = step.run(seqs)
        self.replays += 1
        for seq in seqs:
            seq.row.length += 1
            seq.row.position = seq.row.length
        self.runner.moved(seqs, [max(seq.first, seq.row.length) for seq in seqs], len(seqs))
        self.runner.hand_out(parts, [1] * len(parts), logits_BV, ())
        return []

    @torch.inference_mode()
    def again(self, tokens: int) -> list[Step]:
        """Records once more what is recorded, for rows of so many tokens: whoever measures labels what is noted."""
        width = -(-tokens // PAGE)
        self._steps = {
            key: Step(self.model, self.pages, self.kinds, step.rows, max(step.width, width))
            for key, step in self._steps.items()
        }
        return list(self._steps.values())

    def _ready(self) -> bool:
        """Whether nobody wants more of a step than its logits, and the model is as it was recorded."""
        if self.model.training or self.runner.listened or cpu.recorded() or torch.is_autocast_enabled("cpu"):
            return False
        if self._unchanged is None or not self._unchanged.holds():
            self._steps.clear()
            self._seen.clear()
            self._unchanged = Unchanged(self.model)
        if self._unchanged.plain:
            return True
        self._unchanged = None  # and look again
        return False

    def _step(self, seqs: Sequence[Seq]) -> Step | None:
        """The recorded step for these rows; None while there is none."""
        rows, key = len(seqs), (len(seqs), asked_exactly())
        for seq in seqs:
            for kind in self.kinds:
                seq.row.room(kind, seq.row.length + 1)
        groups = [self.pages.group(kind) for kind in self.kinds]
        pools = [x for group in groups for pool in group.pools.values() for x in pool]
        if any(not group.pools for group in groups) or any(
            x.shape[0] <= group.capacity for group in groups for pool in group.pools.values() for x in pool[:1]
        ):
            return None  # the plain way lets them grow
        lie = [x.data_ptr() for x in pools]
        if lie != self._lie:
            self._steps.clear()
            self._lie = lie
        width = max(seq.row.length for seq in seqs) // PAGE + 1
        step = self._steps.get(key)
        if step is not None and step.width >= width:
            return step
        self._wait -= 1
        if rows not in self._seen or self._wait > 0:
            self._seen.add(rows)
            return None
        try:
            width = max(LEAST, 1 << (width - 1).bit_length())
            step = self._steps[key] = Step(self.model, self.pages, self.kinds, rows, width)
        except (steps.Refused, LookupError) as refused:  # LookupError: another thread listens to patterns, made of rows
            self.refused, self._wait = str(refused), PATIENCE
            return None
        self.recorded += 1
        return step


def replays_of(runner: Runner) -> Replayed | None:
    """The recorded steps of a runner on a CPU; None where there are none."""
    model = runner.model
    whole = model.device.type == "cpu" and model.placement is None and runner.pages.bits is None
    return Replayed(runner) if whole and steps.library() is not None and refusal(model) is None else None
