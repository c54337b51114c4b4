"""Rotary positions against the reference's own functions and tiny models, beyond the original context too."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._read import read_context, read_rope, read_ropes, yarn_score_scale
from pellucid.ops.rope import inverse_frequencies, rotate, rotation
from pellucid.spec import LongRopeScaling, Rope

FACTORS = st.floats(1, 40)
PLACES = torch.tensor([0, 1, 7, 30, 31, 32, 100, 2000])


def config(**values: Any) -> Config:
    return Config({"max_position_embeddings": 64, **values})


def theirs(rope: dict[str, Any], head_dim: int, positions: int, length: int) -> tuple[torch.Tensor, float]:
    """Frequencies and attention factor as the reference library computes them."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    given = LlamaConfig(
        hidden_size=head_dim * 2, num_attention_heads=2, head_dim=head_dim, max_position_embeddings=positions,
        rope_parameters=dict(rope),
    )  # fmt: skip
    return ROPE_INIT_FUNCTIONS[rope["rope_type"]](given, torch.device("cpu"), seq_len=length)


def agree(rope: dict[str, Any], head_dim: int = 32, positions: int = 64) -> None:
    mine = read_rope(config(max_position_embeddings=positions, rope_parameters=rope), head_dim)
    for length in (1, 31, 32, 33, 64, 65, 333, 2001):
        rate, grow = theirs(rope, head_dim, positions, length)
        assert torch.allclose(inverse_frequencies(mine, end=length), rate, rtol=2e-6, atol=1e-12)
        turn = rotation(mine, PLACES, [len(PLACES)], [length], torch.float32)
        angle = PLACES[:, None] * inverse_frequencies(mine, end=length)
        assert torch.allclose(turn.cos[:, 0, : len(rate)], angle.cos() * grow, atol=1e-6)


# ------------------------------------------------------------------------------------------------ frequencies

SHARES = st.sampled_from([1.0, 0.75, 0.5, 0.25])


@settings(deadline=None, max_examples=40)
@given(factor=FACTORS, theta=st.floats(100, 1e6), share=SHARES, kind=st.sampled_from(["linear", "dynamic"]))
def test_linear_and_dynamic(factor: float, theta: float, share: float, kind: str) -> None:
    agree({"rope_type": kind, "rope_theta": theta, "factor": factor, "partial_rotary_factor": share})


@settings(deadline=None, max_examples=40)
@given(
    factor=FACTORS, theta=st.floats(100, 1e6), share=SHARES, original=st.integers(1, 500), truncate=st.booleans(),
    fast=st.floats(4, 64), slow=st.floats(0.1, 4), optional=st.fixed_dictionaries({}, optional={
        "attention_factor": st.floats(0.1, 2), "mscale": st.floats(0, 2), "mscale_all_dim": st.floats(0, 2)}),
)  # fmt: skip
def test_yarn(
    factor: float, theta: float, share: float, original: int, truncate: bool, fast: float, slow: float,
    optional: dict[str, float],
) -> None:  # fmt: skip
    agree({
        "rope_type": "yarn", "rope_theta": theta, "factor": factor, "original_max_position_embeddings": original,
        "partial_rotary_factor": share, "truncate": truncate, "beta_fast": fast, "beta_slow": slow, **optional,
    })  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(factor=FACTORS, theta=st.floats(100, 1e6), original=st.integers(1, 500), low=st.floats(0.1, 2), data=st.data())
def test_llama3(factor: float, theta: float, original: int, low: float, data: st.DataObject) -> None:
    high = data.draw(st.floats(low + 0.5, low + 8))
    agree({
        "rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": low,
        "high_freq_factor": high, "original_max_position_embeddings": original,
    })  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(theta=st.floats(100, 1e6), share=SHARES, data=st.data(), factor=st.one_of(st.none(), FACTORS))
def test_longrope_goes_by_the_length(theta: float, share: float, data: st.DataObject, factor: float | None) -> None:
    pairs = int(32 * share) // 2
    short, long = (data.draw(st.lists(st.floats(0.5, 60), min_size=pairs, max_size=pairs)) for _ in range(2))
    agree({
        "rope_type": "longrope", "rope_theta": theta, "short_factor": short, "long_factor": long,
        "original_max_position_embeddings": 32, "partial_rotary_factor": share,
        **({} if factor is None else {"factor": factor}),
    })  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(theta=st.floats(100, 1e6), share=st.floats(0.01, 1), factor=FACTORS)
