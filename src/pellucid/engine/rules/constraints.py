"""Rules that give, forbid or favour tokens: lengths, first and last tokens, biases, bad words."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine.rules.penalties import Following
from pellucid.engine.rules.rule import NEVER, Pure, forbid, id_tensor, only
from pellucid.errors import InputError


@dataclass(frozen=True)
class Suppress(Pure):
    """These tokens never."""

    tokens: tuple[int, ...]

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return forbid(logits_V, self._tokens)

    @cached_property
    def _tokens(self) -> Tensor:
        return id_tensor(self.tokens)


@dataclass(frozen=True)
class SuppressAtBegin(Suppress):
    """These tokens not as the one behind `place` ids."""

    place: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return super().__call__(ids, logits_V) if len(ids) == self.place else logits_V


@dataclass(frozen=True)
class MinLength(Suppress):
    """No end (`tokens`) before there are `length` ids, the prompt counted."""

    length: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return super().__call__(ids, logits_V) if len(ids) < self.length else logits_V


@dataclass(frozen=True)
class MinNewTokens(Suppress):
    """No end (`tokens`) before `least` ids stand behind the first `prompt`."""

    prompt: int
    least: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return super().__call__(ids, logits_V) if len(ids) - self.prompt < self.least else logits_V


@dataclass(frozen=True)
class Forced(Pure):
    """The token behind `place` ids is one of these."""

    tokens: tuple[int, ...]
    place: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return only(logits_V, id_tensor(self.tokens)) if len(ids) == self.place else logits_V


@dataclass(frozen=True)
class ForcedBos(Forced):
    """The token behind the first id, which a decoder starts from: a language, say."""

    place: int = 1


@dataclass(frozen=True)
class ForcedEos(Forced):
    """The last token that there is room for is an end."""


@dataclass(frozen=True)
class LogitBias(Pure):
    """Adds to the logits of single tokens.

    Raises:
        InputError: a token outside the vocabulary.
    """

    bias: Mapping[int, float]

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        _check_inside(self.bias, len(logits_V), "logit_bias")
        return logits_V.index_add(0, *self._pairs)

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        return id_tensor(self.bias), torch.tensor(list(self.bias.values()), dtype=torch.float32)


@dataclass(frozen=True)
class SequenceBias(Pure):
    """Adds to the logit of a sequence's last token where the ids end with the tokens before it.

    Raises:
        InputError: a token outside the vocabulary.
    """

    OPTION: ClassVar[str] = "sequence_bias"
    bias: Mapping[tuple[int, ...], float]
    _made: dict[int, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        bias_V = self._singles(len(logits_V))
        for length, endings in self._by_length.items():
            for token, bias in endings.get(tuple(ids[len(ids) - length :]), ()) if length <= len(ids) else ():
                bias_V = bias_V.index_add(0, torch.tensor([token]), torch.tensor([bias]))
        return logits_V + bias_V

    def _singles(self, size: int) -> Tensor:
        """What holds everywhere, [V]."""
        if (found := self._made.get(size)) is None:
            _check_inside((token for tokens in self.bias for token in tokens), size, self.OPTION)
            found = torch.zeros(size)
            for tokens, bias in self.bias.items():
                if len(tokens) == 1:
                    found[tokens[0]] += bias
            self._made[size] = found
        return found

    @cached_property
    def _by_length(self) -> dict[int, dict[tuple[int, ...], list[tuple[int, float]]]]:
        """Length of what must stand before -> that -> (last token, bias) pairs."""
        found: dict[int, dict[tuple[int, ...], list[tuple[int, float]]]] = {}
        for tokens, bias in self.bias.items():
            if len(tokens) > 1:
                found.setdefault(len(tokens) - 1, {}).setdefault(tokens[:-1], []).append((tokens[-1], bias))
        return found


class BadWords(SequenceBias):
    """Sequences that are never completed."""

    OPTION = "bad_words_ids"

    def __init__(self, words: Sequence[Sequence[int]]) -> None:
        super().__init__({tuple(word): NEVER for word in words})


@dataclass(frozen=True)
class AllowedTokens(Following):
    """Only the tokens that a function allows behind these ids.

    Args:
        allowed: `(row, ids [N]) -> token ids`, the reference's `prefix_allowed_tokens_fn`.
        row: which prompt this is.
        rescue: where all allowed tokens are impossible already, they are all alike; not for beams, which then end.

    Raises:
        InputError: the function allows nothing, or returns no token ids.
    """

    allowed: Callable[[int, Tensor], Sequence[int]]
    row: int = 0
    rescue: bool = True

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        found = self.allowed(self.row, self._trail.follow(ids).clone())
        try:
            allowed = [operator.index(token) for token in (found.tolist() if isinstance(found, Tensor) else found)]
        except TypeError:
            what = f"prefix_allowed_tokens_fn returned {found!r:.60}"
            raise InputError(what, where="prefix_allowed_tokens_fn", next="return a list of token ids") from None
        if not allowed:
            what = f"prefix_allowed_tokens_fn allows nothing behind {len(ids)} ids of row {self.row}"
            raise InputError(what, where="prefix_allowed_tokens_fn", next="allow at least an end token")
        mask_V = only(logits_V, id_tensor(allowed))
        left_V = logits_V + mask_V
        return mask_V if self.rescue and bool((left_V == NEVER).all()) else left_V


@dataclass(frozen=True)
class RemoveInvalid(Pure):
    """NaN becomes 0, infinities the largest and smallest numbers."""

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return logits_V.nan_to_num(0.0)


@dataclass(frozen=True)
class Normalize(Pure):
    """Log-probabilities instead of logits."""

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return logits_V.log_softmax(0)


def _check_inside(tokens: Iterable[int], size: int, where: str) -> None:
    most = max(tokens, default=0)
    if most >= size:
        what = f"{where} names token {most}, outside the vocabulary of {size}"
        raise InputError(what, where=where, next="use the tokenizer of this model")
