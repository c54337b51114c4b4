"""Perceiver: a fixed number of latent vectors reads the bytes, thinks, and is read. arXiv 2103.03206, 2107.14795.

bytes ── read by ── latents ── self-attention, several rounds ── read by ── a query for each answer
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.bias import Bias
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import Table, norm
from pellucid.nn.stages import aligned, flatly
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import mix, pattern
from pellucid.spec import Custom, LayerNorm, Stack

NORM = LayerNorm(eps=1e-5)  # whatever the config says


class Reading(Tapped):
    """Queries [B, T, D] over a source [B, S, I]. Taps: `pattern` [B, H, T, S], `out` [B, T, D].

    Options: `heads`; `qk` and `v`, how wide queries and values are; `dropout`.
    """

    TAPS = ("pattern", "out")

    def __init__(self, width: int, source: int, spec: Custom) -> None:
        super().__init__()
        self.heads, self.dropout = spec["heads"], spec["dropout"]
        self.q = Linear(width, spec["qk"])
        self.k = Linear(source, spec["qk"])
        self.v = Linear(source, spec["v"])
        self.o = Linear(spec["v"], width)

    def forward(self, x_BTD: Tensor, y_BSI: Tensor) -> Tensor:
        q_BTHK, k_BSHK, v_BSHK = (
            part(of).unflatten(-1, (self.heads, -1)) for part, of in ((self.q, x_BTD), (self.k, y_BSI), (self.v, y_BSI))
        )
        share_BHTS = self.tap("pattern", pattern(q_BTHK, k_BSHK, scale=q_BTHK.shape[-1] ** -0.5).to(v_BSHK.dtype))
        mix_BTHK = mix(F.dropout(share_BHTS, self.dropout, self.training), v_BSHK)
        return self.tap("out", self.o(mix_BTHK.flatten(2)))


class Reader(nn.Module):
    """Vectors that read a source, or each other, and an MLP. Options: those of `Reading`; `mlp`; `residual`."""

    def __init__(self, width: int, source: int | None, spec: Custom) -> None:
        super().__init__()
        self.residual = spec["residual"]
        self.norm = norm(width, NORM)
        self.source_norm = norm(source, NORM) if source else None
        self.attn = Reading(width, source or width, spec) if source is None else None
        self.cross = Reading(width, source, spec) if source else None
        self.mlp_norm = norm(width, NORM)
        self.mlp = Mlp(width, spec["mlp"])

    def forward(self, x_BTD: Tensor, y_BSI: Tensor | None = None) -> Tensor:
        h_BTD = flatly(self.norm, x_BTD)
        if self.cross is not None and self.source_norm is not None and y_BSI is not None:
            read_BTD = self.cross(h_BTD, flatly(self.source_norm, y_BSI))
        else:
            assert self.attn is not None
            read_BTD = self.attn(h_BTD, h_BTD)
        x_BTD = x_BTD + read_BTD if self.residual else read_BTD
        return x_BTD + flatly(lambda x_ND: self.mlp(self.mlp_norm(x_ND)), x_BTD)


class Perceiver(nn.Module):
    """Options: `latents`, how many; `latent_width`; `read`, `think` and `answer`, options of their readers; `layers` of
    `think` and `rounds` through them; `queries`, one for each position, or a single one for the whole text.
    """

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        width, inner = spec["latent_width"], stack.embed.width or stack.width
        self.rounds, self.by_position = spec["rounds"], spec["queries"] > 1
        self.latents = nn.Parameter(torch.empty(spec["latents"], width))
        self.read = Reader(width, inner, spec["read"])
        self.think = nn.ModuleList(Reader(width, None, spec["think"]) for _ in range(spec["layers"]))
        self.queries = Table(spec["queries"], stack.width)
        self.answer = Reader(stack.width, width, spec["answer"])

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        """One answer for each token [N, D], or one for each sequence: `batch.pooled` [B, D]."""
        groups = batch.groups()
        place_N = batch.positions if self.by_position else torch.zeros_like(batch.positions)
        runs = [self.latent(batch.gather(x_ND, group)) for group in groups]
        if batch.hidden is not None:
            batch.hidden.extend(aligned(batch, states) for states in zip(*(states for _, states in runs)))
        pieces = [
            self.answer(self.queries(batch.gather(place_N, group)[:, : None if self.by_position else 1]), y_BLD)
            for group, (y_BLD, _) in zip(groups, runs)
        ]  # fmt: skip
        if self.by_position:
            return batch.scatter(pieces)
        batch.pooled = aligned(batch, pieces).squeeze(1)
        return batch.scatter(
            [piece.expand(-1, batch.lengths[group[0]], -1) for group, piece in zip(groups, pieces)]
        )  # fmt: skip

    def latent(self, x_BTD: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The latents [B, L, D] after all rounds, and between the layers."""
        y_BLD = self.read(self.latents.expand(len(x_BTD), -1, -1), x_BTD)
        states = []
        for _ in range(self.rounds):
            for layer in self.think:
                states.append(y_BLD)
                y_BLD = layer(y_BLD)
            states.append(y_BLD)
        return y_BLD, states