def test_proportional(theta: float, share: float, factor: float) -> None:
    agree({"rope_type": "proportional", "rope_theta": theta, "partial_rotary_factor": share, "factor": factor})


def test_hunyuan_grows_its_base_once() -> None:
    from transformers.models.hunyuan_v1_dense import modeling_hunyuan_v1_dense as hunyuan

    section = {"type": "dynamic", "alpha": 50.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0}
    mine = read_rope(config(rope_theta=500.0, rope_scaling=section), 16)
    given = hunyuan.HunYuanDenseV1Config(
        head_dim=16, rope_parameters={"rope_type": "dynamic", "alpha": 50.0, "factor": 1.0, "rope_theta": 500.0}
    )
    rate, _ = hunyuan.HunYuanDenseV1RotaryEmbedding.compute_ntk_alpha_rope_parameters(given)
    assert mine.scaling is None
    assert torch.allclose(inverse_frequencies(mine, end=10**6), rate, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ turning


def turned_by_definition(x: torch.Tensor, angle: torch.Tensor, interleaved: bool, sign: int) -> torch.Tensor:
    """Each pair as a complex number times e^(i angle)."""
    dim = 2 * angle.shape[-1]
    head = x[..., :dim].unflatten(-1, (-1, 2) if interleaved else (2, -1))
    a, b = head.unbind(-1 if interleaved else -2)
    z = torch.complex(a, b) * torch.exp(1j * sign * angle)[:, None]
    return torch.cat((torch.stack((z.real, z.imag), -1 if interleaved else -2).flatten(-2), x[..., dim:]), -1)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dim", [10, 6])
def test_a_turn_is_a_complex_product(interleaved: bool, backwards: bool, dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 10, dtype=torch.float64)
    place = torch.tensor([0, 1, 4, 9, 200])
    rope = Rope(theta=77.0, dim=dim, interleaved=interleaved, backwards=backwards)
    angle = place[:, None] * inverse_frequencies(rope, dtype=torch.float64)
    expected = turned_by_definition(x, angle, interleaved, -1 if backwards else 1)
    assert torch.allclose(rotate(x, rotation(rope, place, [5], [201], torch.float64)), expected, atol=1e-12)


@pytest.mark.parametrize("woven", [False, True])
def test_axes_as_in_qwen_vl(woven: bool) -> None:
    """Chunked sections as in Qwen2-VL, woven ones as in Qwen3-VL."""
    from transformers import Qwen2VLTextConfig, Qwen3VLTextConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

    section = {"rope_type": "default", "rope_theta": 300.0, "mrope_section": [3, 3, 2]}
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "head_dim": 16}
    kind, layer = (
        (Qwen3VLTextConfig, Qwen3VLTextRotaryEmbedding) if woven else (Qwen2VLTextConfig, Qwen2VLRotaryEmbedding)
    )
    axes = torch.randint(0, 50, (3, 11), generator=torch.Generator().manual_seed(1))
    cos, _ = layer(kind(rope_parameters=section, **sizes))(torch.zeros(1, 11, 32), axes[:, None])
    mine = read_rope(config(rope_parameters=section), 16, sections=(8, 8, 8), woven=woven)
    turn = rotation(mine, axes[0], [11], [11], torch.float32, axes)
    assert torch.allclose(turn.cos[:, 0], cos[0], atol=1e-6)


def test_a_row_goes_by_its_own_length() -> None:
    """Two rows in one batch, one beyond the original context: each as it is alone."""
    long = LongRopeScaling(short=(1.0, 2.0), long=(3.0, 5.0), original_positions=4, attention_factor=1.2)
    rope = Rope(theta=100.0, dim=4, scaling=long)
    both = rotation(rope, torch.tensor([0, 1, 2, 5, 6]), [3, 2], [3, 7], torch.float32)
    first = rotation(rope, torch.tensor([0, 1, 2]), [3], [3], torch.float32)
    second = rotation(rope, torch.tensor([5, 6]), [2], [7], torch.float32)
    assert torch.equal(both.cos, torch.cat((first.cos, second.cos)))
    assert torch.equal(both.sin, torch.cat((first.sin, second.sin)))


