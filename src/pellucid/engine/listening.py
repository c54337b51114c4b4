"""Taps of one request: its own part of the values that a forward computes for all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from pellucid.engine.sequence import Listener, Seq
from pellucid.errors import InputError, Unsupported
from pellucid.models.model import Model

Place = tuple[slice, ...]


@dataclass(frozen=True)
class Layout:
    """How much of a forward belongs to each sequence.

    Args:
        tokens: that are computed.
        ends: tokens that these see.
        wanted: tokens whose logits are computed.
        memory: states of an encoder whose keys and values are computed; none where the cache has them.
        seen: states of an encoder that are attended to.
    """

    tokens: Sequence[int]
    ends: Sequence[int]
    wanted: Sequence[int] = ()
    memory: Sequence[int] = ()
    seen: Sequence[int] = ()

    def place(self, name: str, x: Tensor, i: int) -> Place:
        """Where a sequence's part of the value of a tap lies: its own row of a pattern, or its tokens.

        Raises:
            Unsupported: the value is not one of tokens.
        """
        *path, value = name.split(".")
        cross = "cross" in path
        if value == "pattern":
            keys = self.seen if cross else self.ends
            return slice(i, i + 1), slice(None), slice(self.tokens[i]), slice(keys[i])
        counts = self.tokens
        if path[:1] == ["lm_head"]:
            counts = self.wanted
        elif cross and value in ("k", "v"):
            counts = self.memory
        starts = [0, *accumulate(counts)]
        if len(x) != starts[-1]:
            what = f"the tap {name} of one request: its {len(x)} places are not those of tokens"
            raise Unsupported(what, where="taps", next="run the request alone, under model.taps")
        return (slice(starts[i], starts[i + 1]),)


def listening(model: Model, seqs: Sequence[Seq], layout: Layout) -> AbstractContextManager[object]:
    """Shows every sequence its own part of what it has taps for. An error in one is left in its `error`."""
    wishes: dict[str, list[tuple[int, Seq, Listener]]] = {}
    for i, seq in enumerate(seqs):
        for name, own in seq.taps.items():
            for full in model.tapped(name):
                wishes.setdefault(full, []).append((i, seq, own))
    if not wishes:
        return nullcontext()
    return model.taps({name: _shared(name, wish, layout) for name, wish in wishes.items()})


def _check(name: str, part: Tensor, replaced: Tensor) -> None:
    if replaced.shape != part.shape:
        what = f"a listener to {name} put {list(replaced.shape)} in the place of {list(part.shape)}"
        raise InputError(what, where="taps", next="return a value of the same shape, or None")


def _shared(name: str, wishes: Sequence[tuple[int, Seq, Listener]], layout: Layout) -> Listener:
    """One listener for several sequences."""

    def listen(x: Tensor) -> Tensor | None:
        whole = None
        for i, seq, own in wishes:
            if seq.error is not None:
                continue
            try:
                at = layout.place(name, x, i)
                part = (x if whole is None else whole)[at]
                replaced = own(part) if part.numel() else None
                if replaced is not None:
                    _check(name, part, replaced)
                    whole = x.clone() if whole is None else whole
                    whole[at] = replaced
            except Exception as error:  # the request's own: the others go on
                seq.error = error
        return whole

    return listen
