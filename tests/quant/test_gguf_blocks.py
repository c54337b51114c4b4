"""Each kind of block, bit for bit as the `gguf` package reads it."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.gguf import TENSOR_TYPES
from pellucid.quant._blocks import UNPACK, GgufBlocks
from pellucid.weights.safetensors import DTYPES

UNREAD = {"Q8_1", "Q8_K"}  # llama.cpp's own, for activations: the package does not read them
KINDS = sorted(UNPACK.keys() - UNREAD)


def blocks(kind: str, count: int, seed: int) -> np.ndarray:
    """Random bytes: scales are of every sort, infinite and no numbers among them."""
    size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    return np.random.default_rng(seed).integers(0, 256, (count, size), dtype=np.uint8)


def assert_same_bits(found: torch.Tensor, wanted: np.ndarray) -> None:
    mine = found.numpy()
    assert mine.dtype == np.float32 and mine.shape == wanted.shape
    both = np.isnan(mine) & np.isnan(wanted)
    assert (both | (mine.view(np.int32) == wanted.view(np.int32))).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_random_blocks(kind, count, seed):
    data = blocks(kind, count, seed)
    with np.errstate(all="ignore"):
        wanted = gguf.dequantize(data, GGMLQuantizationType[kind]).astype(np.float32, copy=False)
    assert_same_bits(UNPACK[kind](torch.from_numpy(data)), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_that_is_no_number_spoils_its_block_alone(kind):
    data = blocks(kind, 3, 7)
    data[1] = 255
    data[[0, 2]] &= 0x3F  # no scale of these is infinite
    with np.errstate(all="ignore"):
        wanted = gguf.dequantize(data, GGMLQuantizationType[kind]).astype(np.float32, copy=False)
    found = UNPACK[kind](torch.from_numpy(data))
    assert_same_bits(found, wanted)
    assert found[[0, 2]].isfinite().all()


def test_every_kind_of_the_package_is_read():
    readable = {kind.name for kind in gguf.quants._type_traits} - set(DTYPES)
    assert readable == set(KINDS)


def test_the_kinds_of_activations_are_scale_times_bytes():
    rng = np.random.default_rng(1)
    q = rng.integers(-128, 128, (5, 256), dtype=np.int8)
    d = rng.standard_normal((5, 1)).astype(np.float32)
    q8_k = np.concatenate([d.view(np.uint8), q.view(np.uint8), np.zeros((5, 32), np.uint8)], -1)
    assert_same_bits(UNPACK["Q8_K"](torch.from_numpy(q8_k)), d * q)
    half = d.astype(np.float16)
    q8_1 = np.concatenate([half.view(np.uint8), half.view(np.uint8), q[:, :32].view(np.uint8)], -1)
    assert_same_bits(UNPACK["Q8_1"](torch.from_numpy(q8_1)), half.astype(np.float32) * q[:, :32])


@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K", "IQ3_S"])
def test_any_rows_of_a_matrix(kind):
    block = {each.name: each for each in TENSOR_TYPES.values()}[kind].block
    data = torch.from_numpy(blocks(kind, 22, 3)).view(11, -1)
    matrix = GgufBlocks({"blocks": data}, kind, (11, 2 * block))
    whole = matrix.dense().nan_to_num()
    assert torch.equal(matrix.dense(3, 8).nan_to_num(), whole[3:8])
    assert torch.equal(matrix.lookup(torch.tensor([[9, 0], [9, 4]])).nan_to_num(), whole[[9, 0, 9, 4]].view(2, 2, -1))
