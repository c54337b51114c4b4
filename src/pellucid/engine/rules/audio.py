"""Rules of models that hear and speak: Whisper's times, Bark's codebooks, Dia's channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.engine.rules.rule import NEVER, Pure, id_tensor, inside
from pellucid.engine.rules.warpers import chosen


@dataclass(frozen=True)
class Timestamps(Pure):
    """Whisper: times come in pairs, never go back, and are chosen where together they beat every word.

    Args:
        first: the first time; all ids from it on are times, and the one before it says that there are none.
        eos: the end; ids below it are words.
        place: ids before the first one that is generated, which is a time.
        latest: how many times behind `first` that one may be; None for any.
        by_share: whether the probability of all times together counts.

    Source: arXiv 2212.04356, section 2.3; the rules are those of the code that came with it.
    """

    first: int
    eos: int
    place: int
    latest: int | None = None
    by_share: bool = True

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        found_V = logits_V.masked_fill(self._never(ids, len(logits_V)), NEVER)
        if self.by_share:
            logp_V = found_V.log_softmax(0)
            if logp_V[self.first :].logsumexp(0) > logp_V[: self.first].max():
                found_V[: self.first] = NEVER
        return found_V

    def _never(self, ids: Sequence[int], size: int) -> Tensor:
        """Which of `size` tokens are impossible, bool."""
        first, new = self.first, ids[self.place :]
        timed = len(new) > 0 and new[-1] >= first
        paired = timed and (len(new) < 2 or new[-2] >= first)  # words follow
        alone = timed and not paired  # the second time of a pair follows, or the end
        last = next((token for token in reversed(new) if token >= first), first - 1)
        never_V = torch.zeros(size, dtype=torch.bool)
        never_V[first - 1 : last if alone else last + 1] = True
        if paired:
            never_V[first:] = True
        if alone:
            never_V[: self.eos] = True
        if len(ids) == self.place:
            never_V[:first] = True
            if self.latest is not None:
                never_V[first + self.latest + 1 :] = True
        return never_V


@dataclass(frozen=True)
class Silence(Pure):
    """Whisper: notes in `found` how likely it is behind `place` ids that nobody speaks; changes nothing.

    Stands before all other rules. Where more than the start token was given to the decoder, its logits are not those
    of this place: they stand behind the start token, and have to be read there.
    """

    token: int
    place: int
    found: list[float] = field(default_factory=list, compare=False)

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        if len(ids) == self.place:
            self.found[:] = [float(logits_V.softmax(0)[self.token])]
        return logits_V


@dataclass(frozen=True)
class LikelyEos(Pure):
    """Bark: an end, where one is likelier than `least`; 0 and None for no such haste."""

    eos: tuple[int, ...]
    least: float | None

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        end_K = inside(id_tensor(self.eos), logits_V)
        if not self.least or not bool((logits_V.softmax(0)[end_K] > self.least).any()):
            return logits_V
        return chosen(logits_V, end_K)


@dataclass(frozen=True)
class Alternating(Pure):
    """Bark: the first codebook and the second by turns, from behind `place` ids on.

    Args:
        start: where the first codebook begins in the vocabulary; the second one follows it.
        size: of the first codebook.
    """

    place: int
    start: int
    size: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        second = (len(ids) - self.place) % 2
        begin = self.start + second * self.size
        end = len(logits_V) if second else begin + self.size
        return chosen(logits_V, torch.arange(begin, min(end, len(logits_V))))


def guided_choice(with_NV: Tensor, without_NV: Tensor, scale: float, k: int | None) -> Tensor:
    """Dia's guidance: from the logits with the prompt away from those without it.

    Args:
        k: the k best of them are kept, with the logits of the prompt; None for all, with their own.
    """
    guided_NV = with_NV + scale * (with_NV - without_NV)
    if k is None:
        return guided_NV
    best_NK = guided_NV.topk(k, -1).indices
    return torch.full_like(with_NV, NEVER).scatter(-1, best_NK, with_NV.gather(-1, best_NK))


def first_channel_ends(logits_BCV: Tensor, eos: int) -> Tensor:
    """Dia: only the first channel may end, does so where the end is its best token, and else does not.

    Ids behind the end are pads and the like, which no channel writes.
    """
    kept_BCV = logits_BCV.clone()
    kept_BCV[:, :, eos + 1 :] = NEVER
    kept_BCV[:, 1:, eos] = NEVER
    ends_BC = kept_BCV.argmax(-1) == eos
    kept_BCV[..., :eos] = kept_BCV[..., :eos].masked_fill(ends_BC[..., None], NEVER)
    kept_BCV[..., eos] = kept_BCV[..., eos].masked_fill(~ends_BC, NEVER)
    return kept_BCV


def ended(logits_BCV: Tensor, eos: int, ends_BC: Tensor) -> Tensor:
    """Channels that end are certain to."""
    end_V = torch.full_like(logits_BCV[0, 0], NEVER)
    end_V[eos] = 0.0
    return torch.where(ends_BC[..., None], end_V, logits_BCV)
