"""NeoMME's layers: every one starts from a mixture of the stream and of what went in, its attention keeps from a token
what that token says itself, and the first and the last without a window add a vector of the token to its values.

Weights: huggingface.co/Hcompany/NeoMME-260M.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.nn.bias import Bias
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import Table, norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import mix, pattern, visible
from pellucid.ops.elementwise import upcast
from pellucid.ops.rope import rotate, rotation
from pellucid.spec import Attention, Custom, Stack


class ExclusiveAttention(Tapped):
    """Grouped-query attention without the part of a mixture that the token says itself.

    Taps: `pattern` [B, H, T, T], `out` [N, D]. `unit` norms queries and keys.
    """

    TAPS = ("pattern", "out")

    def __init__(self, width: int, spec: Attention, unit: nn.Module) -> None:
        super().__init__()
        self.spec, self.unit = spec, unit
        self.q = Linear(width, spec.heads * spec.head_dim, bias="q" in spec.biases)
        self.k = Linear(width, spec.kv_heads * spec.head_dim, bias="k" in spec.biases)
        self.v = Linear(width, spec.kv_heads * spec.head_dim, bias="v" in spec.biases)
        self.o = Linear(spec.heads * spec.head_dim, width, bias="o" in spec.biases)
        self.gate = Linear(width, spec.heads * spec.head_dim, bias=False)
        self.alpha = nn.Parameter(torch.empty(spec.heads))

    def forward(self, x_ND: Tensor, batch: Batch, own_NF: Tensor | None) -> Tensor:
        """`own_NF` is added to the values."""
        q_NHK, k_NJK = (self.turned(part(x_ND), batch) for part in (self.q, self.k))
        v_NF = self.v(x_ND)
        v_NJK = (v_NF if own_NF is None else v_NF + own_NF).unflatten(-1, (self.spec.kv_heads, -1))
        mixed = []
        for group in batch.groups():
            q_BTHK, k_BTJK, v_BTJK = (batch.gather(part, group) for part in (q_NHK, k_NJK, v_NJK))
            mixed.append(self.mixture(q_BTHK, k_BTJK, v_BTJK, batch))
        mix_NHK = batch.scatter(mixed)
        said_NHK = F.normalize(upcast(v_NJK), dim=-1).to(x_ND.dtype)
        said_NHK = said_NHK.repeat_interleave(self.spec.heads // self.spec.kv_heads, 1)
        along_NH1 = (mix_NHK * said_NHK).sum(-1, keepdim=True)
        mix_NHK = mix_NHK - torch.tanh(self.alpha)[:, None] * along_NH1 * said_NHK
        return self.tap("out", self.o(mix_NHK.flatten(1) * torch.sigmoid(self.gate(x_ND))))

    def turned(self, x_NF: Tensor, batch: Batch) -> Tensor:
        rope, dtype = self.spec.rope, x_NF.dtype
        assert rope is not None
        turn = batch.once((rope, dtype), lambda: rotation(rope, batch.positions, batch.lengths, batch.ends, dtype))
        return rotate(self.unit(x_NF.unflatten(-1, (-1, self.spec.head_dim))), turn)

    def mixture(self, q_BTHK: Tensor, k_BTJK: Tensor, v_BTJK: Tensor, batch: Batch) -> Tensor:
        T, window = q_BTHK.shape[1], self.spec.window
        allow_TT = batch.once(
            (T, window), lambda: visible(T, T, end=T, device=q_BTHK.device, causal=False, window=window)
        )  # fmt: skip
        share = pattern(q_BTHK, k_BTJK, scale=self.spec.scale, allow_TS=allow_TT).to(v_BTJK.dtype)
        share = self.tap("pattern", share)
        return mix(F.dropout(share, self.spec.dropout, self.training), v_BTJK)


class NeoLayer(Tapped):
    """Tap: `resid_post` [N, D]."""

    TAPS = ("resid_post",)

    def __init__(self, width: int, spec: Custom, attention: Attention) -> None:
        super().__init__()
        self.scale = spec["residual_scale"]
        self.shares = nn.Parameter(torch.empty(2))  # of the stream, and of what went in
        self.unit = norm(width, spec["norm"])
        self.attn = ExclusiveAttention(width, attention, self.unit)
        self.mlp = Mlp(width, spec["mlp"])

    def forward(self, x_ND: Tensor, first_ND: Tensor, batch: Batch, own_NF: Tensor | None) -> Tensor:
        h_ND = self.unit(self.shares[0] * x_ND + self.shares[1] * first_ND)
        x_ND = x_ND + self.scale * self.attn(h_ND, batch, own_NF)
        return self.tap("resid_post", x_ND + self.scale * self.mlp(self.unit(x_ND)))


class NeoBody(nn.Module):
    """Options: `width` of the stream; `attentions` of the layers; `mlp`; `norm`, which has no weights;
    `residual_scale`; `vocab`; `unprojects`, the matrix that makes what comes out as narrow as the token table again:
    the "same" that tokens go in by, its "own", or None.
    """

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        self.spec, width, rank = spec, spec["width"], stack.embed.width or stack.width
        attentions = spec["attentions"]
        self.project = Linear(rank, width, bias=False)
        self.unproject = Linear(width, rank, bias=False) if spec["unprojects"] == "own" else None
        self.unit = norm(width, spec["norm"])
        self.values = Table(spec["vocab"], attentions[0].kv_heads * attentions[0].head_dim)
        self.layers = nn.ModuleList(NeoLayer(width, spec, one) for one in attentions)
        wide = [i for i, one in enumerate(attentions) if one.window is None]
        self.ends = {wide[0], wide[-1]}

    def forward(self, x_NR: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        if batch.ids is None:
            raise InputError("inputs_embeds given", where="inputs_embeds", next="give input_ids: values need them")
        x_ND = first_ND = self.unit(self.project(x_NR))
        own_NF = self.values(batch.ids)
        for i, layer in enumerate(self.layers):
            if batch.hidden is not None:
                batch.hidden.append(x_ND)
            x_ND = layer(x_ND, first_ND, batch, own_NF if i in self.ends else None)
        x_ND = self.unit(x_ND)
        if batch.hidden is not None:
            batch.hidden.append(x_ND)
        if self.unproject is not None:
            return self.unproject(x_ND)
        return x_ND @ self.project.weight if self.spec["unprojects"] == "same" else x_ND
