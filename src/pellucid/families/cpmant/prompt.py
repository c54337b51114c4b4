"""CPM-Ant: a trained prompt stands before every text, and each call's tokens all see each other.

Scores have a bias for the distance of two tokens of the text, or of the prompt, and one for pairs across.
github.com/OpenBMB/CPM-Live.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.bias import Bias
from pellucid.nn.block import Block
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Table, norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import mix, pattern, relative_buckets
from pellucid.spec import Custom, Stack

PROMPT, TEXT = 0, 2  # kinds of segments, and the number of the prompt for text


@dataclass
class Seen:
    """Sequences of equal length: new rows, and all keys and values, the prompt's first."""

    q_BTHK: Tensor
    k_BSHK: Tensor
    v_BSHK: Tensor


class PromptedAttention(Tapped):
    """Taps: `pattern` [B, H, T, S] of the text, whose rows lack the prompt's share; `out`.

    Options: `heads`, `head_dim`, `prompt`, rows that stand before a text; `dropout`.
    """

    TAPS = ("pattern", "out")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        inner = spec["heads"] * spec["head_dim"]
        self.q, self.k, self.v = (Linear(width, inner, bias=False) for _ in "qkv")
        self.o = Linear(inner, width, bias=False)

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None = None) -> Tensor:
        assert bias is not None
        q_NHK, k_NHK, v_NHK = (part(x_ND).unflatten(-1, (self.spec["heads"], -1)) for part in (self.q, self.k, self.v))
        groups = self.seen(q_NHK, k_NHK, v_NHK, batch)
        mixed = [self.mixture(seen, bias, batch) for seen in groups]
        together = len(groups) == len(batch.groups())
        mix_NHK = batch.scatter(mixed) if together else torch.cat([one.flatten(0, 1) for one in mixed])
        return self.tap("out", self.o(mix_NHK.flatten(1)))

    def seen(self, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, batch: Batch) -> list[Seen]:
        """What each sequence's new rows see; a sequence that goes on finds its prompt in the cache."""
        prompt, lengths = self.spec["prompt"], list(batch.lengths)
        goes_on = any(row.length for row in batch.kept)
        found = []
        for row, q, k, v in zip(batch.kept, q_NHK.split(lengths), k_NHK.split(lengths), v_NHK.split(lengths)):
            before = row.state(self.layer)
            if before is None:
                row.keep(self.layer, (k[:prompt], v[:prompt]))
                row.write(self.layer, k[prompt:].detach(), v[prompt:].detach())
            else:
                k, v = (torch.cat(pair) for pair in zip(before, row.write(self.layer, k.detach(), v.detach())))
            found.append(Seen(q[None], k[None], v[None]))
        if goes_on:
            return found
        return [Seen(*(batch.gather(part, group) for part in (q_NHK, k_NHK, v_NHK))) for group in batch.groups()]

    def mixture(self, seen: Seen, bias: Bias, batch: Batch) -> Tensor:
        T, S, prompt = seen.q_BTHK.shape[1], seen.k_BSHK.shape[1], self.spec["prompt"]
        bias_HTS = batch.once((T, S, bias), lambda: bias(T, S))
        share = pattern(seen.q_BTHK, seen.k_BSHK, scale=self.spec["head_dim"] ** -0.5, bias_HTS=bias_HTS)
        share = share.to(seen.v_BSHK.dtype)
        first = prompt if T == S else 0  # the prompt asks too, the first time
        text = self.tap("pattern", share[:, :, first:, prompt:])
        share = torch.cat((share[:, :, :first], torch.cat((share[:, :, first:, :prompt], text), dim=-1)), dim=2)
        return mix(F.dropout(share, self.spec["dropout"], self.training), seen.v_BSHK)


class SegmentBias(nn.Module):
    """A trained score for each head and bucket of distances, or pair of segments.

    Options: `buckets`, `max_distance`; `segments`, kinds of them; `prompt`, rows that stand before a text.
    """

    def __init__(self, heads: int, spec: Custom) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec["segments"] ** 2 + spec["buckets"], heads))

    def forward(self, T: int, S: int) -> Tensor:
        """[H, T, S] for the last T of S rows, the prompt's included."""
        s, device = self.spec, self.weight.device
        bucket_TS = relative_buckets(
            T, S, buckets=s["buckets"], max_distance=s["max_distance"], bidirectional=True, device=device
        )
        kind_S = torch.where(torch.arange(S, device=device) < s["prompt"], PROMPT, TEXT)
        asks_T1, seen_S = kind_S[S - T :, None], kind_S
        across_TS = s["buckets"] + asks_T1 * s["segments"] + seen_S
        return F.embedding(torch.where(asks_T1 == seen_S, bucket_TS, across_TS), self.weight).permute(2, 0, 1)


class Prompted(nn.Module):
    """Options: `blocks`, whose attention is `PromptedAttention`; `bias`; `prompts`, rows of their table; `prompt`, rows
    that stand before a text; `segments`, kinds of them; `norm`, the last.
    """

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        self.spec = spec
        self.prompts = Table(spec["prompts"], stack.width)
        self.segments = Table(spec["segments"], stack.width)
        self.bias = SegmentBias(spec["heads"], spec["bias"])
        self.blocks = nn.ModuleList(Block(stack.width, block, i) for i, block in enumerate(spec["blocks"]))
        self.norm = norm(stack.width, spec["norm"])

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        prompt = self.spec["prompt"]
        begins = [not row.length for row in batch.kept] or [True] * len(batch.lengths)
        before = self.prompts.weight[TEXT * prompt : (TEXT + 1) * prompt] + self.segments.weight[PROMPT]
        texts = (x_ND + self.segments.weight[TEXT]).split(list(batch.lengths))
        pieces = [torch.cat((before, text)) if new else text for text, new in zip(texts, begins)]
        lengths = [len(piece) for piece in pieces]
        wide = replace(batch, lengths=lengths, hidden=None, _shared={})
        is_text = torch.cat(
            [torch.arange(n, device=x_ND.device) >= (prompt if new else 0) for n, new in zip(lengths, begins)]
        )
        x_ND = torch.cat(pieces)
        for block in self.blocks:
            if batch.hidden is not None:
                batch.hidden.append(x_ND[is_text])
            x_ND = block(x_ND, wide, self.bias)
        x_ND = self.norm(x_ND[is_text])
        if batch.hidden is not None:
            batch.hidden.append(x_ND)
        return x_ND
