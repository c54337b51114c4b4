"""What a logits rule is: a function of one row's ids and logits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing import Self

NEVER = float("-inf")


class Rule(Protocol):
    """Changes the logits of the next token, and with them what is chosen.

    A pure function of its arguments: what a rule keeps is a cache of what `ids` say, or comes from `took`, and holds
    when `ids` went back since (speculation) or were another text.
    """

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        """Other logits, [V] float32 on the CPU; the argument stays as it is.

        Args:
            ids: all decoder tokens so far, the prompt among them where there is no encoder; no pads.
        """
        ...

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        """`token` was chosen behind `ids`, from `logits_V` after all rules."""
        ...

    def fork(self) -> Rule:
        """A rule for a second row that goes its own way from here."""
        ...


class Pure:
    """The hooks of a rule without state."""

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        """Nothing to note."""

    def fork(self) -> Self:
        """Itself."""
        return self


class Trail:
    """The ids of a row as a tensor that grows with them, so that a step costs the new ids alone."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._buffer = torch.empty(64, dtype=torch.long)

    def follow(self, ids: Sequence[int]) -> Tensor:
        """`ids` as a tensor [N], a view that holds until the next call."""
        ids = ids if isinstance(ids, list) else list(ids)
        kept = shared(self._ids, ids)
        if kept < len(self._ids):
            del self._ids[kept:]
        if kept < len(ids):
            fresh = ids[kept:]
            if len(ids) > len(self._buffer):
                bigger = torch.empty(2 * len(ids), dtype=torch.long)
                bigger[:kept] = self._buffer[:kept]
                self._buffer = bigger
            self._buffer[kept : len(ids)] = torch.tensor(fresh)
            self._ids += fresh
        return self._buffer[: len(ids)]

    def copy(self) -> Trail:
        """Another trail that has come as far."""
        new = Trail()
        new._ids, new._buffer = list(self._ids), self._buffer.clone()
        return new


class Notes:
    """A number behind each token that was chosen, for rules that learn from it.

    Those behind tokens that were taken back since, or behind another text, do not count.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._places: list[int] = []  # rising
        self._numbers: list[float] = []

    def last(self, ids: Sequence[int], start: float) -> float:
        """The number behind the last noted token of `ids`; `start` where there is none."""
        found = bisect_right(self._places, shared(self._ids, list(ids)))
        return self._numbers[found - 1] if found else start

    def add(self, ids: Sequence[int], token: int, number: float) -> None:
        """Notes a number behind `ids` and the token that was chosen there."""
        kept = bisect_right(self._places, shared(self._ids, list(ids)))
        self._ids = [*ids, token]
        self._places[kept:], self._numbers[kept:] = [len(self._ids)], [number]

    def copy(self) -> Notes:
        """The same notes, for a row that goes its own way."""
        new = Notes()
        new._ids, new._places, new._numbers = list(self._ids), list(self._places), list(self._numbers)
        return new


def shared(first: list[int], second: list[int]) -> int:
    """How many ids two lists begin with alike."""
    most = min(len(first), len(second))
    if first[:most] == second[:most]:
        return most
    least = 0  # equal up to here, different at `most`
    while most - least > 1:
        middle = (least + most) // 2
        if first[least:middle] == second[least:middle]:
            least = middle
        else:
            most = middle
    return least


def inside(ids_N: Tensor, logits_V: Tensor) -> Tensor:
    """The ids that these logits have a place for: a vocabulary may hold more than the head predicts; -1 is none."""
    return ids_N[(ids_N >= 0) & (ids_N < len(logits_V))]


def forbid(logits_V: Tensor, ids_N: Tensor) -> Tensor:
    """These tokens never."""
    return logits_V.index_fill(0, inside(ids_N, logits_V), NEVER)


def only(logits_V: Tensor, ids_N: Tensor, value: float = 0.0) -> Tensor:
    """One of these tokens and no other, all alike."""
    return torch.full_like(logits_V, NEVER).index_fill(0, inside(ids_N, logits_V), value)


def id_tensor(ids: Iterable[int]) -> Tensor:
    """Ids as a tensor, also where there are none."""
    return torch.tensor(list(ids), dtype=torch.long)
