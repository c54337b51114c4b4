"""A layer with an adapter for each language behind its MLP. arXiv 2205.06266, section 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.nn.apart import apart, compiling
from pellucid.nn.attention import Attention
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.spec import Custom
from pellucid.spec import Mlp as MlpSpec


class Adapted(Tapped):
    """Options: `attn`, `mlp`, `norm`, `pre` (norms before the parts); `languages`, `hidden` (of an adapter), `usual`
    (the language where nobody says); `normed` (what norms an adapter's input: "own", "layer" or None), `before` (the
    sum around the adapter begins behind that norm); `dropout`.
    """

    TAPS = ("resid_pre", "resid_mid", "resid_post")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        self.spec, mlp = spec, spec["mlp"]
        self.attn = Attention(width, spec["attn"], layer)
        self.mlp = Mlp(width, mlp)
        self.attn_norm, self.mlp_norm = norm(width, spec["norm"]), norm(width, spec["norm"])
        self.adapter_norm = norm(width, spec["norm"]) if spec["normed"] == "own" else None
        small = MlpSpec(hidden=spec["hidden"], act=mlp.act, gated=False, bias=True)
        self.adapters = nn.ModuleList(Mlp(width, small) for _ in range(spec["languages"]))

    def forward(self, x_ND: Tensor, batch: Batch, bias: nn.Module | None) -> Tensor:
        pre = self.spec["pre"]
        x_ND = self.tap("resid_pre", x_ND)
        read_ND = self.attn_norm(x_ND) if pre else x_ND
        x_ND = x_ND + self.dropped(self.attn(read_ND, batch, bias))
        x_ND = self.tap("resid_mid", x_ND if pre else self.attn_norm(x_ND))
        read_ND = self.mlp_norm(x_ND) if pre else x_ND
        x_ND = self.adapt(x_ND + self.dropped(self.mlp(read_ND, batch)), batch)
        return self.tap("resid_post", x_ND if pre else self.mlp_norm(x_ND))

    def adapt(self, x_ND: Tensor, batch: Batch) -> Tensor:
        """The adapter of each token's language, around the residual stream."""
        normed_ND = x_ND
        if self.spec["normed"] is not None:
            normed_ND = (self.adapter_norm or self.mlp_norm)(x_ND)
        given = normed_ND, self.languages(batch)
        change_ND = apart(self, "change", given, normed_ND.shape) if compiling() else self.change(*given)
        return (normed_ND if self.spec["before"] else x_ND) + self.dropped(change_ND)

    def change(self, normed_ND: Tensor, language_N: Tensor) -> Tensor:
        change_ND = torch.zeros_like(normed_ND)
        for language, adapter in enumerate(self.adapters):
            places = (language_N == language).nonzero().flatten()
            if len(places):
                change_ND = change_ND.index_copy(0, places, adapter(normed_ND[places]))
        return change_ND

    def languages(self, batch: Batch) -> Tensor:
        """The adapter of each token, [N].

        Raises:
            InputError: nobody says which, or there is no such adapter.
        """
        given, usual, count = batch.extra.get("lang_ids"), self.spec["usual"], len(self.adapters)
        if given is None and usual is None:
            raise InputError("the language is not known", where="lang_ids", next="set default_language in the config")
        if given is None:
            return torch.full_like(batch.positions, usual)
        right = given.dim() == 1 and not given.is_floating_point()
        if right and compiling():  # a graph cannot look at numbers
            return given
        if not right or not 0 <= int(given.min()) <= int(given.max()) < count:
            raise InputError(f"lang_ids for {count} languages", where="lang_ids", next=f"use 0 to {count - 1}")
        return given

    def dropped(self, x_ND: Tensor) -> Tensor:
        return F.dropout(x_ND, self.spec["dropout"], self.training)
