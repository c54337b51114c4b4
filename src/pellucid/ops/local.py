"""Attention to what is near: within a distance on either side, in time and memory linear in the length.

Papers: arXiv 2004.05150 (Longformer), 2007.14062 (BigBird), 2112.07916 (LongT5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def near(T: int, radius: int, device: torch.device) -> Tensor:
    """Bool [T, T], True where two tokens are at most `radius` apart: what `attend_near` computes, written out."""
    place_T = torch.arange(T, device=device)
    return (place_T[:, None] - place_T).abs() <= radius


def attend_near(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    *,
    radius: int,
    scale: float,
    whole_blocks: bool = False,
    allow_BT: Tensor | None = None,
    bias_HW: Tensor | None = None,
    side: tuple[Tensor, Tensor, Tensor] | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Each query's mixture of the values at most `radius` away, and of some that all can see; [B, T, H, K].

    The text is cut into blocks of `radius` tokens; a block's queries meet the keys of three blocks.

    Args:
        whole_blocks: a query sees all of the three blocks, however far (BigBird).
        allow_BT: False for keys that nobody sees where they stand; of one text for all, or of each.
        bias_HW: added to the scaled scores by distance, W = 2 radius + 1: first the key farthest to the left.
        side: keys and values [B, G, H, K] for every query, and what is added to their scores, [B, H or 1, T or 1, G].
        dropout: of the shares.
    """
    B, T = q_BTHK.shape[:2]
    size = T if 2 * radius >= T and not whole_blocks else max(radius, 1)
    blocks = -(-T // size)
    cut = Cut(T, size, blocks, around=size if blocks > 1 else 0)
    apart, inside = cut.distances(q_BTHK.device)
    seen = (inside if whole_blocks else inside & (apart.abs() <= radius)).expand_as(apart)[None, :, None]
    if allow_BT is not None:
        seen = seen & cut.windows(allow_BT).unflatten(0, (-1, blocks))[:, :, None, None]
    added = torch.zeros(seen.shape, dtype=q_BTHK.dtype, device=q_BTHK.device).masked_fill_(~seen, float("-inf"))
    if bias_HW is not None:
        added = added + bias_HW.to(added.dtype)[:, (apart + radius).clamp(0, 2 * radius)].transpose(0, 1)
    keys, values = cut.windows(k_BTHK), cut.windows(v_BTHK)
    if side is not None:
        keys, values, added = cut.beside(side, keys, values, added)
    out = F.scaled_dot_product_attention(
        cut.queries(q_BTHK).transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=added.expand(B, *added.shape[1:]).flatten(0, 1),
        scale=scale,
        dropout_p=dropout,
    )
    return out.transpose(1, 2).unflatten(0, (B, blocks)).flatten(1, 2)[:, :T]


@dataclass(frozen=True)
class Cut:
    """A text of T tokens in blocks of `size`, each of which sees `around` tokens more on each side."""

    T: int
    size: int
    blocks: int
    around: int

    @property
    def spare(self) -> int:
        return self.blocks * self.size - self.T

    def queries(self, x: Tensor) -> Tensor:
        """[B, T, ...] -> [B * blocks, size, ...]"""
        return _padded(x, 0, self.spare).unflatten(1, (self.blocks, self.size)).flatten(0, 1)

    def windows(self, x: Tensor) -> Tensor:
        """[B, T, ...] -> [B * blocks, size + 2 around, ...]"""
        wide = _padded(x, self.around, self.around + self.spare).unfold(1, self.size + 2 * self.around, self.size)
        return wide.flatten(0, 1).movedim(-1, 1)

    def distances(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Key minus query, [blocks, size, size + 2 around], and whether there is such a key."""
        first = torch.arange(self.blocks, device=device)[:, None] * self.size
        # Queries behind the end stand in for the last one: they see something, and nobody reads what.
        query = (first + torch.arange(self.size, device=device)).clamp_max(self.T - 1)
        key = first + torch.arange(-self.around, self.size + self.around, device=device)
        return key[:, None] - query[:, :, None], ((key >= 0) & (key < self.T))[:, None]

    def beside(
        self, side: tuple[Tensor, Tensor, Tensor], keys: Tensor, values: Tensor, added: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What every query sees, before what its block sees."""
        k_BGHK, v_BGHK, bias = side
        B, blocks = k_BGHK.shape[0], self.blocks
        bias = self.queries(bias.to(added.dtype).expand(B, -1, self.T, -1).transpose(1, 2)).unflatten(0, (B, blocks))
        bias = bias.transpose(2, 3)
        whole = (B, blocks, max(bias.shape[2], added.shape[2]), self.size, -1)
        return (
            torch.cat((k_BGHK.repeat_interleave(blocks, 0), keys), dim=1),
            torch.cat((v_BGHK.repeat_interleave(blocks, 0), values), dim=1),
            torch.cat((bias.expand(whole), added.expand(whole)), dim=-1),
        )


def _padded(x: Tensor, left: int, right: int) -> Tensor:
    """Zeros before and behind the second dimension."""
    return F.pad(x, (0, 0) * (x.dim() - 2) + (left, right))
