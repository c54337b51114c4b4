"""Choosing tokens: distributions by their definition, greedy at the limits, seeds of rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.engine.sampling import Sampling, choose, probabilities
from pellucid.errors import ArgumentError


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 50),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1),
)
def test_probabilities_by_their_definition(seed: int, size: int, temperature: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3
    found = probabilities(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    assert abs(float(found.sum()) - 1) < 1e-5
    kept = found > 0
    assert kept[logits.argmax()]
    if top_k:
        assert int(kept.sum()) <= max(top_k, 1)
    share = (logits / temperature).softmax(-1)
    if top_p == 1 and not top_k:
        assert kept.all()
    elif not top_k:  # the fewest most likely tokens that reach top_p
        ordered = share.sort(descending=True).values
        reached = ordered.cumsum(0)  # at the edges rounding decides
        most = int((reached < top_p + 1e-6).sum()) + 1
        least = int((reached < top_p - 1e-6).sum()) + 1
        assert least <= int(kept.sum()) <= most
    assert share[kept].min() >= share[~kept].max() - 1e-7 if (~kept).any() else True


def test_greedy_is_the_largest() -> None:
    logits = torch.tensor([0.1, 5.0, 4.9])
    assert choose(logits, Sampling(), None) == 1
    assert choose(logits, Sampling(temperature=1, top_k=1), torch.Generator()) == 1
    assert choose(logits, Sampling(temperature=1, top_p=1e-9), torch.Generator()) == 1


def test_frequencies_follow_the_distribution() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])
    chance = Sampling(temperature=1, seed=3).generator()
    drawn = torch.tensor([choose(logits, Sampling(temperature=1), chance) for _ in range(4000)])
    found = torch.bincount(drawn, minlength=3) / 4000
    assert (found - logits.softmax(-1)).abs().max() < 0.03


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_k": 1.5}, {"top_p": 0}, {"top_p": 1.2}],
)
def test_values_out_of_range_say_the_range(options: dict[str, float]) -> None:
    with pytest.raises(ArgumentError) as caught:
        Sampling(**options)
    (name,) = options
    assert name in caught.value.what
    assert caught.value.next


def test_a_default_seed_follows_torch() -> None:
    torch.manual_seed(5)
    first = Sampling(temperature=1).generator().initial_seed()
    torch.manual_seed(5)
    assert Sampling(temperature=1).generator().initial_seed() == first
