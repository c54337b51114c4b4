"""Attention in blocks against the same attention written out."""

from __future__ import annotations

import pytest
import torch

from pellucid.ops.attention import attend
from pellucid.ops.local import attend_near, near

H, K = 3, 5


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("T", [1, 2, 4, 5, 9, 16, 31])
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 8, 40])
def test_blocks_see_what_is_near(T: int, radius: int) -> None:
    q_BTHK, k_BTHK, v_BTHK = drawn(2, T, H, K), drawn(2, T, H, K) + 1, drawn(2, T, H, K) - 1
    bias_HW, place_T = drawn(H, 2 * radius + 1), torch.arange(T)
    bias_HTT = bias_HW[:, (place_T - place_T[:, None] + radius).clamp(0, 2 * radius)]
    allow_TT = near(T, radius, place_T.device)
    found = attend_near(q_BTHK, k_BTHK, v_BTHK, radius=radius, scale=0.3, bias_HW=bias_HW)
    wanted = attend(q_BTHK, k_BTHK, v_BTHK, scale=0.3, allow_TS=allow_TT, bias_HTS=bias_HTT)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("T", [1, 6, 13])
def test_what_stands_aside_joins_the_same_softmax(T: int) -> None:
    q_BTHK, k_BTHK, v_BTHK = drawn(2, T, H, K), drawn(2, T, H, K) + 1, drawn(2, T, H, K) - 1
    k_BGHK, v_BGHK, bias_HTG = drawn(2, 4, H, K), drawn(2, 4, H, K) + 2, drawn(H, T, 4)
    hidden_BT = torch.arange(T).expand(2, T) % 3 == 1
    found = attend_near(
        q_BTHK, k_BTHK, v_BTHK, radius=2, scale=0.3, allow_BT=~hidden_BT, side=(k_BGHK, v_BGHK, bias_HTG[None])
    )
    seen_TT = near(T, 2, q_BTHK.device) & ~hidden_BT[0]
    bias_HTS = torch.cat((bias_HTG, torch.zeros(H, T, T).masked_fill(~seen_TT, float("-inf"))), dim=-1)
    keys, values = torch.cat((k_BGHK, k_BTHK), 1), torch.cat((v_BGHK, v_BTHK), 1)
    torch.testing.assert_close(found, attend(q_BTHK, keys, values, scale=0.3, bias_HTS=bias_HTS))


def test_gradients_are_finite_behind_a_short_end() -> None:
    q_BTHK = drawn(1, 7, H, K).requires_grad_()
    attend_near(q_BTHK, q_BTHK, q_BTHK, radius=2, scale=0.3).sum().backward()
    assert q_BTHK.grad is not None and q_BTHK.grad.isfinite().all()
