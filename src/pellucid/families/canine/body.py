"""CANINE: characters without a vocabulary, read in pieces that a convolution makes shorter. arXiv 2103.06874.

characters ── local block ──────────────────────────────── both ── convolution ── block ── characters
                  └─ convolution, stride r ── deep blocks ── each r times ─┘
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.bias import Bias
from pellucid.nn.block import Block
from pellucid.nn.parts import Table, norm
from pellucid.nn.stages import aligned
from pellucid.ops.elementwise import activate
from pellucid.spec import Custom, Stack

PRIMES = (31, 43, 59, 61, 73, 97, 103, 113, 137, 149, 157, 173, 181, 193, 211, 223)


class HashedCharacters(nn.Module):
    """A vector for every character there is: several hashes of it, each with a table of its own, side by side.

    Options: `hashes`, how many; `buckets`, rows of each table.
    """

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.buckets = spec["buckets"]
        self.tables = nn.ModuleList(Table(self.buckets, width // spec["hashes"]) for _ in range(spec["hashes"]))

    def forward(self, ids: Tensor) -> Tensor:
        parts = [table((ids + 1) * prime % self.buckets) for table, prime in zip(self.tables, PRIMES)]
        return torch.cat(parts, dim=-1)


class Convolution(nn.Module):
    """Over time, [B, T, I] -> [B, T', D], then the activation and a norm."""

    def __init__(self, inner: int, width: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, inner, kernel))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x_BTI: Tensor, stride: int = 1) -> Tensor:
        return F.conv1d(x_BTI.transpose(1, 2), self.weight, self.bias, stride).transpose(1, 2)


class Canine(nn.Module):
    """Options: `initial`, `deep` and `final`, specs of the blocks; `rate`, characters in a piece; `kernel`, of the
    convolution back; `act` and `norm` of both convolutions; `dropout`.
    """

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        width, self.spec = stack.width, spec
        self.rate, self.kernel = spec["rate"], spec["kernel"]
        self.initial = Block(width, spec["initial"], 0)
        self.down = Convolution(width, width, self.rate)
        self.down_norm = norm(width, spec["norm"])
        self.deep = nn.ModuleList(Block(width, block, 1 + i) for i, block in enumerate(spec["deep"]))
        self.up = Convolution(2 * width, width, self.kernel)
        self.up_norm = norm(width, spec["norm"])
        self.final = Block(width, spec["final"], 1 + len(spec["deep"]))

    pools = True  # leaves `batch.pooled`

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        groups, hidden = batch.groups(), batch.hidden if batch.hidden is not None else []
        hidden.append(x_ND)
        x_ND = self.initial(x_ND, batch, None)
        hidden.append(x_ND)
        pieces = short(batch, self.rate)
        y_ND = batch.scatter([self.shorter(batch.gather(x_ND, group)) for group in groups])
        for block in self.deep:
            hidden.append(aligned(batch, [pieces.gather(y_ND, group) for group in groups]))
            y_ND = block(y_ND, pieces, None)
        hidden.append(aligned(batch, [pieces.gather(y_ND, group) for group in groups]))
        batch.pooled = y_ND[pieces.first]
        x_ND = batch.scatter(
            [self.longer(batch.gather(x_ND, group), pieces.gather(y_ND, group)) for group in groups]
        )  # fmt: skip
        hidden.append(x_ND)
        x_ND = self.final(x_ND, batch, None)
        hidden.append(x_ND)
        return x_ND

    def shorter(self, x_BTD: Tensor) -> Tensor:
        """The first character, then a vector for each piece but the last."""
        first_B1D = x_BTD[:, :1]
        if x_BTD.shape[1] < self.rate:
            return self.down_norm(first_B1D)
        whole_BTD = activate(self.down(x_BTD, self.rate), self.spec["act"])
        return self.down_norm(torch.cat((first_B1D, whole_BTD[:, :-1]), dim=1))

    def longer(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        """Each piece for its characters, the last one for what is left, beside the characters themselves."""
        T = x_BTD.shape[1]
        left = T - self.rate * (y_BTD.shape[1] - 1)
        wide_BTD = torch.cat((y_BTD[:, 1:].repeat_interleave(self.rate, 1), y_BTD[:, -1:].expand(-1, left, -1)), dim=1)
        both_BTI = torch.cat((x_BTD, wide_BTD), dim=-1)
        before = (self.kernel - 1) // 2
        x_BTD = self.up(F.pad(both_BTI, (0, 0, before, self.kernel - 1 - before)))
        x_BTD = self.up_norm(activate(x_BTD, self.spec["act"]))
        return F.dropout(x_BTD, self.spec["dropout"], self.training)


def short(batch: Batch, rate: int) -> Batch:
    """The same sequences in pieces."""
    lengths = [max(1, T // rate) for T in batch.lengths]
    positions = torch.cat([torch.arange(n, device=batch.positions.device) for n in lengths])
    return Batch(lengths, positions, lengths)
