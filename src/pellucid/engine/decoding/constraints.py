"""What a constrained search has to bring into the text, and how far a text has come with it.

The methods of a constraint are those of the reference, so that a user's own constraint works in both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from typing import Self


class Constraint(ABC):
    """Something that a text has to contain, token by token.

    A search tells it of tokens with `update`; `copy` makes another for a text that goes its own way.
    """

    completed = False

    @abstractmethod
    def advance(self) -> int | list[int] | None:
        """The token, or one of the tokens, that is the next step; None when it is complete."""

    @abstractmethod
    def does_advance(self, token_id: int) -> bool:
        """Whether a token is such a step."""

    @abstractmethod
    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        """Takes a token in: whether it was a step, whether all is complete, whether progress was lost."""

    @abstractmethod
    def reset(self) -> None:
        """Back to the beginning."""

    @abstractmethod
    def remaining(self) -> int:
        """Steps that are left at most."""

    @abstractmethod
    def copy(self, stateful: bool = False) -> Self:
        """The same constraint at its beginning; as far as this one is with `stateful`."""


class OneOf(Constraint):
    """One of several phrases, uninterrupted.

    Raises:
        ArgumentError: no phrases, one that is empty or no ids, or one that another begins with.
    """

    def __init__(self, nested_token_ids: Sequence[Sequence[int]]) -> None:
        if not isinstance(nested_token_ids, (list, tuple)) or not nested_token_ids:
            _refuse(f"phrases={nested_token_ids!r}", "give a list of phrases, lists of ids")
        self.token_ids: Any = nested_token_ids
        self.phrases = [_phrase(each) for each in nested_token_ids]
        for i, one in enumerate(self.phrases):
            if any(j != i and other[: len(one)] == one for j, other in enumerate(self.phrases)):
                _refuse(f"{list(one)} is the beginning of another phrase", "leave the longer one out")
        self.seqlen = max(map(len, self.phrases))
        self.said: tuple[int, ...] = ()

    def advance(self) -> int | list[int] | None:
        place = len(self.said)
        fitting = [phrase[place] for phrase in self.phrases if phrase[:place] == self.said and len(phrase) > place]
        return list(dict.fromkeys(fitting)) or None

    def does_advance(self, token_id: int) -> bool:
        return token_id in _several(self.advance())

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        if not self.does_advance(token_id):
            self.reset()
            return False, False, True
        self.said = (*self.said, token_id)
        self.completed = self.said in self.phrases
        return True, self.completed, False

    def reset(self) -> None:
        self.said = ()
        self.completed = False

    def remaining(self) -> int:
        return 0 if self.completed else self.seqlen - len(self.said)

    def copy(self, stateful: bool = False) -> Self:
        new = type(self)(self.token_ids)
        if stateful:
            new.said, new.completed = self.said, self.completed
        return new


class Phrase(OneOf):
    """A phrase, uninterrupted.

    Raises:
        ArgumentError: it is empty, or not of ids.
    """

    def __init__(self, token_ids: Sequence[int]) -> None:
        super().__init__([token_ids])
        self.token_ids = token_ids

    def advance(self) -> int | list[int] | None:
        found = super().advance()
        return found[0] if isinstance(found, list) else found


class Progress:
    """How far a text has come with some constraints, in whatever order they are met.

    One at a time is under way. A token that breaks it off begins no other, as in the reference.
    """

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.waiting = [constraint.copy() for constraint in constraints]
        self.under_way: Constraint | None = None
        self.met = 0
        self.longest = max(constraint.remaining() for constraint in self.waiting)

    @property
    def completed(self) -> bool:
        """Whether all are met."""
        return not self.waiting and self.under_way is None

    @property
    def steps(self) -> int:
        """Steps that were made; a constraint that is met counts as the longest."""
        begun = 0 if self.under_way is None else self.longest - self.under_way.remaining()
        return self.met * self.longest + begun

    def advance(self) -> list[int]:
        """The tokens that are a step: of the constraint under way, else of all that wait."""
        able = self.waiting if self.under_way is None else [self.under_way]
        return [token for constraint in able for token in _several(constraint.advance())]

    def after(self, token: int) -> Progress:
        """The progress with one token more."""
        new = object.__new__(Progress)
        new.waiting, new.met, new.longest = list(self.waiting), self.met, self.longest
        new.under_way = None
        if self.under_way is not None:
            new._go_on(self.under_way.copy(stateful=True), token)
        else:
            new._look_for_one(token)
        return new

    def _go_on(self, constraint: Constraint, token: int) -> None:
        _, completed, lost = constraint.update(token)
        if completed:
            self.met += 1
        elif lost:
            self.waiting.append(constraint.copy())
        else:
            self.under_way = constraint

    def _look_for_one(self, token: int) -> None:
        for i, constraint in enumerate(self.waiting):
            if constraint.does_advance(token):
                del self.waiting[i]
                self._go_on(constraint.copy(stateful=True), token)
                return


def _several(tokens: int | list[int] | None) -> list[int]:
    if tokens is None:
        return []
    return tokens if isinstance(tokens, list) else [tokens]


def _phrase(tokens: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(tokens, (list, tuple)) or not tokens or any(type(t) is not int or t < 0 for t in tokens):
        _refuse(f"phrase={tokens!r}", "give a list of ids, at least one")
    return tuple(tokens)


def _refuse(what: str, advice: str) -> None:
    raise ArgumentError(what, where="constraints", next=advice)
