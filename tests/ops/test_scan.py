"""Recurrences against their definitions, token by token in float64; in pieces, in 16 bits, and with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.ops.scan import (
    CHUNK,
    PIECE,
    causal_conv,
    channel_delta,
    linear_attention,
    selective_scan,
    sums_between,
    wkv,
)

LENGTHS = [1, 2, CHUNK, 2 * CHUNK + 5, PIECE * 3 + 1]
Given = tuple[Tensor, ...]


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


# ---------------------------------------------------------------------------------------------- definitions


def conv_by_definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    B, T, D = x.shape
    W = weight.shape[1]
    y = bias.expand(B, T, D).clone()
    for t in range(T):
        for w in range(W):
            if t - W + 1 + w >= 0:
                y[:, t] += weight[:, w] * x[:, t - W + 1 + w]
    return y


def mamba_by_definition(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    h, found = torch.zeros(x.shape[0], *a.shape, dtype=x.dtype), []
    for t in range(x.shape[1]):
        h = (step[:, t, :, None] * a).exp() * h + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
        found.append((h * c[:, t, None]).sum(-1))
    return torch.stack(found, 1)


def attention_by_definition(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor | None) -> Tensor:
    share = v.shape[2] // k.shape[2]
    q, k = q.repeat_interleave(share, 2), k.repeat_interleave(share, 2)
    s, found = torch.zeros(*q[:, 0].shape, v.shape[-1], dtype=v.dtype), []
    for t in range(q.shape[1]):
        s = s * decay[:, t, :, None, None].exp()
        new = v[:, t]
        if beta is not None:
            new = beta[:, t, :, None] * (new - torch.einsum("bhk,bhku->bhu", k[:, t], s))
        s = s + torch.einsum("bhk,bhu->bhku", k[:, t], new)
        found.append(torch.einsum("bhk,bhku->bhu", q[:, t], s))
    return torch.stack(found, 1)


def channels_by_definition(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    s, found = torch.zeros(*q[:, 0].shape, v.shape[-1], dtype=v.dtype), []
    for t in range(q.shape[1]):
        s = s * decay[:, t, :, :, None].exp()
        new = beta[:, t, :, None] * (v[:, t] - torch.einsum("bhk,bhku->bhu", k[:, t], s))
        s = s + torch.einsum("bhk,bhu->bhku", k[:, t], new)
        found.append(torch.einsum("bhk,bhku->bhu", q[:, t], s))
    return torch.stack(found, 1)


def wkv_by_definition(k: Tensor, v: Tensor, rate: Tensor, first: Tensor) -> Tensor:
    found = []
    for t in range(k.shape[1]):
        age = torch.arange(t - 1, -1, -1, dtype=k.dtype)[:, None]
        exponents = torch.cat((k[:, :t] - age * rate.exp(), k[:, t : t + 1] + first), 1)
        found.append((exponents.softmax(1) * v[:, : t + 1]).sum(1))
    return torch.stack(found, 1)


# ---------------------------------------------------------------------------------------------- cases


def conv_case(T: int) -> tuple[Given, Given]:
    return (randn(2, T, 5),), (randn(5, 4), randn(5))


def mamba_case(T: int) -> tuple[Given, Given]:
    return (randn(2, T, 5), torch.rand(2, T, 5), -torch.rand(5, 3) * 4, randn(2, T, 3), randn(2, T, 3)), ()


def linear_case(T: int, delta: bool = False) -> tuple[Given, Given]:
    q, k = randn(2, T, 2, 5), torch.nn.functional.normalize(randn(2, T, 2, 5), dim=-1)
    decay = -torch.rand(2, T, 6, dtype=torch.float64) * 3
    return (q, k, randn(2, T, 6, 7), decay, *((torch.rand(2, T, 6, dtype=torch.float64) * 2,) if delta else ())), ()


def delta_case(T: int) -> tuple[Given, Given]:
    return linear_case(T, delta=True)


def channel_case(T: int) -> tuple[Given, Given]:
    q, k = randn(2, T, 3, 5), torch.nn.functional.normalize(randn(2, T, 3, 5), dim=-1)
    decay = -torch.rand(2, T, 3, 5, dtype=torch.float64) * 3
    return (q, k, randn(2, T, 3, 7), decay, torch.rand(2, T, 3, dtype=torch.float64)), ()


def wkv_case(T: int) -> tuple[Given, Given]:
    return (4 * randn(2, T, 5), randn(2, T, 5)), (randn(5), randn(5))


def run_conv(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return causal_conv(x, weight, bias, state)


def run_mamba(*given: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    x, step, a, b, c = given
    return selective_scan(x, step, a, b, c, state)


def run_linear(*given: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return linear_attention(*given[:4], beta_BTH=given[4] if len(given) > 4 else None, state=state)


def linear_definition(*given: Tensor) -> Tensor:
    return attention_by_definition(*given[:4], given[4] if len(given) > 4 else None)


CASES: dict[str, tuple[Callable[[int], tuple[Given, Given]], Callable[..., Any], Callable[..., Tensor]]] = {
    "conv": (conv_case, run_conv, conv_by_definition),
    "mamba": (mamba_case, run_mamba, mamba_by_definition),
    "linear": (linear_case, run_linear, linear_definition),
    "delta": (delta_case, run_linear, linear_definition),
    "channels": (channel_case, channel_delta, channels_by_definition),
    "wkv": (wkv_case, wkv, wkv_by_definition),
}
FIXED = {"mamba": 2}  # the argument that has no time


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("name", CASES)
def test_each_is_its_definition(name: str, T: int) -> None:
    torch.manual_seed(T)
    case, run, definition = CASES[name]
    tokens, weights = case(T)
    given = [t.double() for t in (*tokens, *weights)]
    assert apart(run(*given)[0], definition(*given)) < 1e-12
    narrow = [t.float() for t in given]
    assert apart(run(*narrow)[0].double(), definition(*(t.double() for t in narrow))) < 5e-6


@pytest.mark.parametrize("sizes", [[1] * 9, [5, 1, 6, 1], [CHUNK + 3, 1, 2 * CHUNK]])
@pytest.mark.parametrize("name", CASES)
def test_pieces_are_one_pass(name: str, sizes: list[int]) -> None:
    torch.manual_seed(0)
    case, run, _ = CASES[name]
    tokens, weights = case(sum(sizes))
    tokens, weights = tuple(t.float() for t in tokens), tuple(t.float() for t in weights)
    whole, _ = run(*tokens, *weights)
    state, found, start = None, [], 0
    for size in sizes:
        part = [t if i == FIXED.get(name) else t[:, start : start + size] for i, t in enumerate(tokens)]
        y, state = run(*part, *weights, state=state)
        found.append(y)
        start += size
    assert apart(torch.cat(found, 1), whole) < 2e-6


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_the_same_in_any_company(name: str) -> None:
    torch.manual_seed(0)
    case, run, _ = CASES[name]
    tokens, weights = case(CHUNK + 7)
    tokens, weights = tuple(t.float() for t in tokens), tuple(t.float() for t in weights)
    whole, _ = run(*tokens, *weights)
    alone, _ = run(*(t if i == FIXED.get(name) else t[1:] for i, t in enumerate(tokens)), *weights)
    assert apart(alone, whole[1:]) < 1e-6


@pytest.mark.parametrize("name", ["mamba", "linear", "delta", "channels", "wkv"])
def test_sixteen_bits_keep_a_wide_state(name: str) -> None:
    case, run, _ = CASES[name]
    tokens, weights = case(7)
    _, state = run(*(t.bfloat16() for t in (*tokens, *weights)))
    assert state.dtype == torch.float32


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    torch.manual_seed(0)
    case, run, _ = CASES[name]
    tokens, weights = case(5)
    given = [t.double().requires_grad_() for t in (*tokens, *weights)]
    assert torch.autograd.gradcheck(lambda *x: run(*x)[0], given)


def test_a_large_decay_hides_no_small_one() -> None:
    """Differences of one running sum would be off by 1e-3 here."""
    x = torch.tensor([-3e4, -0.25, -0.125, -0.5])
    found = sums_between(x[:, None])[..., 0]
    assert found[3].tolist() == [-0.875, -0.625, -0.5, 0.0]
    assert found[0].tolist() == [0.0, -torch.inf, -torch.inf, -torch.inf]


def test_what_was_forgotten_is_forgotten() -> None:
    """A decay of exp(-1000) leaves no NaN and no trace."""
    torch.manual_seed(0)
    (q, k, v, decay, beta), _ = delta_case(9)
    decay[:, 4] = -1000.0
    for given in ((q, k, v, decay), (q, k, v, decay, beta)):
        whole, _ = run_linear(*given)
        after, _ = run_linear(*(t[:, 4:] for t in given))
        assert apart(whole[:, 4:], after) < 1e-12
