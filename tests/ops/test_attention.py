"""The fused kernels against the written-out form, over odd shapes; masks and buckets against their definitions."""

from __future__ import annotations

import pytest
import torch

from pellucid.ops.attention import attend, mix, pattern, relative_buckets, temper, visible
from pellucid.spec import Temperature

SHAPES = [(1, 1, 1, 1, 1, 2), (2, 1, 7, 6, 3, 10), (1, 5, 5, 4, 4, 16), (3, 4, 9, 6, 2, 8), (1, 33, 65, 5, 1, 24)]


@pytest.mark.parametrize(("B", "T", "S", "H", "J", "K"), SHAPES)
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sight", ["all", "causal", "window"])
def test_attend_is_mix_of_pattern(
    B: int, T: int, S: int, H: int, J: int, K: int, cap: float | None, bias: bool, sight: str
) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(B, T, H, K), torch.randn(B, S, J, K), torch.randn(B, S, J, K)
    window = {"all": None, "causal": None, "window": 3}[sight]
    asked = {
        "scale": 0.37,
        "cap": cap,
        "allow_TS": None if sight == "all" else visible(T, S, end=S, window=window, device=q.device),
        "bias_HTS": torch.randn(H, T, S) if bias else None,
    }
    share = pattern(q, k, **{name: asked[name] for name in asked})
    assert torch.allclose(share.sum(-1), torch.ones(B, H, T))
    assert torch.allclose(attend(q, k, v, **asked), mix(share, v), atol=2e-6)


def test_a_square_causal_call_needs_no_mask() -> None:
    q, k, v = (torch.randn(2, 9, 4, 8) for _ in range(3))
    mask = visible(9, 9, end=9, device=q.device)
    given = attend(q, k, v, scale=0.3, allow_TS=mask)
    assert torch.allclose(attend(q, k, v, scale=0.3, causal=True), given, atol=1e-6)
    assert torch.allclose(mix(pattern(q, k, scale=0.3, causal=True), v), given, atol=1e-6)


@pytest.mark.parametrize("sight", ["all", "causal", "window"])
@pytest.mark.parametrize(("B", "T", "S", "H", "J", "K"), SHAPES)
def test_sinks_take_their_share(B: int, T: int, S: int, H: int, J: int, K: int, sight: str) -> None:
    """With gradients through the written-out form, without through the kernel: the same, in float32 and float64."""
    torch.manual_seed(0)
    for dtype, near in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        q, k, v = (torch.randn(B, n, h, K, dtype=dtype) for n, h in ((T, H), (S, J), (S, J)))
        allow = (
            None if sight == "all" else visible(T, S, end=S, window=3 if sight == "window" else None, device=q.device)
        )
        sinks = torch.randn(H, dtype=dtype, requires_grad=True)
        share = pattern(q, k, scale=0.37, allow_TS=allow, sinks_H=sinks)
        assert (share.sum(-1) < 1).all()
        written = attend(q, k, v, scale=0.37, allow_TS=allow, sinks_H=sinks)
        with torch.no_grad():
            fused = attend(q, k, v, scale=0.37, allow_TS=allow, sinks_H=sinks)
        assert torch.allclose(written, mix(share, v), atol=near)
        assert torch.allclose(fused, written, atol=near)


def test_visible_by_its_definition() -> None:
    sights = (
        (1, 1, None, None),
        (3, 5, None, None),
        (5, 5, 2, None),
        (2, 7, 3, None),
        (1, 4, 1, None),
        (4, 9, None, 3),
    )
    for T, S, window, chunk in sights:
        for end in (S, S + 4):
            allow = visible(T, S, end=end, window=window, chunk=chunk, device=torch.device("cpu"))
            for t in range(T):
                for s in range(S):
                    at, key = end - T + t, end - S + s
                    near = (window is None or at - key < window) and (chunk is None or at // chunk == key // chunk)
                    assert bool(allow[t, s]) == (key <= at and near)


def test_a_window_to_both_sides() -> None:
    allow = visible(6, 6, end=6, causal=False, window=2, device=torch.device("cpu"))
    assert all(bool(allow[t, s]) == (abs(t - s) <= 2) for t in range(6) for s in range(6))


def test_temperature_by_its_definition() -> None:
    spec = Temperature(scale=0.1, floor=4.0, shift=1.0)
    q = torch.ones(9, 1, 1)
    found = temper(q, torch.arange(9), spec)[:, 0, 0]
    assert found[:3].tolist() == [1.0, 1.0, 1.0]
    expected = 1 + 0.1 * torch.log1p(torch.tensor([1.0, 1, 1, 1, 2, 2]))
    assert torch.allclose(found[3:], expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_buckets_grow_with_distance_and_end(bidirectional: bool) -> None:
    found = relative_buckets(
        1, 200, buckets=32, max_distance=128, bidirectional=bidirectional, device=torch.device("cpu")
    )
    back = found[0].flip(0)  # by distance into the past
    half = 16 if bidirectional else 32
    assert back[0] == 0
    assert torch.equal(back, back.cummax(0).values)
    assert int(back.max()) == half - 1
    assert back[: half // 2].tolist() == list(range(half // 2))
