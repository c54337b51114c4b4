"""What is added to the scores for the distance of a query and a key."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.nn.custom import custom
from pellucid.ops.attention import relative_buckets
from pellucid.spec import Alibi, Custom, RelativeBias, ScoreBias


class DistanceBias(nn.Module):
    """A trained score for each head and bucket of distances."""

    def __init__(self, heads: int, spec: RelativeBias) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.buckets, heads))

    def forward(self, T: int, S: int) -> Tensor:
        """[H, T, S] for the last T of S positions."""
        s = self.spec
        bucket_TS = relative_buckets(
            T, S, buckets=s.buckets, max_distance=s.max_distance, bidirectional=s.bidirectional,
            device=self.weight.device,
        )  # fmt: skip
        return F.embedding(bucket_TS, self.weight).permute(2, 0, 1)


class AlibiBias(nn.Module):
    """Slope times the key's position; the query's would add the same to all of its scores. arXiv 2108.12409.

    Slopes are powers of 2^(-bias_max / n) for the power of two n below the heads; the rest take every other one of 2n.
    """

    def __init__(self, heads: int, spec: Alibi) -> None:
        super().__init__()
        self.heads, self.spec = heads, spec
        self._slopes: dict[torch.device, Tensor] = {}

    def slopes_on(self, device: torch.device) -> Tensor:
        """The slopes on a device, made there once: a captured step must find them."""
        if device not in self._slopes:
            self._slopes[device] = self.slopes().to(device)
        return self._slopes[device]

    def slopes(self) -> Tensor:
        """What one position counts for, in each head."""
        return self.unscaled() * self.spec.scale

    def unscaled(self) -> Tensor:
        n = 2 ** math.floor(math.log2(self.heads))
        power = [-self.spec.bias_max / n * (i + 1) for i in range(n)]
        power += [-self.spec.bias_max / (2 * n) * (2 * i + 1) for i in range(self.heads - n)]
        return torch.tensor([2.0**p for p in power])

    def forward(self, T: int, S: int) -> Tensor:
        """[H, T, S], a view of [H, 1, S]."""
        slope_H11 = self.unscaled()[:, None, None]
        if self.spec.rounded:
            bias_H1S = (slope_H11.bfloat16() * torch.arange(S).bfloat16()).float()
        else:
            bias_H1S = slope_H11 * torch.arange(1 - S, 1)
        return (bias_H1S * self.spec.scale).expand(-1, T, -1)


Bias = nn.Module


def of_rows(bias: Bias, lengths: Sequence[int], ends: Sequence[int]) -> list[Tensor]:
    """The bias [H, T, S] of several rows; where it only depends on distances or keys, all are parts of one."""
    if isinstance(bias, DistanceBias):
        most_HTS = bias(max(lengths), max(ends)).float()
        return [most_HTS[:, most_HTS.shape[1] - T :, most_HTS.shape[2] - S :] for T, S in zip(lengths, ends)]
    if isinstance(bias, AlibiBias) and bias.spec.rounded:
        most_HTS = bias(max(lengths), max(ends)).float()
        return [most_HTS[:, :T, :S] for T, S in zip(lengths, ends)]
    return [bias(T, S).float() for T, S in zip(lengths, ends)]


def score_bias(heads: int, spec: ScoreBias) -> Bias:
    """The module of a bias; called with T and S it gives [H, T, S]."""
    match spec:
        case RelativeBias():
            return DistanceBias(heads, spec)
        case Alibi():
            return AlibiBias(heads, spec)
        case Custom():
            return custom(spec)(heads, spec)
