"""HQQ: checkpoints written number by number in the layout of HQQLinear's state dict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import quantized
from pellucid import AutoModelForCausalLM
from pellucid.errors import Unsupported, WeightsError
from pellucid.ops.packed import PackedTensor
from pellucid.quant._hqq import Hqq

OPTIONS = {"quant_method": "hqq", "quant_config": {}, "skip_modules": ["lm_head"]}
PACKINGS = {8: ("8bit_u8", 1), 4: ("4bit_u8", 2), 3: ("3bit_32", 10), 2: ("2bit_u8", 4), 1: ("1bit_u8", 8)}


def text(words: str) -> torch.Tensor:
    return torch.tensor([ord(letter) for letter in words], dtype=torch.uint8)


def layout(bits: int, group: int | None, axis: int = 1, **settings: Any) -> quantized.Layout:
    name, each = PACKINGS[bits]

    def write(weight, shape, chance):
        size = shape[1] if group is None else group
        table = (-1, size) if axis else (size, -1)
        q = chance.integers(0, 2**bits, shape).reshape(table)
        count = (len(q), 1) if axis else (1, q.shape[1])
        scale = quantized.scales(chance, count, shape[1], 2**bits)
        zero = (chance.random(count) * 2**bits).astype(np.float16)
        numbers = (q.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
        height = -(-len(q) // each)
        packed = np.zeros((height, q.shape[1]), np.int64)
        for k in range(len(q)):
            packed[k % height] |= q[k] << bits * (each - 1 - k // height)
        parts = {
            "W_q": torch.from_numpy(packed).to(torch.int32 if each == 10 else torch.uint8),
            "scale": torch.from_numpy(scale), "zero": torch.from_numpy(zero), "shape": torch.tensor(shape),
            "nbits": torch.tensor(bits, dtype=torch.int32), "axis": torch.tensor(axis, dtype=torch.int32),
            "packing": text(name), "compute_dtype": text("torch.float16"), "unpack_view_dtype": text("torch.uint8"),
            "group_size": torch.tensor(size, dtype=torch.int32), "view_as_float": torch.tensor(0, dtype=torch.uint8),
            "encoded_state_dict": torch.tensor(1, dtype=torch.uint8), **settings,
        }  # fmt: skip
        module = weight.removesuffix("weight")
        return {module + part: tensor.clone() for part, tensor in parts.items()}, torch.from_numpy(
            numbers.reshape(shape)
        )

    return write


@pytest.mark.parametrize(
    ("family", "bits", "group", "axis"),
    [("llama", 8, 32, 1), ("llama", 4, None, 1), ("llama", 3, 16, 1), ("llama", 2, 64, 0), ("mixtral", 4, 32, 1)],
)
def test_a_checkpoint(family, bits, group, axis, tmp_path):
    packed, dense = quantized.models(family, tmp_path, layout(bits, group, axis), OPTIONS)
    assert {p.kind for p in packed.parameters() if isinstance(p, PackedTensor)} == {f"HQQ {bits}-bit"}
    quantized.assert_same(packed, dense)
    quantized.assert_saved_again(packed, tmp_path / f"{family} packed", tmp_path)


@pytest.mark.parametrize("bits", PACKINGS)
@pytest.mark.parametrize(("group", "axis"), [(16, 1), (48, 1), (32, 0), (8, 0)])
def test_rows(bits, group, axis):
    parts, numbers = layout(bits, group, axis)("weight", (48, 64), np.random.default_rng(1))
    whole = Hqq(parts, (bits, PACKINGS[bits][1]), (48, 64))
    for first, last in ((0, 48), (0, 1), (5, 31), (47, 48), (23, 25), (9, 9)):
        assert torch.equal(whole.dense(first, last), numbers[first:last])
    assert torch.equal(whole.lookup(torch.tensor([7, 40])), numbers[[7, 40]])
    assert torch.equal(torch.cat(whole.split([20, 28])), numbers)
    assert isinstance(whole.view(48, 64), Hqq)


@pytest.mark.parametrize(
    ("part", "value"),
    [("view_as_float", torch.tensor(1, dtype=torch.uint8)), ("quant_zero", torch.tensor(1)), ("packing", text("5bit"))],
)
def test_a_variant_that_is_not_read_is_named(part, value, tmp_path):
    folder, _ = quantized.write("llama", tmp_path, layout(4, 32, **{part: value}), OPTIONS)
    with pytest.raises(Unsupported, match=rf"q_proj\.{part}|down_proj\.{part}"):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("part", ["shape", "scale"])
def test_parts_that_do_not_fit(part, tmp_path):
    broken = {"shape": torch.tensor([64, 63]), "scale": torch.ones(3, 1)}[part]
    folder, _ = quantized.write("llama", tmp_path, layout(4, 32, **{part: broken}), OPTIONS)
    with pytest.raises(WeightsError, match="W_q|scale"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_what_cannot_be_cut_packed_is_unpacked_and_saved_as_usual(tmp_path):
    """GPT-2 has queries, keys and values in one matrix, [in, out] in a file without packing."""
    packed, dense = quantized.models("gpt2", tmp_path, layout(4, 32), OPTIONS)
    assert not isinstance(packed.blocks[0].attn.q.weight, PackedTensor)
    assert isinstance(packed.blocks[0].mlp.up.weight, PackedTensor)
    quantized.assert_same(packed, dense)
    packed.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
    assert all(torch.equal(p.float() + 0, q.float() + 0) for p, q in zip(again.parameters(), packed.parameters()))
