"""XLNet's attention: Transformer-XL's scores, and one vector for pairs of one segment, another for the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.relative import Places, RelativeScores
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.spec import Custom


class XlnetAttention(WholeAttention):
    """Options: `heads`, `head_dim`, `dropout`; `clamp`, the farthest distance that is told apart, or None; `backward`,
    a token does not see what follows.

    Without `token_type_ids` segments are not scored at all.
    """

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["heads"], spec["head_dim"], biases="", dropout=spec["dropout"])
        self.clamp, self.backward = spec["clamp"], spec["backward"]
        self.relative = RelativeScores(width, spec["heads"], spec["head_dim"])

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        T = whole.x_BTD.shape[1]
        types_N = batch.extra.get("token_type_ids")
        distance_TT = batch.once((T, self.clamp), lambda: self.distances(T, whole.x_BTD.device))
        types_BT = None if types_N is None else batch.gather(types_N, whole.members)
        kind_BTT = None if types_BT is None else (types_BT[:, :, None] != types_BT[:, None]).long()
        score_BHTT = self.relative(whole.q_BTHK, whole.k_BTHK, Places(distance_TT, kind_BTT)) * self.scale
        if self.backward:
            score_BHTT = score_BHTT.masked_fill(distance_TT < 0, float("-inf"))
        return score_BHTT.softmax(-1)

    def distances(self, T: int, device: torch.device) -> Tensor:
        place_T = torch.arange(T, device=device)
        distance_TT = place_T[:, None] - place_T
        return distance_TT if self.clamp is None else distance_TT.clamp(-self.clamp, self.clamp)
