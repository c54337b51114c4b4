"""ProphetNet's decoder: beside the stream that reads, one stream for each of the next tokens. arXiv 2001.04063.

Stream n asks what token t + 1 + n will be; it sees what is read up to token t - n (and always the first), and itself.
The streams of a token lie behind each other, which cross-attention and MLP take as more rows.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.nn.bias import Bias
from pellucid.nn.block import Block
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Table, norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import relative_buckets
from pellucid.ops.elementwise import upcast
from pellucid.spec import Custom, Stack


class NgramAttention(Tapped):
    """Self-attention of all streams of a token, G = 1 + n, over the keys of the first and its own.

    Taps: `pattern` [B, H, T, S], of the stream that reads; `out` [N G, D].

    Options: `streams`, n; `heads`, `head_dim`; `buckets` and `max_distance` of the scores by distance, which depend on
    the query here; `dropout`.
    """

    TAPS = ("pattern", "out")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        self.spec, self.layer, self.heads = spec, layer, spec["heads"]
        inner = self.heads * spec["head_dim"]
        self.q, self.k, self.v = (Linear(width, inner) for _ in "qkv")
        self.o = Linear(inner, width)
        self.distances = Linear(width, spec["buckets"] * self.heads)

    def forward(self, x_MD: Tensor, batch: Batch, bias: Bias | None = None) -> Tensor:
        streams = 1 + self.spec["streams"]
        lengths = [rows // streams for rows in batch.lengths]
        tokens = batch.once("tokens", lambda: Batch(lengths, batch.positions, batch.ends, batch.cache, batch.rows))
        q_NGHK, k_NGHK, v_NGHK = (
            part(x_MD).unflatten(-1, (self.heads, -1)).unflatten(0, (-1, streams)) for part in (self.q, self.k, self.v)
        )
        by_bucket_NGEH = self.distances(x_MD).unflatten(-1, (-1, self.heads)).unflatten(0, (-1, streams))
        mixed = []
        for group, k_BSHK, v_BSHK in self.read(k_NGHK[:, 0], v_NGHK[:, 0], tokens):
            q, k, v, e = (tokens.gather(part, group) for part in (q_NGHK, k_NGHK, v_NGHK, by_bucket_NGEH))
            mixed.append(self.mix(q, k, v, e, k_BSHK, v_BSHK))
        whole = len(mixed) == len(tokens.groups())
        mix_NGHK = tokens.scatter(mixed) if whole else torch.cat([one.flatten(0, 1) for one in mixed])
        return self.tap("out", self.o(mix_NGHK.flatten(2).flatten(0, 1)))

    def read(self, k_NHK: Tensor, v_NHK: Tensor, tokens: Batch) -> list[tuple[list[int], Tensor, Tensor]]:
        """Which sequences, and the keys and values of all that they have read, [B, S, H, K]."""
        rows = tokens.kept
        places = tokens.places(None) if rows else None
        if places is not None:
            places.write(self.layer, k_NHK, v_NHK)
        if places is not None and any(row.length for row in rows):
            kept = [places.read(self.layer, i) for i in range(len(rows))]
            return [([i], k_SHK[None], v_SHK[None]) for i, (k_SHK, v_SHK) in enumerate(kept)]
        return [(group, tokens.gather(k_NHK, group), tokens.gather(v_NHK, group)) for group in tokens.groups()]

    def mix(self, q: Tensor, k: Tensor, v: Tensor, by_bucket: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        """Mixed values [B, T, G, H, K] of queries, own keys and own values, and scores by bucket [B, T, G, E, H]."""
        T, S, scale = q.shape[1], k_BSHK.shape[1], q.shape[-1] ** -0.5
        bucket_GTS, allow_GTS = self.sight(T, S, q.shape[2], q.device)
        score = torch.einsum("btghk,bshk->bghts", upcast(q), upcast(k_BSHK)) * scale
        by_bucket = upcast(by_bucket).permute(0, 2, 4, 1, 3)  # [B, G, H, T, E]
        score = score + by_bucket.gather(-1, bucket_GTS[:, None].expand_as(score))
        own = (upcast(q) * upcast(k)).sum(-1).permute(0, 2, 3, 1) * scale + by_bucket[..., 0]
        own = own.index_fill(1, torch.zeros(1, dtype=torch.long, device=q.device), float("-inf"))  # in its keys already
        share = torch.cat((score.masked_fill(~allow_GTS[:, None], float("-inf")), own[..., None]), dim=-1).softmax(-1)
        share = share.to(v.dtype)
        first = self.tap("pattern", share[:, 0, :, :, :S])
        share = torch.cat((F.pad(first, (0, 1))[:, None], share[:, 1:]), dim=1)
        share = F.dropout(share, self.spec["dropout"], self.training)
        read = torch.einsum("bghts,bshk->btghk", share[..., :S], v_BSHK)
        return read + share[..., S].permute(0, 3, 1, 2)[..., None] * v

    def sight(self, T: int, S: int, streams: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The bucket of each distance, and what is seen, [G, T, S]; a stream that asks stands one place further on."""
        shape = {"buckets": self.spec["buckets"], "max_distance": self.spec["max_distance"], "bidirectional": False}
        here_TS = relative_buckets(T, S, device=device, **shape)
        ahead_TS = relative_buckets(T, S + 1, device=device, **shape)[:, :S]
        back_TS = torch.arange(S - T, S, device=device)[:, None] - torch.arange(S, device=device)
        allow = [back_TS >= 0, *(back_TS >= n for n in range(streams - 1))]
        allow_GTS = torch.stack(allow)
        allow_GTS[1:, :, 0] = True
        return torch.stack([here_TS, *[ahead_TS] * (streams - 1)]), allow_GTS


