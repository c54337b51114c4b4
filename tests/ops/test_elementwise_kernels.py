"""The native norms, rotations and activations beside torch's calls: the same bits, on every level, in any company."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from native import needs_kernels as native_kernels
from pellucid.ops.cpu import elementwise as native
from pellucid.ops.elementwise import SIMPLE, activate, activation, gated, layer_norm, rms_norm, values
from pellucid.ops.rope import Turn, rotate
from pellucid.spec import Activation

needs_kernels = native_kernels(native.library() is not None)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
ODD = [0.0, -0.0, 1e-30, 1e30, 3e38, float("inf"), -float("inf"), float("nan")]


def levels() -> list[str]:
    found = native.library()
    return [name for name, which in native.LEVELS.items() if found and which and found.pellucid_has_elementwise(which)]


def numbers(*shape: int, dtype: torch.dtype, seed: int, odd: bool = False) -> Tensor:
    """Noise of many sizes; with some numbers that are hard to round, or none."""
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=chance) * 2.0 ** torch.randint(-6, 7, shape, generator=chance)
    if odd:
        hit = torch.rand(shape, generator=chance) < 0.02
        x[hit] = torch.tensor(ODD)[torch.randint(len(ODD), (int(hit.sum()),), generator=chance)]
    return x.to(dtype)


def same(found: Tensor, wanted: Tensor) -> bool:
    """Bits, the sign of zero among them; torch itself has several that are not a number."""
    assert found.dtype == wanted.dtype
    no_number = wanted.isnan()
    integers = torch.int32 if wanted.dtype == torch.float32 else torch.int16
    return torch.equal(found.isnan(), no_number) and torch.equal(
        found.view(integers)[~no_number], wanted.view(integers)[~no_number]
    )


def written_out(function, *args, **kwargs) -> Tensor:  # type: ignore[no-untyped-def]
    """In torch, as where gradients are wanted."""
    with torch.enable_grad():
        return function(*args, **kwargs)


@pytest.fixture(autouse=True, scope="module")
def inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@needs_kernels
@pytest.mark.parametrize("level", levels())
@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(8, 700) | st.sampled_from([2048, 4100, 8200, 16389]),
    DTYPES,
    st.sampled_from([None, 0.0, 1.0, 0.1]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_norms_have_the_bits_of_torch(
    level: str, rows: int, width: int, dtype: torch.dtype, offset: float | None, round_first: bool, odd: bool, seed: int
) -> None:
    x_ND = numbers(rows, width, dtype=dtype, seed=seed, odd=odd)
    weight_D = None if offset is None else numbers(width, dtype=dtype, seed=seed + 1, odd=odd)
    how = {"eps": 1e-6, "offset": offset or 0.0, "round_first": round_first}
    assert native.norms(x_ND, weight_D)
    wanted_ND = written_out(rms_norm, x_ND, weight_D, **how)
    assert same(native.rms_norm(x_ND, weight_D, level=level, **how), wanted_ND)


@needs_kernels
@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(8, 700) | st.sampled_from([2048, 16389]),
    DTYPES,
    st.sampled_from(["plain", "weight", "both"]),
    st.integers(-3, 3),
    st.integers(0, 99),
)
def test_centred_norms_are_those_of_torch_but_for_the_last_bits(
    rows: int, width: int, dtype: torch.dtype, parts: str, far: int, seed: int
) -> None:
    """Also of rows whose mean is far from 0; the same bits on every level, and for a row alone."""
    x_ND = (numbers(rows, width, dtype=torch.float32, seed=seed) + 10.0**far).to(dtype)
    weight_D = None if parts == "plain" else numbers(width, dtype=dtype, seed=seed + 1)
    bias_D = numbers(width, dtype=dtype, seed=seed + 2) if parts == "both" else None
    assert native.norms(x_ND, weight_D, bias_D)
    found_ND = layer_norm(x_ND, weight_D, bias_D, eps=1e-6)
    for level in levels():
        of_level_ND = native.layer_norm(x_ND, weight_D, bias_D, eps=1e-6, level=level)
        assert same(of_level_ND, found_ND)
    assert same(layer_norm(x_ND[-1:], weight_D, bias_D, eps=1e-6), found_ND[-1:])
    x, weight = x_ND.double(), torch.ones(width) if weight_D is None else weight_D
    unit = (x - x.mean(-1, keepdim=True)) * (x.var(-1, correction=0, keepdim=True) + 1e-6).rsqrt() * weight.double()
    wanted = unit if bias_D is None else unit + bias_D.double()
    # what float32 loses where the mean is taken away; and the result is rounded
    lost = 4e-7 * (x.abs().amax(-1, keepdim=True) / x.std(-1, correction=0, keepdim=True) + 8) * weight.double().abs()
    assert ((found_ND.double() - wanted).abs() <= lost + (wanted.abs() + lost) * torch.finfo(dtype).eps).all()
    theirs_ND = written_out(layer_norm, x_ND, weight_D, bias_D, eps=1e-6)
    assert ((theirs_ND.double() - wanted).abs() <= 4 * lost + (wanted.abs() + lost) * torch.finfo(dtype).eps).all()


@needs_kernels
@pytest.mark.parametrize("level", levels())
@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(2, 140),
    st.integers(1, 70),
    DTYPES,
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_rotations_have_the_bits_of_torch(
    level: str, N: int, H: int, K: int, pairs: int, dtype: torch.dtype, interleaved: bool, odd: bool, seed: int
) -> None:
    x_NHK = numbers(N, H, K, dtype=dtype, seed=seed, odd=odd)
    turned = 2 * min(pairs, K // 2)
    cos, sin = (numbers(N, 1, turned, dtype=dtype, seed=seed + i, odd=odd) for i in (1, 2))
    assert native.rotates(x_NHK, cos, sin)
    wanted_NHK = written_out(rotate, x_NHK, Turn(cos, sin, interleaved))
    assert same(native.rotate(x_NHK, cos, sin, interleaved, level), wanted_NHK)


@needs_kernels
@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("act", [act for act in get_args(Activation) if act not in SIMPLE])
def test_every_bfloat16_has_its_value(act: Activation, level: str) -> None:
    every = torch.arange(2**16).to(torch.int16).view(torch.bfloat16)
    noise = numbers(2**16, dtype=torch.bfloat16, seed=0, odd=True)
    assert same(native.look_up(values(act), every, level=level), activation(every, act))
    assert same(native.look_up(values(act), every, noise, level=level), activation(every, act) * noise)


@needs_kernels
@pytest.mark.parametrize("level", levels())
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=0, max_size=3), st.integers(0, 1100), st.integers(0, 99))
def test_lookups_of_any_shape(level: str, shape: list[int], width: int, seed: int) -> None:
    """Against the table, written out: torch's own activations may round the last few numbers of a tensor otherwise."""
    shape = [*shape[:-1], width] if len(shape) < 3 else shape
    x, times = (numbers(*shape, dtype=torch.bfloat16, seed=seed + i, odd=True) for i in (0, 1))
    value = values("silu")[x.view(torch.int16).long() & 0xFFFF]
    assert same(native.look_up(values("silu"), x, level=level), value)
    assert same(native.look_up(values("silu"), x, times, level=level), value * times)