# ------------------------------------------------------------------------------------------------ spellings

LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 32}
OLD_AND_NEW = [
    ({"rope_theta": 7.0}, {"rope_type": "default", "rope_theta": 7.0}),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0}),
    ({"rope_theta": 7.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
     {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 7.0}),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}},
     {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}),
    ({"rope_scaling": {"type": "su", **LONG}}, {"rope_type": "longrope", **LONG}),
    ({"rope_scaling": {"type": "longrope", **{k: v for k, v in LONG.items() if "max" not in k}},
      "original_max_position_embeddings": 32}, {"rope_type": "longrope", **LONG}),
    ({"partial_rotary_factor": 0.5}, {"rope_type": "default", "partial_rotary_factor": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW, ids=str)
def test_both_spellings_give_the_same(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert read_rope(config(**old), 16) == read_rope(config(rope_parameters=new), 16)


@pytest.mark.parametrize(
    "values",
    [
        {"rope_scaling": {"type": "linear", "factr": 2.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0, "fector": 3.0}},
        {"rope_scaling": {"type": "linar", "factor": 2.0}},
        {"rope_scaling": {"type": ["linear"], "factor": 2.0}},
        {"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}},
        {"rope_scaling": "linear"},
        {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 6.0}},
        {"partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 0.25}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 3.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
        {"rope_theta": True},
        {"rope_theta": 1.0},
        {"rope_theta": "10000"},
        {"partial_rotary_factor": 0.01},
        {"rope_scaling": {"type": "longrope", **LONG, "long_factor": [1.0]}},
        {"rope_scaling": {"type": "longrope", **LONG, "long_factor": [0.0] * 8}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8},
         "original_max_position_embeddings": 9},
        {"rope_parameters": {"rope_type": "default", "mrope_section": [3, 3, 2]}},
    ],
    ids=str,
)  # fmt: skip
def test_misspelt_and_contradicting_keys_are_errors(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        read_rope(config(**values), 16)


def test_sections_for_each_type_of_layer() -> None:
    linear = {"rope_type": "linear", "factor": 8.0}
    nested = read_ropes(
        config(rope_parameters={
            "full_attention": {**linear, "rope_theta": 90.0}, "sliding_attention": {"rope_theta": 30.0},
        }), 16,
    )  # fmt: skip
    old = read_ropes(config(rope_theta=90.0, rope_local_base_freq=30.0, rope_scaling=linear), 16)
    assert nested == old
    assert nested["sliding_attention"] == Rope(theta=30.0, dim=16)
    none = read_ropes(config(rope_parameters={"full_attention": None, "sliding_attention": {"rope_theta": 30.0}}), 16)
    assert none["full_attention"] is None
    assert none["sliding_attention"] == Rope(theta=30.0, dim=16)
    flat = read_ropes(
        config(rope_parameters={**linear, "rope_theta": 90.0}), {"full_attention": 8}, types=["full_attention"]
    )
    assert flat["full_attention"] == read_rope(config(rope_theta=90.0, rope_scaling=linear), 8)
    with pytest.raises(ConfigError):
        read_ropes(config(rope_parameters={"full_attention": {}, "sliding_atention": {}}), 16)


def test_stretched_positions_reach_further() -> None:
    for kind, reach in (("linear", 128), ("dynamic", 128), ("yarn", 128), ("default", 64)):
        c = config(rope_scaling={"type": kind, **({} if kind == "default" else {"factor": 2.0})})
        assert read_context(c, read_rope(c, 16)) == reach


def test_deepseek_sharpens_its_scores() -> None:
    section = {"type": "yarn", "factor": 40.0, "mscale": 0.7, "mscale_all_dim": 0.7}
    assert yarn_score_scale(config(rope_scaling=section)) == pytest.approx((0.07 * math.log(40) + 1) ** 2)
    assert yarn_score_scale(config(rope_scaling={"type": "yarn", "factor": 40.0})) == 1
    assert yarn_score_scale(config()) == 1