class NgramDecoder(nn.Module):
    """Options: `blocks`, whose attention is `NgramAttention`; `streams`, n; `positions`, rows of their table, and
    `offset`, the row of the first; `norm`, of what goes in; `answer`, the stream that is the output; `ahead`, whether
    the other streams count in the loss; `dropout`.
    """

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        self.spec = spec
        self.looks_ahead = spec["ahead"]
        self.positions = Table(spec["positions"], stack.width)
        self.streams = Table(spec["streams"], stack.width)
        self.norm = norm(stack.width, spec["norm"])
        self.blocks = nn.ModuleList(Block(stack.width, block, i) for i, block in enumerate(spec["blocks"]))

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        x_NGD = self.entered(x_ND, batch)
        streams = x_NGD.shape[1]
        wide = replace(batch, lengths=[streams * n for n in batch.lengths], hidden=None, _shared={})
        for block in self.blocks:
            if batch.hidden is not None:
                batch.hidden.append(x_NGD[:, 0])
            x_NGD = block(x_NGD.flatten(0, 1), wide, None).unflatten(0, (-1, streams))
        if batch.hidden is not None:
            batch.hidden.append(x_NGD[:, 0])
        if self.spec["ahead"]:
            batch.ahead = x_NGD[:, 2:].unbind(1)
        return x_NGD[:, self.spec["answer"]]

    def entered(self, x_ND: Tensor, batch: Batch) -> Tensor:
        """What each stream begins with, [N, G, D]: the token, or which of the next ones is asked for."""
        place_N = batch.positions + self.spec["offset"]
        if not torch.compiler.is_compiling() and int(place_N.max()) + 1 >= self.spec["positions"]:
            what = f"{max(batch.ends)} tokens, and the model has {self.spec['positions']} positions"
            raise InputError(what, where="decoder_input_ids", next="shorten the text")
        asks_GD = self.streams.weight.roll(1, 0)  # the first of the streams has the last of the vectors
        asks_NGD = self.positions(place_N + 1)[:, None] + asks_GD
        x_NGD = torch.cat(((x_ND + self.positions(place_N))[:, None], asks_NGD), dim=1)
        return F.dropout(self.norm(x_NGD), self.spec["dropout"], self.training)
