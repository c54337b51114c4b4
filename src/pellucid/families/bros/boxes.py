"""Scores for how two words lie to each other on the page. arXiv 2108.04539, section 3.1.

score[t, s] = q_t · (k_s + W waves(box_s - box_t))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.nn.linear import Linear
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.ops.elementwise import upcast
from pellucid.spec import Custom

CORNERS = [0, 1, 2, 1, 2, 3, 0, 3]  # x and y of the four corners of left, top, right, bottom


class Boxes(nn.Module):
    """A vector for each two words, from the differences of their corners; shared by all layers."""

    def __init__(self, heads: int, spec: Custom) -> None:
        super().__init__()
        self.waves, self.scale = spec["waves"] // 8, spec["scale"]
        self.project = Linear(spec["waves"], spec["head_dim"], bias=False)

    def forward(self, whole: Whole, batch: Batch) -> Tensor:
        """[B, T, T, K]"""
        box_BT8 = batch.gather(corners(batch), whole.members).to(whole.q_BTHK.dtype) * self.scale
        away_BTT8 = upcast(box_BT8)[:, None] - upcast(box_BT8)[:, :, None]
        rate_P = 10000.0 ** -(torch.arange(0, self.waves, 2, device=away_BTT8.device).to(away_BTT8) / self.waves)
        angle_BTT8P = away_BTT8[..., None] * rate_P
        wave = torch.cat((angle_BTT8P.sin(), angle_BTT8P.cos()), dim=-1).flatten(-2)
        found: Tensor = self.project(wave.to(whole.q_BTHK.dtype))
        return found


def corners(batch: Batch) -> Tensor:
    """The corners of each token's box, [N, 8].

    Raises:
        InputError: no boxes, or neither 4 nor 8 numbers for each token.
    """
    box_N = batch.extra.get("bbox")
    if box_N is None or box_N.dim() != 2 or box_N.shape[1] not in (4, 8):
        what = "no boxes" if box_N is None else f"bbox has {list(box_N.shape[1:])} numbers for a token"
        raise InputError(what, where="bbox", next="give left, top, right, bottom of each token, or four corners")
    return box_N if box_N.shape[1] == 8 else box_N[:, CORNERS]


class BoxAttention(WholeAttention):
    """Options: `heads`, `head_dim`, `dropout`."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["heads"], spec["head_dim"], dropout=spec["dropout"])

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        assert bias is not None
        pair_BTSK = batch.once(("boxes", tuple(whole.members)), lambda: bias(whole, batch))
        q_BTHK = upcast(whole.q_BTHK)
        score_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, upcast(whole.k_BTHK))
        score_BHTS = score_BHTS + torch.einsum("bthk,btsk->bhts", q_BTHK, upcast(pair_BTSK))
        return (score_BHTS * self.scale).softmax(-1)
