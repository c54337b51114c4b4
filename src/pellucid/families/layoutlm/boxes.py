"""Where a word is on its page: left, top, right, bottom, from 0 to a thousandth of the page's size below 1000."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.nn.parts import Table
from pellucid.spec import Custom


class Boxes(nn.Module):
    """Vectors for a box's edges, height and width, summed. arXiv 1912.13318, section 2.2."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.rows = spec["rows"]
        self.x, self.y, self.h, self.w = (Table(self.rows, width) for _ in range(4))

    def forward(self, batch: Batch) -> Tensor:
        left, top, right, bottom = box_of(batch, self.rows).unbind(-1)
        edges = self.x(left) + self.y(top) + self.x(right) + self.y(bottom)
        found: Tensor = edges + self.h(bottom - top) + self.w(right - left)
        return found


def box_of(batch: Batch, rows: int) -> Tensor:
    """The box of each token, [N, 4]; zeros where nobody says.

    Raises:
        InputError: no whole numbers below `rows`, or a box whose edges are in the wrong order.
    """
    box_N4 = batch.extra.get("bbox")
    if box_N4 is None:
        return batch.positions.new_zeros(len(batch.positions), 4)
    if box_N4.shape[1:] != (4,) or box_N4.is_floating_point():
        what = f"bbox is {list(box_N4.shape)} {box_N4.dtype} for the tokens"
        raise InputError(what, where="bbox", next="give four whole numbers for each token")
    if torch.compiler.is_compiling():  # a graph cannot look at numbers
        return box_N4
    ordered = (box_N4[:, 2:] >= box_N4[:, :2]).all()
    if not bool(ordered) or int(box_N4.min()) < 0 or int(box_N4.max()) >= rows:
        what = f"a box is not left, top, right, bottom from 0 to {rows - 1}"
        raise InputError(what, where="bbox", next="scale boxes to 0 … 1000")
    return box_N4