@needs_kernels
def test_numbers_that_lie_apart() -> None:
    """Slices, heads in front, and what is repeated without copies."""
    wide_N2D = numbers(6, 2, 64, dtype=torch.bfloat16, seed=0)
    weight_D = numbers(64, dtype=torch.bfloat16, seed=1)
    how = {"eps": 1e-6, "offset": 0.0, "round_first": True}
    turn = Turn(numbers(6, 1, 64, dtype=torch.bfloat16, seed=2)[..., ::2], wide_N2D[:, :1, ::2], False)
    for x in (wide_N2D[:, 1], wide_N2D[:, :, 5:37], wide_N2D.transpose(0, 1), wide_N2D[:1, 0].expand(5, 64)):
        weight = weight_D[: x.shape[-1]]
        assert same(rms_norm(x, weight, **how), written_out(rms_norm, x, weight, **how))
        assert same(gated(x, x.flip(0), "silu"), written_out(gated, x, x.flip(0), "silu"))
        if x.dim() == 3 and x.shape[0] == 6:
            assert same(rotate(x, turn), written_out(rotate, x, turn))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_company_and_threads_do_not_matter(dtype: torch.dtype) -> None:
    rows, heads, width = 301, 4, 96
    x_NHK, up_NHK = (numbers(rows, heads, width, dtype=dtype, seed=i) for i in (0, 1))
    assert x_NHK.numel() > native.WORTH_SHARING
    weight_K = numbers(width, dtype=dtype, seed=2)
    cos, sin = (numbers(rows, 1, width, dtype=dtype, seed=i) for i in (3, 4))

    def all_of(part: slice) -> list[Tensor]:
        x, turn = x_NHK[part], Turn(cos[part], sin[part], False)
        found = [rms_norm(x, weight_K, eps=1e-5, offset=0.0, round_first=True), rotate(x, turn)]
        return [*found, gated(x, up_NHK[part], "silu")] if dtype == torch.bfloat16 else found

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = all_of(slice(None))
        torch.set_num_threads(3)
        together = all_of(slice(None))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together):
        assert same(other, one)
    for part in (slice(0, 1), slice(300, 301), slice(17, 40)):
        for few, many in zip(all_of(part), alone):
            assert same(few, many[part])


