"""Gemma 4's block: an input of the layer's own behind the feed-forward part, and experts beside the dense part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.nn.attention import Attention
from pellucid.nn.bias import Bias
from pellucid.nn.block import Block
from pellucid.nn.linear import Linear
from pellucid.nn.moe import Moe
from pellucid.nn.parts import Table, norm
from pellucid.ops.elementwise import activate
from pellucid.ops.moe import route
from pellucid.spec import Activation, Custom, Norm
from pellucid.spec import Moe as MoeSpec


class LayeredBlock(Block):
    """A block with a side input, experts, or both. The first one also holds the tables of all layers' side inputs."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["block"], layer)
        self.layer = layer
        own = self.spec.order.norm
        if isinstance(self.attn, Attention):
            self.attn.lends = spec["lends"]
        first = spec["side"] and layer == 0
        self.inputs = SideInputs(width, spec["side"], spec["layers"], spec["rows"], own) if first else None
        self.side = Side(width, spec["side"], spec["act"], own) if spec["side"] else None
        self.moe = Experts(width, spec["moe"], own, spec["bare"]) if spec["moe"] else None
        self.dense_norm = norm(width, own) if spec["moe"] else None

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        x_ND = self.tap("resid_pre", x_ND)
        if self.inputs is not None:
            inputs, embedded_ND = self.inputs, x_ND
            batch.once("side inputs", lambda: inputs(embedded_ND, batch))
        attn, mlp = self.get_submodule("attn"), self.get_submodule("mlp")
        x_ND = self.around("attn", x_ND, lambda h_ND: attn(h_ND, batch, bias))
        mid_ND = self.tap("resid_mid", x_ND)
        x_ND = self.around("mlp", mid_ND, lambda h_ND: self.both(mlp(h_ND, batch), mid_ND, batch))
        if self.side is not None:
            side_NLP: Tensor = batch.once("side inputs", lambda: x_ND)
            x_ND = x_ND + self.side(x_ND, side_NLP[:, self.layer])
        if self.scalar is not None:
            x_ND = x_ND * self.scalar
        return self.tap("resid_post", x_ND)

    def both(self, dense_ND: Tensor, mid_ND: Tensor, batch: Batch) -> Tensor:
        """The dense part and the experts, each behind its norm."""
        if self.moe is None or self.dense_norm is None:
            return dense_ND
        return self.dense_norm(dense_ND) + self.moe(mid_ND, batch)


class SideInputs(nn.Module):
    """A small vector for each token and layer: looked up by id, and projected from the token's own vector."""

    def __init__(self, width: int, side: int, layers: int, rows: int, spec: Norm) -> None:
        super().__init__()
        self.side = side
        self.tokens = Table(rows, layers * side)
        self.project = Linear(width, layers * side, bias=False)
        self.norm = norm(side, spec)

    def forward(self, x_ND: Tensor, batch: Batch) -> Tensor:
        if batch.ids is None:
            what = "this model looks every token up in a second table too, and got vectors in place of ids"
            raise InputError(what, where="inputs_embeds", next="give input_ids")
        by_id_NP = self.tokens(batch.ids) * torch.tensor(self.side**0.5, dtype=x_ND.dtype, device=x_ND.device)
        projected_NLP = (self.project(x_ND) * x_ND.shape[-1] ** -0.5).unflatten(-1, (-1, self.side))
        return (self.norm(projected_NLP) + by_id_NP.unflatten(-1, (-1, self.side))) * 2**-0.5


class Side(nn.Module):
    """norm((act(x gate) * side) up), joined to the residual."""

    def __init__(self, width: int, side: int, act: Activation, spec: Norm) -> None:
        super().__init__()
        self.act = act
        self.gate = Linear(width, side, bias=False)
        self.up = Linear(side, width, bias=False)
        self.norm = norm(width, spec)

    def forward(self, x_ND: Tensor, side_NP: Tensor) -> Tensor:
        return self.norm(self.up(activate(self.gate(x_ND), self.act) * side_NP))


class Experts(Moe):
    """Experts whose router has a norm and a scale of its own, and a scale for each expert; norms on both sides."""

    def __init__(self, width: int, spec: MoeSpec, own: Norm, bare: Norm) -> None:
        super().__init__(width, spec)
        self.bare = norm(width, bare)
        self.scale = nn.Parameter(torch.empty(width))
        self.expert_scale = nn.Parameter(torch.empty(spec.experts))
        self.norm_in = norm(width, own)
        self.norm_out = norm(width, own)

    def forward(self, x_ND: Tensor, batch: Batch) -> Tensor:
        logits_NE = self.tap("scores", self.router(self.bare(x_ND) * self.scale * x_ND.shape[-1] ** -0.5))
        if batch.router is not None:
            batch.router.append(logits_NE)
        experts_NA, weights_NA = route(logits_NE, self.spec.router)
        weights_NA = weights_NA * self.expert_scale[experts_NA]
        out_ND = self.routed(self.norm_in(x_ND), self.tap("experts", experts_NA), self.tap("weights", weights_NA))
        return self.tap("out", self.norm_out(out_ND.to(x_ND.dtype)))
