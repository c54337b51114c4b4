"""Scores by relative distance, as in Transformer-XL, with segments. arXiv 1901.02860, section 3.3; 1906.08237, 2.5.

    score[t, s] = (q_t + u) k_s + (q_t + v) r_(t - s) + (q_t + w) e_(in one segment or not)

u, v and w are trained and the same for every query; r is a projection of the sinusoids of the distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.nn.linear import Linear
from pellucid.ops.elementwise import upcast


@dataclass
class Places:
    """How T queries and S keys stand to each other.

    Args:
        distance: [T, S] int64, the query's position minus the key's.
        kind: [B, T, S] int64, which of the two segment vectors; None where segments were not given.
        near: [T, S], False where neither distance nor segment counts; None for True everywhere.
    """

    distance: Tensor
    kind: Tensor | None = None
    near: Tensor | None = None


class RelativeScores(nn.Module):
    """Queries and keys to scores, before they are scaled."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.width = width
        self.r = Linear(width, heads * head_dim, bias=False)
        self.content = nn.Parameter(torch.empty(heads, head_dim))  # u
        self.place = nn.Parameter(torch.empty(heads, head_dim))  # v
        self.segment = nn.Parameter(torch.empty(heads, head_dim))  # w
        self.segments = nn.Parameter(torch.empty(2, heads, head_dim))  # e

    def forward(self, q_BTHK: Tensor, k_BSHK: Tensor, places: Places) -> Tensor:
        """[B, H, T, S], float32 at least."""
        relative_BHTS = self.by_distance(q_BTHK, places.distance)
        if places.kind is not None:
            relative_BHTS = relative_BHTS + self.by_segment(q_BTHK, places.kind)
        if places.near is not None:
            relative_BHTS = relative_BHTS * places.near
        return torch.einsum("bthk,bshk->bhts", upcast(q_BTHK + self.content), upcast(k_BSHK)) + relative_BHTS

    def by_distance(self, q_BTHK: Tensor, distance_TS: Tensor) -> Tensor:
        """Each distance that occurs is projected once."""
        low, high = int(distance_TS.min()), int(distance_TS.max())
        away_R = torch.arange(low, high + 1, device=q_BTHK.device)
        r_RHK = self.r(waves(away_R, self.width, q_BTHK.dtype)).unflatten(-1, self.place.shape)
        score_BHTR = torch.einsum("bthk,rhk->bhtr", upcast(q_BTHK + self.place), upcast(r_RHK))
        return score_BHTR.gather(-1, (distance_TS - low).expand(*score_BHTR.shape[:2], -1, -1))

    def by_segment(self, q_BTHK: Tensor, kind_BTS: Tensor) -> Tensor:
        score_BHTE = torch.einsum("bthk,ehk->bhte", upcast(q_BTHK + self.segment), upcast(self.segments))
        return score_BHTE.gather(-1, kind_BTS[:, None].expand(-1, score_BHTE.shape[1], -1, -1))


def waves(distance_R: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """[R, width]: all sines, then all cosines, of frequencies 10000^(-2i / width)."""
    wide = torch.promote_types(dtype, torch.float32)
    rate_P = 10000.0 ** (-torch.arange(0, width, 2, device=distance_R.device).to(wide) / width)
    angle_RP = distance_R.to(wide)[:, None] * rate_P
    return torch.cat((angle_RP.sin(), angle_RP.cos()), dim=-1).to(dtype)
