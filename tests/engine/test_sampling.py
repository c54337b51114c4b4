"""Drawing a token: the distribution, the edges, seeds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.engine.sampling import PART, draw, source


@pytest.mark.parametrize("size", [1, 3, PART - 1, PART, PART + 1, 3 * PART, 5000])
def test_frequencies_follow_the_weights(size: int) -> None:
    """Chi-square over up to 20 groups of tokens, whose limit is passed by chance once in 10,000 times."""
    weights = torch.rand(size, generator=torch.Generator().manual_seed(size)) ** 4
    chance, draws = source(7), 4000
    found = torch.zeros(size)
    for _ in range(draws):
        found[draw(weights, chance)] += 1
    groups = torch.arange(size) * min(size, 20) // size
    wanted = torch.zeros(int(groups.max()) + 1).index_add(0, groups, weights / weights.sum() * draws)
    seen = torch.zeros_like(wanted).index_add(0, groups, found)
    if size > 1:
        spread = float(((seen - wanted) ** 2 / wanted).sum())
        assert spread < {3: 18.5}.get(size, 51.0)
    assert found.sum() == draws


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 3 * PART), kept=st.integers(1, 5))
def test_what_has_no_weight_is_never_drawn(seed: int, size: int, kept: int) -> None:
    chance = source(seed)
    places = torch.randint(size, (kept,), generator=chance)
    weights = torch.zeros(size).index_fill(0, places, 1e-30)
    weights[places[0]] = 3.0 if seed % 2 else 1e-38
    assert {draw(weights, chance) for _ in range(20)} <= set(places.tolist())


def test_seeds() -> None:
    weights = torch.ones(1000)
    first, again, other = (torch.tensor([draw(weights, chance) for _ in range(9)])
                           for chance in (source(3), source(3), source(4)))  # fmt: skip
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(5)
    seed = source(None).initial_seed()
    assert source(None).initial_seed() != seed
    torch.manual_seed(5)
    assert source(None).initial_seed() == seed
