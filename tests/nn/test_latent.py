"""Multi-head latent attention: the absorbed form is the grown one, and the cache keeps one small vector a token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pellucid.cache.batch import Batch
from pellucid.cache.cache import Cache
from pellucid.nn.latent import LatentAttention, LatentSeen
from pellucid.spec import Gate, Indexer, RmsNorm, Rope
from pellucid.spec import LatentAttention as Spec

WIDTH = 22


def module(**changes: Any) -> LatentAttention:
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "heads": 3, "q_rank": 7, "kv_rank": 11, "nope_dim": 5, "rope_dim": 4, "value_dim": 6, "scale": 0.31,
        "rope": Rope(theta=50.0, dim=4, interleaved=True), "norm": RmsNorm(eps=0.01), "biases": "qko",
    }  # fmt: skip
    made = LatentAttention(WIDTH, Spec(**(fields | changes)), layer=0).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.4 if parameter.dim() > 1 else 1))
    return made


def batch(lengths: list[int], cache: Cache | None = None) -> Batch:
    starts = [row.length for row in cache.rows] if cache else [0] * len(lengths)
    places = [start + t for start, n in zip(starts, lengths) for t in range(n)]
    ends = [start + n for start, n in zip(starts, lengths)]
    return Batch(lengths, torch.tensor(places), ends, cache)


def by_definition(m: LatentAttention, x_TD: torch.Tensor) -> torch.Tensor:
    """One sequence, head by head and query by query."""
    s, T = m.latent, len(x_TD)
    turn = m.turn(x_TD, batch([T]))
    q_THK = m.queries(x_TD, turn, batch([T]))
    k_THK, v_THK = m.grown(m.small(x_TD, turn))
    mixed = torch.zeros(T, s.heads, s.value_dim, dtype=torch.float64)
    for t in range(T):
        first = 0 if s.window is None else max(0, t + 1 - s.window)
        for h in range(s.heads):
            share = (k_THK[first : t + 1, h] @ q_THK[t, h] * s.scale).softmax(0)
            mixed[t, h] = share @ v_THK[first : t + 1, h]
    return m.o((m.gate(x_TD, mixed) if m.gate else mixed).flatten(1))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"q_rank": None, "biases": ""},
    {"window": 3},
    {"rope": None},
    {"rope": Rope(theta=50.0, dim=4)},
    {"gate": Gate(per="head"), "q_scale": 1.7, "kv_scale": 0.6},
]


@torch.inference_mode()
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_way_to_compute_it(changes: dict[str, Any]) -> None:
    """A rectangle, a ragged batch, pieces through the cache (both forms), all against the definition."""
    m = module(**changes)
    x_BTD = torch.randn(2, 17, WIDTH, dtype=torch.float64)
    whole = torch.stack([by_definition(m, x_TD) for x_TD in x_BTD])
    assert torch.allclose(m(x_BTD.flatten(0, 1), batch([17, 17])).view(2, 17, -1), whole, atol=1e-10)
    ragged = m(torch.cat((x_BTD[0], x_BTD[1, :5])), batch([17, 5]))
    assert torch.allclose(ragged, torch.cat((whole[0], whole[1, :5])), atol=1e-10)
    cache, start = Cache(2), 0
    for piece in (4, 1, 9, 2, 1):
        b = batch([piece, piece], cache)
        out = m(x_BTD[:, start : start + piece].flatten(0, 1), b)
        assert torch.allclose(out.view(2, piece, -1), whole[:, start : start + piece], atol=1e-10)
        b.finish()
        start += piece


@torch.inference_mode()
def test_an_indexer_chooses_in_every_form() -> None:
    """One row alone, a rectangle, ragged rows and pieces: the same few keys, which are not all."""
    chooser = Indexer(heads=19, head_dim=6, top_k=4, rope=Rope(theta=50.0, dim=4))
    m = module(indexer=chooser)
    x_BTD = torch.randn(2, 17, WIDTH, dtype=torch.float64)
    whole = torch.stack([m(x_TD, batch([17])) for x_TD in x_BTD])
    assert torch.allclose(whole[:, :4], torch.stack([by_definition(m, x_TD)[:4] for x_TD in x_BTD]), atol=1e-10)
    assert not torch.allclose(whole[0], by_definition(m, x_BTD[0]))
    assert torch.allclose(m(x_BTD.flatten(0, 1), batch([17, 17])).view(2, 17, -1), whole, atol=1e-10)
    ragged = m(torch.cat((x_BTD[0], x_BTD[1, :5])), batch([17, 5]))
    assert torch.allclose(ragged, torch.cat((whole[0], whole[1, :5])), atol=1e-10)
    cache, start = Cache(2), 0
    for piece in (4, 1, 9, 2, 1):
        b = batch([piece, piece], cache)
        out = m(x_BTD[:, start : start + piece].flatten(0, 1), b)
        assert torch.allclose(out.view(2, piece, -1), whole[:, start : start + piece], atol=1e-10)
        b.finish()
        start += piece
    seen: list[torch.Tensor] = []
    m.listen("pattern", lambda x: seen.append(x))
    assert torch.allclose(m(x_BTD[0], batch([17])), whole[0], atol=1e-10)
    assert (seen[0] > 0).sum(-1).max() == chooser.top_k


@torch.inference_mode()
def test_few_after_many_are_absorbed_and_many_are_not() -> None:
    m = module(kv_rank=32)
    assert m.absorbs(1, 5)
    assert m.absorbs(6, 5)
    assert not m.absorbs(7, 5)
    assert not m.absorbs(1, 0)
    stop = m.listen("pattern", lambda x: None)
    assert not m.absorbs(1, 5)
    stop()
    cache = Cache(1)
    for n in (9, 1):
        x_ND, b = torch.randn(n, WIDTH, dtype=torch.float64), batch([n], cache)
        turn = m.turn(x_ND, b)
        seen = m.over_itself(x_ND, turn, b)
        assert isinstance(seen, LatentSeen)
        assert seen.absorb == [n == 1]
        assert (seen.grown is None) == (n == 1)
        assert m.few(seen.k_MJK, seen, b) == ((0,) if n == 1 else ())
        b.finish()


@torch.inference_mode()
def test_the_cache_keeps_the_small_vectors() -> None:
    m, cache = module(), Cache(1)
    b = batch([9], cache)
    m(torch.randn(9, WIDTH, dtype=torch.float64), b)
    k_S1R, v_S1K = cache.rows[0].read(0, None, 9)
    assert k_S1R.shape == (9, 1, 11 + 4)
    assert v_S1K.numel() == 0


@torch.inference_mode()
def test_taps_see_what_was_grown() -> None:
    """Patterns, keys and values of a row that goes on; replacing the values of the new token changes its mixture."""
    m, cache = module(), Cache(1)
    x_TD = torch.randn(10, WIDTH, dtype=torch.float64)
    first = batch([9], cache)
    m(x_TD[:9], first)
    first.finish()
    seen: dict[str, torch.Tensor] = {}
    stops = [m.listen(name, lambda x, name=name: seen.__setitem__(name, x)) for name in m.TAPS]
    out = m(x_TD[9:], batch([1], cache))
    assert torch.allclose(out, by_definition(m, x_TD)[9:], atol=1e-10)
    assert seen["pattern"].shape == (1, 3, 1, 10)
    assert seen["k"].shape == (1, 3, 9)
    assert seen["v"].shape == seen["mix"].shape == (1, 3, 6)
    for stop in stops:
        stop()
    m.listen("v", torch.zeros_like)
    assert not torch.allclose(m(x_TD[9:], batch([1], cache)), out)


def test_gradients_reach_every_parameter() -> None:
    m = module(gate=Gate(per="channel", bias=True))
    m(torch.randn(8, WIDTH, dtype=torch.float64), batch([3, 5])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in m.parameters())
