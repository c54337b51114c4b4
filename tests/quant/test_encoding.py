"""Numbers to blocks: the reference's bytes where it defines them, small errors where a scale is searched."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid.quant import _encode
from pellucid.quant._blocks import UNPACK
from pellucid.quant._encode import ENCODE, TYPES, encode
from pellucid.quant._mixture import BASE, Model, mixture

PLAIN = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
# Root of the mean squared error on normal numbers, as a share of their own: what ggml's quantizers give (libggml-base
# of llama-cpp-python 0.3.36, 512 x 2048 numbers; without importance).
THEIRS = {
    "Q4_0": 0.08597, "Q4_1": 0.07826, "Q5_0": 0.04273, "Q5_1": 0.03784, "Q8_0": 0.00535, "Q2_K": 0.29678,
    "Q3_K": 0.15074, "Q4_K": 0.07135, "Q5_K": 0.03609, "Q6_K": 0.01774, "IQ4_NL": 0.07611, "IQ4_XS": 0.07670,
    "MXFP4": 0.11406,
}  # fmt: skip


def normal(rows: int, columns: int = 512, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def decode(packed: Tensor, kind: str) -> Tensor:
    return UNPACK[kind](packed.reshape(-1, TYPES[kind].nbytes)).view(len(packed), -1)


def error(x: Tensor, kind: str, importance: Tensor | None = None, weight: Tensor | None = None) -> float:
    square = (decode(encode(x, kind, importance), kind) - x).square()
    return float((square if weight is None else square * weight).mean().sqrt())


@pytest.mark.parametrize("kind", PLAIN)
def test_the_plain_kinds_have_the_bytes_of_the_reference(kind):
    x = normal(40, 96) * torch.logspace(-6, 3, 40)[:, None]
    x[3] = 0
    x[4, :32], x[5, 7], x[5, 9] = 1.5, -9.0, 9.0  # all equal; two that are furthest from zero
    wanted = gguf.quantize(x.numpy(), GGMLQuantizationType[kind])
    assert np.array_equal(encode(x, kind).numpy(), wanted)


@pytest.mark.parametrize("kind", ENCODE)
def test_errors_are_as_small_as_ggmls(kind):
    x = normal(256)
    assert error(x, kind) <= 1.03 * THEIRS[kind] * float(x.square().mean().sqrt())


@pytest.mark.parametrize("kind", ENCODE)
def test_importance_moves_the_error_to_where_it_counts_less(kind):
    x, weight = normal(64), torch.logspace(-1, 1, 512)[torch.randperm(512, generator=torch.Generator().manual_seed(1))]
    without, found = error(x, kind, None, weight), error(x, kind, weight, weight)
    assert found == without if kind == "Q8_0" else found < without


@pytest.mark.parametrize("kind", ENCODE)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-4, 1e3))
def test_what_was_packed_once_is_packed_again_without_loss(kind, seed, scale):
    once = decode(encode(normal(4, seed=seed) * scale, kind), kind)
    twice = decode(encode(once, kind), kind)
    if TYPES[kind].block == 32:
        assert torch.equal(once, twice)
    else:  # a search may find another scale of the 256: for few groups, and not far from this one
        first = error(normal(4, seed=seed) * scale, kind)
        assert float((once - twice).square().mean().sqrt()) <= 0.4 * first


@pytest.mark.parametrize("kind", ENCODE)
def test_zeros_single_numbers_and_the_largest(kind):
    x = torch.zeros(5, 512)
    x[1, 300] = -2.5
    x[2] = 0.75
    x[3] = -0.75
    x[4, ::3] = 1e9  # no float16 is a scale for it
    found = decode(encode(x, kind), kind)
    assert found.isfinite().all() and not found[0].any() and not found[1, :256].any()
    for row in (1, 2, 3):
        assert (found[row] - x[row]).abs().max() <= 0.21 * x[row].abs().max()
    if kind != "MXFP4":
        assert found[4].max() <= 65504 * 2**20


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K", "IQ4_XS"])
def test_rows_are_packed_alone_however_many_there_are(kind, monkeypatch):
    x, weight = normal(9), normal(1).abs()[0]
    whole = encode(x, kind, weight)
    monkeypatch.setattr(_encode, "CHUNK", 1024)
    assert torch.equal(encode(x, kind, weight), whole)
    assert torch.equal(encode(x.bfloat16(), kind), encode(x.bfloat16().float(), kind))


# ------------------------------------------------------------------------------------------------ mixtures

LLAMA = {f"blk.{i}.{name}.weight": (256, 256) for i in range(12) for name in ("attn_q", "attn_v", "ffn_down")}
LLAMA |= {"blk.0.attn_norm.weight": (256,), "token_embd.weight": (512, 256), "output.weight": (512, 256)}


@pytest.mark.parametrize(
    ("target", "values", "downs"),
    [  # by layer, as llama_model_quantize of llama-cpp-python 0.3.36 writes them for 12 layers
        ("q4_k_m", "644644644666", "644644644666"),
        ("q4_k_s", "555544444444", "544444444444"),
        ("q5_k_m", "655655655666", "655655655666"),
        ("q3_k_m", "554444444444", "444444444444"),
        ("q3_k_l", "555555555555", "555555555555"),
        ("q2_k", "333333333333", "333333333333"),
    ],
)
def test_matrices_that_get_more_bits(target, values, downs):
    found = mixture(LLAMA, target, Model("llama", 12))
    assert "".join(found[f"blk.{i}.attn_v.weight"][1] for i in range(12)) == values
    assert "".join(found[f"blk.{i}.ffn_down.weight"][1] for i in range(12)) == downs
    assert found["output.weight"] == "Q6_K" and found["blk.0.attn_norm.weight"] == "F32"
    assert found["blk.5.attn_q.weight"] == found["token_embd.weight"] == BASE[target][0]


def test_odd_rows_get_smaller_blocks_or_none():
    shapes = {"blk.0.attn_q.weight": (8, 96), "blk.0.attn_k.weight": (8, 40), "token_embd.weight": (8, 96)}
    found = mixture(shapes, "q4_k_m", Model("llama", 1))
    assert found == {"blk.0.attn_q.weight": "Q5_0", "blk.0.attn_k.weight": "F16", "token_embd.weight": "Q8_0"}
    assert set(mixture(LLAMA, "f16", Model("llama", 12)).values()) == {"F16", "F32"}
