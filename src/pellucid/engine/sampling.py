"""Drawing a token from a distribution, on the CPU so that every device draws the same."""

from __future__ import annotations

import torch
from torch import Tensor

PART = 512  # sums of so many weights are made first


def source(seed: int | None) -> torch.Generator:
    """A row's own source of chance; without a seed, one from torch's global generator."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())) if seed is None else seed)


def draw(weight_V: Tensor, chance: torch.Generator) -> int:
    """A token with a probability in proportion to its weight, float32, at least 0 and not all 0.

    One number decides, against running sums: of parts of the vocabulary, then inside one part.
    """
    whole = len(weight_V) // PART * PART
    parts = [weight_V[:whole].view(-1, PART).sum(1), weight_V[whole:].sum()[None]]
    reached_N = torch.cat(parts).double().cumsum(0)
    aim = torch.rand((), dtype=torch.float64, generator=chance) * reached_N[-1]
    part = _first_above(reached_N, aim)
    inside_P = weight_V[part * PART : (part + 1) * PART]
    if part:
        aim = aim - reached_N[part - 1]
    return part * PART + _first_above(inside_P.double().cumsum(0), aim)


def _first_above(reached_N: Tensor, aim: Tensor) -> int:
    """Where a running sum first exceeds a value; where rounding put that above the whole, the place that ends it."""
    place = int(torch.searchsorted(reached_N, aim, right=True))
    return place if place < len(reached_N) else int(torch.searchsorted(reached_N, reached_N[-1]))
