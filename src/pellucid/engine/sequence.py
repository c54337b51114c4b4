"""Sequences that a model is taking in: their tokens, and what the cache has of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.cache.row import Row
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.engine.runner import Runner

Listener = Callable[[Tensor], "Tensor | None"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a prompt brings beside its ids, or in their place. Tensors are on the model's device, and of its dtype.

    Args:
        vectors: [T, D], read in place of the prompt's own token vectors; `ids` then only say how many there are.
        states: [T, D], what an encoder made of the prompt in an earlier call: it is not read again.
        extra: further inputs of each token of the prompt that an encoder has by name, [T, …].
    """

    vectors: Tensor | None = None
    states: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Places of the prompt that need no ids."""
        found = self.states if self.vectors is None else self.vectors
        return 0 if found is None else len(found)


NOTHING = Given()


@dataclass(eq=False)
class Seq:
    """A row of a runner. The cache may be behind the tokens, after a preemption even empty: a feed makes up for it.

    Args:
        source: what the encoder reads, where there is one.
        given: what stands in the place of the prompt's ids, or beside them.
        taps: listeners to this sequence's part of the model's taps, by name.
        adapter: which of the model's adapters computes it; None for the model alone.
        first: tokens of the first feed; rotary positions that go by a row's length take them as one piece.
        span: the length that the keys in the cache were turned for.
        greedy: as far as the request says, the likeliest token comes next: a runner may go ahead with it.
        home: the sequences of the same request, which gives all back at its end; None for one that its owner keeps.
        apart: what the cache has was computed while somebody listened: no other row may begin with it.
        error: of a listener of its own, in the last forward.
    """

    runner: Runner
    row: Row
    tokens: list[int] = field(default_factory=list)
    source: tuple[int, ...] = ()
    given: Given = NOTHING
    taps: Mapping[str, Listener] = field(default_factory=dict)
    adapter: str | None = None
    first: int = 0
    span: int = 0
    greedy: bool = False
    home: set[Seq] | None = None
    apart: bool = False
    error: Exception | None = None
    _before: Row | None = None  # of a recurrent model: the row before tokens that may be taken back

    def __post_init__(self) -> None:
        if self.home is not None:
            self.home.add(self)

    @property
    def behind(self) -> int:
        """Tokens that the cache does not have."""
        return len(self.tokens) - self.row.length

    @property
    def mute(self) -> bool:
        """The next tokens are vectors of the prompt's own, not ids."""
        return self.given.vectors is not None and not self.source and self.row.length < len(self.given.vectors)

    def speak(self, x_TD: Tensor, begin: int) -> None:
        """Writes the prompt's own vectors over those of its tokens from `begin` on."""
        if self.given.vectors is not None:
            own_TD = self.given.vectors[begin : begin + len(x_TD)]
            x_TD[: len(own_TD)] = own_TD

    def fork(self, home: set[Seq] | None = None) -> Seq:
        """A copy that goes its own way; the cache shares what both have in common.

        Args:
            home: the sequences of the request that it is for; None for those of the same request.
        """
        home = self.home if home is None else home
        return replace(self, row=self.row.copy(), tokens=list(self.tokens), home=home, _before=None)

    def trim(self, tokens: int) -> None:
        """Forgets all but the first `tokens`. Where a state cannot go back, what it has lost is read again."""
        del self.tokens[tokens:]
        if self._before is not None and self._before.length > tokens:
            self._before = None  # other tokens will stand there
        if self.row.length <= tokens:
            return
        if any(tokens <= point < self.span for point in self.runner.points):
            self.release()  # its keys were turned for a longer row
            self.first = min(self.first, tokens)
            return
        try:
            self.row.trim(tokens)
        except ArgumentError:
            before, apart = self._before, self.apart
            self.release()
            if before is not None:
                self.row, self.span, self.apart = before, before.length, apart

    def keep(self) -> None:
        """Remembers the row as it is, for `trim` to go back to, where there are states that cannot go back."""
        if self.row.states:
            self._before = self.row.copy()

    def release(self) -> None:
        """Gives back what the cache has; the tokens stay."""
        self.row.drop()
        self.span, self.apart, self._before = 0, False, None

    def leave(self) -> Row:
        """What the cache has, which from now on is somebody else's: the request does not give it back."""
        if self.home is not None:
            self.home.discard(self)
            self.home = None
        return self.row

    def drop(self) -> None:
        """The request has no more use for the sequence."""
        if self.home is not None:
            self.release()
            self.home.discard(self)


@dataclass(frozen=True, eq=False)
class Feed:
    """A strategy's wish: these tokens join a sequence, and are run.

    Args:
        want: logits after each of the last so many tokens.
        hidden: also the residual stream at these places, before every block and at the end.
    """

    seq: Seq
    tokens: Sequence[int]
    want: int = 1
    hidden: bool = False


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model said.

    Args:
        logits_WV: [want, V], float32 on the CPU.
        hidden: the residual stream, [want, D] before each block and after the last norm; empty unless asked for.
    """

    logits_WV: Tensor
    hidden: tuple[Tensor, ...] = ()


@dataclass(eq=False)
class Task:
    """A feed that is being computed, perhaps in several steps."""

    feed: Feed
    first: int  # index of the first wanted token that was not answered yet
    logits: list[Tensor] = field(default_factory=list)
    hidden: list[tuple[Tensor, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, feed: Feed) -> Task:
        """The feed's tokens are in the sequence from now on."""
        seq = feed.seq
        seq.error = None
        if feed.want > 1:
            seq.keep()
        seq.tokens.extend(feed.tokens)
        seq.first = seq.first or len(seq.tokens)
        return cls(feed, len(seq.tokens) - feed.want)

    @property
    def seq(self) -> Seq:
        return self.feed.seq

    @property
    def done(self) -> bool:
        return self.first >= len(self.seq.tokens)

    def seen(self) -> Seen:
        """The answer, when all is computed."""
        logits = self.logits[0] if len(self.logits) == 1 else torch.cat(self.logits)
        return Seen(logits, tuple(torch.cat(pieces) for pieces in zip(*self.hidden)))