def test_what_is_left_to_torch() -> None:
    x_NHK, weight_K = numbers(3, 2, 16, dtype=torch.float32, seed=0), numbers(16, dtype=torch.float32, seed=1)
    cos = sin = numbers(3, 1, 16, dtype=torch.float32, seed=2)
    built = native.library() is not None
    assert native.norms(x_NHK, weight_K) == native.norms(x_NHK, None) == native.rotates(x_NHK, cos, sin) == built
    half = x_NHK.bfloat16()
    assert native.looks_up(half) == native.looks_up(half, half) == built
    with torch.enable_grad():
        assert not native.norms(x_NHK, weight_K) and not native.rotates(x_NHK, cos, sin) and not native.looks_up(half)
    for dtype in (torch.float64, torch.float16):
        assert not native.norms(x_NHK.to(dtype), weight_K.to(dtype)) and not native.looks_up(x_NHK.to(dtype))
        assert not native.rotates(x_NHK.to(dtype), cos.to(dtype), sin.to(dtype))
    assert not native.norms(half, weight_K) and not native.norms(x_NHK, weight_K.bfloat16())
    assert not native.norms(x_NHK, torch.stack([weight_K] * 2)), "a weight for each head"
    assert not native.norms(x_NHK[..., :7], None), "torch adds short rows in another order"
    assert not native.norms(x_NHK.to("meta"), weight_K.to("meta"))
    assert not native.rotates(half, cos, sin) and not native.rotates(x_NHK, cos, sin.bfloat16())
    assert not native.rotates(x_NHK, cos[:1], sin[:1]) and not native.rotates(x_NHK[..., :8], cos, sin)
    assert not native.rotates(x_NHK[None], cos, sin)
    assert not native.looks_up(x_NHK) and not native.looks_up(half, x_NHK) and not native.looks_up(half, half[:1])


def everything(x_NHK: Tensor, weight_K: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x_NHK = rotate(rms_norm(x_NHK, weight_K, eps=1e-5, offset=0.0, round_first=True), Turn(cos, sin, False))
    return gated(x_NHK, activate(x_NHK, "gelu"), "silu")


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # it asks for sizes
def test_tracers_see_torch_calls() -> None:
    """What is recorded on some numbers is right for others. (Compilation: tests/models/test_forward.py.)"""
    first, second = (
        [numbers(*shape, dtype=torch.bfloat16, seed=seed + i) for i, shape in enumerate([(3, 2, 16), (16,)])]
        + [numbers(3, 1, 16, dtype=torch.bfloat16, seed=seed + i) for i in (2, 3)]
        for seed in (0, 10)
    )
    wanted = everything(*second)
    assert same(make_fx(everything)(*first)(*second), wanted)
    assert same(torch.jit.trace(everything, tuple(first), check_trace=False)(*second), wanted)
    assert same(torch.vmap(everything)(*(x[None] for x in second))[0], wanted)
