"""Attention to what is near: within a distance on either side, in time and memory linear in the length.

Papers: arXiv 2004.05150 (Longformer), 2007.14062 (BigBird), 2112.07916 (LongT5).
"""

from __future__ import annotations

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
        allow_BT: False for keys that nobody sees where they stand.
        bias_HW: added to the scaled scores by distance, W = 2 radius + 1: first the key farthest to the left.
        side: keys and values [B, G, H, K] for every query, and what is added to their scores, [B, H or 1, T or 1, G].
        dropout: of the shares.
    """
    B, T = q_BTHK.shape[:2]
    size = T if 2 * radius >= T and not whole_blocks else max(radius, 1)  # of a block
    blocks = -(-T // size)
    around = size if blocks > 1 else 0  # what a block sees beyond itself, on each side
    reach, spare = size + 2 * around, blocks * size - T

    def windows(x: Tensor) -> Tensor:
        """[B, T, H, K] -> [B * blocks, H, reach, K]"""
        padded = F.pad(x, (0, 0, 0, 0, around, around + spare))
        return padded.unfold(1, reach, size).flatten(0, 1).transpose(2, 3)

    device = q_BTHK.device
    first = torch.arange(blocks, device=device)[:, None] * size
    # Queries behind the end stand in for the last one: they see something, and nobody reads what.
    asking = (first + torch.arange(size, device=device)).clamp_max(T - 1)
    asked = first + torch.arange(reach, device=device) - around
    apart = asked[:, None, :] - asking[:, :, None]  # [blocks, size, reach]
    inside = ((asked >= 0) & (asked < T))[:, None]
    seen = (inside if whole_blocks else inside & (apart.abs() <= radius)).expand_as(apart)[None, :, None]
    if allow_BT is not None:
        seen = seen & allow_BT[:, asked.clamp(0, T - 1)][:, :, None, None]
    score = torch.zeros(seen.shape, dtype=q_BTHK.dtype, device=device).masked_fill_(~seen, float("-inf"))
    if bias_HW is not None:
        score = score + bias_HW.to(score.dtype)[:, (apart + radius).clamp(0, 2 * radius)].transpose(0, 1)
    keys, values = windows(k_BTHK), windows(v_BTHK)
    if side is not None:
        k_BGHK, v_BGHK, bias = side
        keys, values = (
            torch.cat((x.transpose(1, 2).repeat_interleave(blocks, 0), near_x), dim=2)
            for x, near_x in ((k_BGHK, keys), (v_BGHK, values))
        )
        bias = bias.to(score.dtype).expand(B, -1, T, -1)
        bias = F.pad(bias, (0, 0, 0, spare)).unflatten(2, (blocks, size)).transpose(1, 2)
        heads = max(bias.shape[2], score.shape[2])
        whole = (B, blocks, heads, size, -1)
        score = torch.cat((bias.expand(whole), score.expand(whole)), dim=-1)
    out = F.scaled_dot_product_attention(
        F.pad(q_BTHK, (0, 0, 0, 0, 0, spare)).unflatten(1, (blocks, size)).flatten(0, 1).transpose(1, 2),
        keys,
        values,
        attn_mask=score.expand(B, *score.shape[1:]).flatten(0, 1),
        scale=scale,
        dropout_p=dropout,
    )
    return out.transpose(1, 2).unflatten(0, (B, blocks)).flatten(1, 2)[:, :T]
