"""Where a token stands in the tree of a page: the tags on the way to it, and their numbers among their like.

arXiv 2110.08518.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.spec import Custom


class Paths(nn.Module):
    """Options: `depth`, steps of a path; `tags` and `subscripts`, how many there are; `unit`, the width of a step;
    `pads`, the tag and the subscript of a step that is not there; `dropout`.
    """

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.spec = spec
        depth, unit = spec["depth"], spec["unit"]
        self.tags = nn.Parameter(torch.empty(depth, spec["tags"], unit))
        self.subscripts = nn.Parameter(torch.empty(depth, spec["subscripts"], unit))
        self.up = Linear(depth * unit, 4 * width)
        self.down = Linear(4 * width, width)

    def forward(self, batch: Batch) -> Tensor:
        pads = self.spec["pads"]
        tags_NL = self.steps("xpath_tags_seq", pads[0], batch)
        subscripts_NL = self.steps("xpath_subs_seq", pads[1], batch)
        level_L = torch.arange(self.spec["depth"], device=tags_NL.device)
        path_NI = (self.tags[level_L, tags_NL] + self.subscripts[level_L, subscripts_NL]).flatten(1)
        return self.down(F.dropout(F.relu(self.up(path_NI)), self.spec["dropout"], self.training))

    def steps(self, name: str, pad: int, batch: Batch) -> Tensor:
        """[N, L], L steps for each token."""
        given = batch.extra.get(name)
        return batch.positions.new_full((len(batch.positions), self.spec["depth"]), pad) if given is None else given
