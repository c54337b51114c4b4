"""What ends a sequence beside its end tokens: texts, time, doubt, and the user's own criteria."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from pellucid.engine.rules.rule import Trail
from pellucid.errors import ArgumentError, InputError

if TYPE_CHECKING:
    from pellucid.engine.options import GenerationConfig
    from pellucid.text.tokenizer import Tokenizer

# A decoder writes the first token of a text in its own way, and a character is at most 4 tokens: this many tokens on,
# a token's text does not depend on where the text begins.
CONTEXT = 6


class Stop(Protocol):
    """Says when a sequence ends. A pure function of its arguments, as rules are."""

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        """Whether the token that was just accepted, the last of `ids`, is the last.

        Args:
            ids: all decoder tokens, that one included.
            logits_V: what it was chosen from, after all rules.
        """
        ...

    def fork(self) -> Stop:
        """A stop for a second row that goes its own way from here."""
        ...


class Same:
    """The hook of a stop that rows can share."""

    def fork(self) -> Any:
        """Itself."""
        return self


@dataclass(frozen=True)
class MaxLength(Same):
    """At so many ids."""

    length: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        return len(ids) >= self.length


@dataclass(frozen=True)
class MaxTime(Same):
    """After so many seconds from `begun`, by the clock of `time.monotonic`."""

    seconds: float
    begun: float = field(default_factory=time.monotonic)

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        return time.monotonic() - self.begun > self.seconds


@dataclass(frozen=True)
class EndTokens(Same):
    """At one of these."""

    tokens: frozenset[int]

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        return ids[-1] in self.tokens


@dataclass(frozen=True)
class StopTexts(Same):
    """Where the last token completes one of the texts; it may have begun in the prompt, as in the reference.

    A step decodes the last tokens only, as many as the longest text can have.
    """

    tokenizer: Tokenizer
    texts: tuple[str, ...]

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        tail = list(ids[-self._tokens() :])
        text, before = self._decode(tail), self._decode(tail[:-1])
        old = len(commonprefix([text, before]))  # a character that was incomplete is not old
        return any(text.find(stop, max(0, old - len(stop) + 1)) >= 0 for stop in self.texts)

    def _tokens(self) -> int:
        return max((len(text.encode()) for text in self.texts), default=0) + CONTEXT + 1

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.rust.decode(ids, skip_special_tokens=False) if ids else ""


@dataclass(frozen=True)
class Doubt(Same):
    """Where the token that was chosen was less likely than this (arXiv 2405.04304)."""

    threshold: float

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        return logits_V is not None and float(logits_V.softmax(-1)[ids[-1]]) < self.threshold


@dataclass(frozen=True)
class Custom:
    """Calls `criteria(input_ids [1, N], scores, **kwargs)` of the reference; `scores` holds the last step's [1, V]."""

    criteria: Any
    _trail: Trail = field(default_factory=Trail, compare=False, repr=False)

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        scores = None if logits_V is None else (logits_V[None],)
        found = self.criteria(self._trail.follow(ids)[None].clone(), scores)
        if found is None:
            what = f"{type(self.criteria).__name__} returned nothing"
            raise InputError(what, where="stopping_criteria", next="return whether the row ends, True or False")
        return bool(found.any()) if isinstance(found, Tensor) else bool(found)

    def fork(self) -> Custom:
        return replace(self, _trail=self._trail.copy())


def stops(options: GenerationConfig, *, tokenizer: Tokenizer | None = None, criteria: Iterable[Any] = ()) -> list[Stop]:
    """What ends a row beside its end tokens and its length.

    Args:
        criteria: the user's own: stops, or objects of the reference's signature.

    Raises:
        ArgumentError: stop strings without a tokenizer; a criterion that is none.
    """
    found: list[Stop] = []
    if options.max_time is not None:
        found.append(MaxTime(options.max_time))
    if options.stop_strings:
        found.append(StopTexts(_needed(tokenizer), stop_texts(options)))
    if options.is_assistant and options.assistant_confidence_threshold:
        found.append(Doubt(options.assistant_confidence_threshold))
    return found + [as_stop(each) for each in criteria]


def stop_texts(options: GenerationConfig) -> tuple[str, ...]:
    """The stop strings, one or several or none."""
    texts = options.stop_strings or ()
    return (texts,) if isinstance(texts, str) else tuple(texts)


def as_stop(criteria: Any) -> Stop:
    """A stop of a stop, of one of ours under the reference's name (`compat.stopping`), or of any such callable.

    Raises:
        ArgumentError: it is none of these.
    """
    if hasattr(criteria, "stop_of"):
        made: Stop = criteria.stop_of()
        return made
    if hasattr(criteria, "fork"):
        stop: Stop = criteria
        return stop
    if callable(criteria):
        return Custom(criteria)
    what = f"a stopping criterion is a {type(criteria).__name__}"
    raise ArgumentError(what, where="stopping_criteria", next="give callables (input_ids, scores) -> bool")


def _needed(tokenizer: Tokenizer | None) -> Tokenizer:
    if tokenizer is None:
        raise ArgumentError("stop_strings without a tokenizer", where="stop_strings", next="pass tokenizer=…")
    return tokenizer
