"""A model and its cache: pieces of any sequences in one forward."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from pellucid.cache.batch import Batch, Memory
from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE
from pellucid.cache.pages import Pages
from pellucid.cache.row import Row
from pellucid.engine import captured, replayed
from pellucid.engine.admission import check_ids
from pellucid.engine.clock import Clock
from pellucid.engine.listening import Layout, listening
from pellucid.engine.sequence import Feed, Seq, Task
from pellucid.models.model import Model
from pellucid.nn.tapped import Tapped
from pellucid.ops.rope import turning_points, turns_with_length


@dataclass(frozen=True)
class Part:
    """The next `count` tokens of a task's sequence."""

    task: Task
    count: int


class Runner:
    """Computes what sequences have not in the cache yet. Several may share an engine: a model and its drafts.

    Args:
        pages: where keys, values and states are kept; None for as many as it takes.
        share: begin with pages that another sequence has filled, where it began with the same tokens.
    """

    def __init__(self, model: Model, pages: Pages | None = None, *, share: bool = False) -> None:
        self.model = model
        self.pages = pages or (
            captured.fixed_pages(model) if model.device.type == "cuda" and model.placement is None else Pages()
        )
        self.pages.claim(model)
        self.mutual = model.spec.mutual
        self.moving = self.mutual or turns_with_length(model.stack)
        self.share = share and model.encoder is None and not self.moving
        self.points = turning_points(model.stack)
        self.recurrent = False  # whether rows have states; known after the first forward
        self.steps = 0  # forwards so far
        self.computed = 0  # tokens so far
        self.clock = Clock()
        self.captured = captured.steps_of(self) or replayed.replays_of(self)
        self._tapped = [module for module in model.modules() if isinstance(module, Tapped)]

    def row(self) -> Row:
        """An empty row of the cache."""
        return Row(self.pages)

    def check(self, feed: Feed) -> None:
        """Refuses what the model cannot run, before it is in one forward with what others want.

        Raises:
            InputError: a token outside the vocabulary; a row longer than the model has positions for.
        """
        check_ids(feed.tokens, self.model.stack.embed.vocab, "generate")
        self.model.check_positions(len(feed.seq.tokens) + len(feed.tokens))

    # ---------------------------------------------------------------------------------------- pages

    def attach(self, task: Task) -> None:
        """Lets an empty row begin with pages that are known; what the task wants is computed all the same."""
        seq = task.seq
        if seq.row.length == 0 and task.first >= PAGE and self.shares(seq):
            seq.row.attach(seq.tokens[: task.first + 1], self.salt(seq))
            seq.span = max(seq.first, seq.row.length) if seq.row.length else 0

    def publish(self, seq: Seq) -> None:
        """Lets later sequences begin with this one's full pages."""
        if self.shares(seq):
            seq.row.publish(seq.tokens, self.salt(seq))

    def shares(self, seq: Seq) -> bool:
        """Whether its pages may be those of others: they say nothing but its tokens, and nobody listens."""
        return self.share and not (seq.taps or seq.apart) and seq.given.vectors is None

    @property
    def listened(self) -> bool:
        """Whether anybody listens to all that the model computes: then nothing is left out."""
        return any(module.listening for module in self._tapped)

    def salt(self, seq: Seq) -> Hashable:
        """What keys and values depend on beside the tokens: an adapter, and the side of LongRoPE's turning points."""
        return seq.adapter, tuple(seq.first > point for point in self.points)

    def reserve(self, part: Part) -> bool:
        """Takes the pages that a part will fill; False, and none, where they lack."""
        seq = part.task.seq
        return self.pages.reserve(seq.row, part.count, 0 if seq.row.memory else len(seq.source))

    def fits(self, tokens: int) -> bool:
        """Whether pages for so many tokens are free, or only remembered."""
        return self.pages.fits(tokens)

    # ---------------------------------------------------------------------------------------- one forward

    def turn(self, seq: Seq) -> None:
        """A row that grows past a length at which all keys are turned anew is read again, as one piece (LongRoPE)."""
        end = max(seq.first, seq.row.length + 1)
        if seq.row.length and any(seq.span <= point < end for point in self.points):
            seq.release()
            seq.first = len(seq.tokens)

    def stride(self, seq: Seq) -> int:
        """How many tokens may be computed in one piece.

        Rotary positions that go by a row's length, and tokens that see each other, take the first feed as one, and then
        every token by its own.
        """
        length = seq.row.length
        if self.share and self.recurrent and length < (page := (seq.first - 1) // PAGE * PAGE):
            return page - length  # states can be shared where a page ends
        if length < seq.first:
            return seq.first - length if self.moving or self.points else seq.behind
        if self.moving:
            return 1
        return min([seq.behind, *(point - length for point in self.points if length < point)])

    @torch.inference_mode()
    def forward(self, parts: Sequence[Part]) -> None:
        """Computes all parts; what they wanted is in their tasks."""
        with self.clock.timing([part.count for part in parts]):
            self._compute(parts)

    def _compute(self, parts: Sequence[Part]) -> None:
        if self.captured is not None:
            parts = self.captured.run(parts)
        fresh = [part for part in parts if part.task.seq.source and not part.task.seq.row.memory]
        others = [part for part in parts if part not in fresh] if fresh else parts
        if fresh:
            self._forward(fresh, self.encode([part.task.seq for part in fresh]))
        if mute := [part for part in others if part.task.seq.mute]:
            self._forward(mute, None)
            others = [part for part in others if part not in mute]
        if others:
            self._forward(others, None)

    def _forward(self, parts: Sequence[Part], memory: Memory | None) -> None:
        model, device = self.model, self.model.device
        seqs = [part.task.seq for part in parts]
        begins = [seq.row.length for seq in seqs]
        ends = [begin + min(part.count, seq.behind) for begin, part, seq in zip(begins, parts, seqs)]
        ids = [token for begin, end, seq in zip(begins, ends, seqs) for token in seq.tokens[begin:end]]
        ids_N = torch.tensor(ids, device=device)
        place_N = torch.tensor([p for begin, end in zip(begins, ends) for p in range(begin, end)], device=device)
        model.check_positions(max(ends))
        cache = Cache(0, self.pages)
        cache.rows = [seq.row for seq in seqs]
        lengths = [end - begin for begin, end in zip(begins, ends)]
        spans = [max(seq.first, end) for seq, end in zip(seqs, ends)]
        batch = Batch(lengths, place_N, ends, cache, memory=memory, ids=ids_N, spans=spans)
        batch.hidden = [] if any(part.task.feed.hidden for part in parts) else None
        wanted = [range(max(part.task.first, begin), end) for part, begin, end in zip(parts, begins, ends)]
        starts = [0, *accumulate(lengths)]
        kept = [start + place - begin for start, begin, own in zip(starts, begins, wanted) for place in own]
        layout = Layout(lengths, ends, [len(own) for own in wanted], *_memory(seqs, memory))
        with model.threads(len(ids)), listening(model, seqs, layout):
            x_ND = model.lookup(ids_N, "prompt")
            if seqs[0].mute:
                batch.ids = None
                for seq, begin, x_TD in zip(seqs, begins, x_ND.split(lengths)):
                    seq.speak(x_TD, begin)
            x_ND = model.run(x_ND, batch)
            logits_RV = model.predict(x_ND if len(kept) == len(ids) else x_ND[kept]) if kept else x_ND[:0]
        batch.finish()
        self.moved(seqs, spans, len(ids))
        hidden = [x_ND[kept].cpu() for x_ND in batch.hidden or ()]
        self.hand_out(parts, [len(own) for own in wanted], logits_RV.float().cpu(), hidden)

    def moved(self, seqs: Sequence[Seq], spans: Sequence[int], tokens: int) -> None:
        """A forward of so many tokens has moved these rows on."""
        listened = self.share and self.listened
        for seq, span in zip(seqs, spans):
            seq.span = span
            seq.apart = seq.apart or listened or bool(seq.taps)
            self.recurrent = self.recurrent or bool(seq.row.states)
            self.publish(seq)
        self.steps += 1
        self.computed += tokens

    def hand_out(
        self, parts: Sequence[Part], counts: Sequence[int], logits_RV: Tensor, hidden: Sequence[Tensor]
    ) -> None:
        """Gives each part as many of the logits and states as it wanted."""
        for part, count, begin in zip(parts, counts, [0, *accumulate(counts)]):
            if count:
                part.task.first += count
                part.task.logits.append(logits_RV[begin : begin + count])
                if part.task.feed.hidden:
                    part.task.hidden.append(tuple(x_RD[begin : begin + count] for x_RD in hidden))

    @torch.inference_mode()
    def encode(self, seqs: Sequence[Seq]) -> Memory:
        """What the encoder makes of the sources of some sequences, packed."""
        unread = [seq for seq in seqs if seq.given.states is None]
        alike = len({frozenset(seq.given.extra) for seq in unread}) == 1
        read = iter([x_TD for some in ([unread] if alike else [[seq] for seq in unread]) for x_TD in self._read(some)])
        states = [next(read) if seq.given.states is None else seq.given.states for seq in seqs]
        return Memory(torch.cat(states), [len(x_TD) for x_TD in states])

    def _read(self, seqs: Sequence[Seq]) -> Sequence[Tensor]:
        """One forward of the encoder, [T, D] for each sequence; they have the same further inputs."""
        encoder, device = self.model.encoder, self.model.device
        assert encoder is not None, "only sequences behind an encoder have a source"
        lengths = [len(seq.source) for seq in seqs]
        ids_N = torch.tensor([token for seq in seqs for token in seq.source], device=device)
        place_N = torch.tensor([p for n in lengths for p in range(n)], device=device)
        extra = {name: torch.cat([seq.given.extra[name] for seq in seqs]) for name in seqs[0].given.extra}
        spoken = any(seq.given.vectors is not None for seq in seqs)
        layout = Layout(lengths, lengths)
        with self.model.threads(len(place_N)), listening(self.model, seqs, layout):
            x_ND = self.model.lookup(ids_N, "prompt", encoder)
            for seq, x_TD in zip(seqs, x_ND.split(lengths)):
                if seq.given.vectors is not None:
                    x_TD.copy_(seq.given.vectors)
            batch = Batch(lengths, place_N, lengths, ids=None if spoken else ids_N, extra=extra)
            return encoder.run(x_ND, batch).split(lengths)


def _memory(seqs: Sequence[Seq], memory: Memory | None) -> tuple[Sequence[int], Sequence[int]]:
    """Of each sequence the states of an encoder that are new, and those that it attends to."""
    if memory is None:
        return [0] * len(seqs), [seq.row.memory for seq in seqs]
    return memory.lengths, memory.lengths
