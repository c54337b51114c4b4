"""Two streams that attend by the sum of their scores, each with its own values. arXiv 2202.13669, section 3.

The sum of two products is the product of two vectors put together: both streams are one attention whose heads are
[text | layout] wide.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.families.layoutlm.boxes import box_of
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import Places, Table, norm
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.spec import Custom, Stack
from pellucid.spec import Mlp as MlpSpec


class Streams(nn.Module):
    """The layers; the text's stream is what comes out."""

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        self.boxes = BoxVectors(stack.width, spec)
        self.layers = nn.ModuleList(Layer(stack.width, spec) for _ in range(spec["layers"]))

    def forward(self, x_ND: Tensor, batch: Batch, bias: nn.Module | None) -> Tensor:
        hidden = batch.hidden if batch.hidden is not None else []
        box_NE = self.boxes(batch)
        hidden.append(x_ND)
        for layer in self.layers:
            x_ND, box_NE = layer(x_ND, box_NE, batch)
            hidden.append(x_ND)
        return x_ND


class BoxVectors(nn.Module):
    """What the layout's stream begins with."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.rows, self.dropout, narrow = spec["rows"], spec["dropout"], width // spec["shrink"]
        self.x, self.y, self.h, self.w = (Table(self.rows, width // 6) for _ in range(4))
        self.project = Linear(width, narrow)
        self.positions = Places(narrow, spec["positions"])
        self.norm = norm(narrow, spec["norm"])

    def forward(self, batch: Batch) -> Tensor:
        left, top, right, bottom = box_of(batch, self.rows).unbind(-1)
        edges = [self.x(left), self.y(top), self.x(right), self.y(bottom), self.h(bottom - top), self.w(right - left)]
        box_NE = self.norm(self.project(torch.cat(edges, dim=-1)) + self.positions(batch))
        return F.dropout(box_NE, self.dropout, self.training)


class Layer(nn.Module):
    """Joint attention, then each stream by itself."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        mlp: MlpSpec = spec["mlp"]
        self.attn = Joint(width, spec)
        self.text = Side(width, mlp, spec)
        self.layout = Side(width // spec["shrink"], replace(mlp, hidden=mlp.hidden // spec["shrink"]), spec)

    def forward(self, x_ND: Tensor, box_NE: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        text_ND, layout_NE = self.attn.both(x_ND, box_NE, batch)
        return self.text(x_ND, text_ND, batch), self.layout(box_NE, layout_NE, batch)


class Side(nn.Module):
    """What one stream does with its share of the mixture: norms after the sums, and an MLP."""

    def __init__(self, width: int, mlp: MlpSpec, spec: Custom) -> None:
        super().__init__()
        self.dropout = spec["dropout"]
        self.attn_norm, self.mlp_norm = norm(width, spec["norm"]), norm(width, spec["norm"])
        self.mlp = Mlp(width, mlp)

    def forward(self, x_ND: Tensor, mixed_ND: Tensor, batch: Batch) -> Tensor:
        x_ND = self.attn_norm(x_ND + F.dropout(mixed_ND, self.dropout, self.training))
        after_ND: Tensor = self.mlp_norm(x_ND + F.dropout(self.mlp(x_ND, batch), self.dropout, self.training))
        return after_ND


class Joint(WholeAttention):
    """One pattern for both streams."""

    def __init__(self, width: int, spec: Custom) -> None:
        heads, K, shrink = spec["heads"], spec["head_dim"], spec["shrink"]
        super().__init__(width, heads, K, dropout=spec["attn_dropout"])
        self.scale, self.sizes = 1.0, [K, K // shrink]
        for name in ("layout_q", "layout_k", "layout_v", "layout_o"):
            self.add_module(name, Linear(width // shrink, width // shrink))

    def both(self, x_ND: Tensor, box_NE: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What each stream adds to itself, [N, D] and [N, E]."""
        q_NHK, k_NHK, v_NHK = (self.joined(name, x_ND, box_NE) for name in "qkv")
        parts = x_ND, self.tap("q", q_NHK), self.tap("k", k_NHK), self.tap("v", v_NHK)
        wholes = [Whole(group, *(batch.gather(part, group) for part in parts)) for group in batch.groups()]
        if self.listened("pattern"):
            mixed = self.through_pattern(wholes, batch, None)
        else:
            mixed = [self.plain(whole) for whole in wholes]
        text_NHK, layout_NHK = self.tap("mix", batch.scatter(mixed)).split(self.sizes, dim=-1)
        return self.tap("out", self.o(text_NHK.flatten(1))), self.get_submodule("layout_o")(layout_NHK.flatten(1))

    def joined(self, name: str, x_ND: Tensor, box_NE: Tensor) -> Tensor:
        """A projection of both streams by heads, [N, H, K text + K layout]; queries are scaled."""
        both = [self.get_submodule(name)(x_ND), self.get_submodule(f"layout_{name}")(box_NE)]
        pieces = [one.unflatten(-1, (self.heads, size)) for one, size in zip(both, self.sizes)]
        if name == "q":
            pieces = [piece * size**-0.5 for piece, size in zip(pieces, self.sizes)]
        return torch.cat(pieces, dim=-1)
