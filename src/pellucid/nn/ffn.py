"""What works on each token by itself: one MLP, a mixture of experts, or a family's own module."""

from __future__ import annotations

from torch import nn

from pellucid.nn.custom import custom
from pellucid.nn.mlp import Mlp
from pellucid.nn.moe import Moe
from pellucid.spec import Custom, Ffn
from pellucid.spec import Mlp as MlpSpec
from pellucid.spec import Moe as MoeSpec


def feed_forward(width: int, spec: Ffn) -> nn.Module:
    """The module of a block's feed-forward part; `forward(x_ND, batch)`."""
    match spec:
        case MlpSpec():
            return Mlp(width, spec)
        case MoeSpec():
            return Moe(width, spec)
        case Custom():
            module: nn.Module = custom(spec)(width, spec)
            return module
