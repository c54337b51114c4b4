"""The fused kernels against the written-out form, over odd shapes; masks and buckets against their definitions."""

from __future__ import annotations

import pytest
import torch

from pellucid.ops.attention import attend, mix, pattern, relative_buckets, visible

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
        "allow_TS": None if sight == "all" else visible(T, S, window=window, device=q.device),
        "bias_HTS": torch.randn(H, T, S) if bias else None,
    }
    share = pattern(q, k, **{name: asked[name] for name in asked})
    assert torch.allclose(share.sum(-1), torch.ones(B, H, T))
    assert torch.allclose(attend(q, k, v, **asked), mix(share, v), atol=2e-6)


def test_a_square_causal_call_needs_no_mask() -> None:
    q, k, v = (torch.randn(2, 9, 4, 8) for _ in range(3))
    mask = visible(9, 9, window=None, device=q.device)
    given = attend(q, k, v, scale=0.3, allow_TS=mask)
    assert torch.allclose(attend(q, k, v, scale=0.3, causal=True), given, atol=1e-6)
    assert torch.allclose(mix(pattern(q, k, scale=0.3, causal=True), v), given, atol=1e-6)


def test_visible_by_its_definition() -> None:
    for T, S, window in ((1, 1, None), (3, 5, None), (5, 5, 2), (2, 7, 3), (1, 4, 1)):
        allow = visible(T, S, window=window, device=torch.device("cpu"))
        for t in range(T):
            for s in range(S):
                at = S - T + t
                assert bool(allow[t, s]) == (s <= at and (window is None or at - s < window))


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
