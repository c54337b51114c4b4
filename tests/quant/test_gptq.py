"""GPTQ: checkpoints written number by number in AutoGPTQ's layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import quantized
from pellucid import AutoModelForCausalLM
from pellucid.errors import Unsupported, WeightsError
from pellucid.ops.packed import PackedTensor
from pellucid.quant import _words
from pellucid.quant._columns import Gptq

KINDS = {
    "4 bits": {"bits": 4, "group_size": 32},
    "4 bits, a scale for each row": {"bits": 4, "group_size": -1},
    "3 bits, act-order": {"bits": 3, "group_size": 32, "desc_act": True},
    "2 bits, v2": {"bits": 2, "group_size": 16, "checkpoint_format": "gptq_v2"},
    "8 bits, act-order, v2": {"bits": 8, "group_size": 32, "desc_act": True, "format": "gptq_v2"},
    "4 bits, no g_idx": {"bits": 4, "group_size": 32, "g_idx": False},
}


def config(kind: str) -> dict[str, Any]:
    return {"quant_method": "gptq", "sym": False, **{k: v for k, v in KINDS[kind].items() if k != "g_idx"}}


def layout(bits: int, group_size: int, desc_act: bool = False, g_idx: bool = True, **form: str) -> quantized.Layout:
    one_less = "gptq_v2" not in form.values()

    def write(name, shape, chance):
        outputs, inputs = shape
        size = inputs if group_size == -1 else group_size
        index = np.arange(inputs) // size
        if desc_act:
            chance.shuffle(index)
        q = chance.integers(0, 2**bits, (inputs, outputs))
        zeros = chance.integers(0, 2**bits, (inputs // size, outputs))
        scales = quantized.scales(chance, zeros.shape, inputs, 2**bits)
        numbers = (q - zeros[index]).astype(np.float32) * scales.astype(np.float32)[index]
        module = name.removesuffix("weight")
        parts = {
            module + "qweight": quantized.words(q.T, bits).t(),
            module + "qzeros": quantized.words((zeros - one_less) % 2**bits, bits),
            module + "scales": torch.from_numpy(scales),
        }
        if g_idx:
            parts[module + "g_idx"] = torch.from_numpy(index).int()
        return parts, torch.from_numpy(numbers.T)

    return write


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", quantized.FAMILIES)
def test_a_checkpoint(family, kind, tmp_path):
    packed, dense = quantized.models(family, tmp_path, layout(**KINDS[kind]), config(kind))
    held = [p for p in packed.parameters() if isinstance(p, PackedTensor)]
    assert held and {p.kind for p in held} == {f"GPTQ {KINDS[kind]['bits']}-bit"}
    quantized.assert_same(packed, dense)
    quantized.assert_saved_again(packed, tmp_path / f"{family} packed", tmp_path)


def test_gpt2_whose_layers_lie_otherwise_unpacked(tmp_path):
    """One of them is square: its shape does not tell how it lies."""
    packed, dense = quantized.models("gpt2", tmp_path, layout(4, 32), config("4 bits"))
    assert any(p.shape == (64, 64) for p in packed.parameters() if isinstance(p, PackedTensor))
    quantized.assert_same(packed, dense)
    quantized.assert_saved_again(packed, tmp_path / "gpt2 packed", tmp_path)


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 8]), rows=st.integers(1, 3), count=st.integers(1, 70), seed=st.integers(0, 2**32 - 1)
)
def test_words(bits, rows, count, seed):
    numbers = np.random.default_rng(seed).integers(0, 2**bits, (rows, count))
    wanted = quantized.words(numbers, bits)
    assert torch.equal(_words.unpack(wanted, bits, count), torch.from_numpy(numbers).int())
    assert torch.equal(_words.pack(torch.from_numpy(numbers), bits), wanted)


def matrix(bits: int, outputs: int = 70, inputs: int = 64) -> tuple[Gptq, torch.Tensor]:
    parts, numbers = layout(bits, 16, desc_act=True)("weight", (outputs, inputs), np.random.default_rng(1))
    return Gptq(parts, (bits, 1), (outputs, inputs)), numbers


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rows_stay_packed_wherever_they_are_cut(bits):
    whole, numbers = matrix(bits)
    pieces = whole.split([5, 32, 33])
    assert all(isinstance(piece, Gptq) for piece in pieces)
    assert torch.equal(torch.cat([piece.dense() for piece in pieces]), numbers)
    assert torch.equal(torch.cat(pieces).dense(), numbers)
    assert torch.cat(pieces).same(whole)
    mixed = whole.view(2, 35, 64).transpose(0, 1).flatten(0, 1)
    assert isinstance(mixed, Gptq) and torch.equal(mixed.dense(), numbers.view(2, 35, 64).transpose(0, 1).flatten(0, 1))
    assert torch.equal(whole.lookup(torch.tensor([[3, 69], [3, 0]])), numbers[torch.tensor([[3, 69], [3, 0]])])


def test_matrices_with_inputs_in_other_groups_are_joined_unpacked():
    first, numbers = matrix(4)
    other = Gptq({**first.parts, "g_idx": first.parts["g_idx"].flip(0)}, first.meta, first.shape)
    assert not isinstance(torch.cat([first, other]), PackedTensor)
    assert torch.equal(torch.cat([first, other])[:70], numbers)


def test_layers_of_other_bits_where_the_config_says_so(tmp_path):
    def mixed(name, shape, chance):
        return layout(8 if "down_proj" in name else 4, 32)(name, shape, chance)

    options = {**config("4 bits"), "dynamic": {"+:.*down_proj": {"bits": 8}}}
    packed, dense = quantized.models("llama", tmp_path, mixed, options)
    quantized.assert_same(packed, dense)
    assert {p.kind for p in packed.parameters() if isinstance(p, PackedTensor)} == {"GPTQ 4-bit", "GPTQ 8-bit"}


@pytest.mark.parametrize(
    ("key", "value"), [("bits", 5), ("checkpoint_format", "marlin"), ("rotation", "hadamard"), ("pack_dtype", "int16")]
)
def test_a_variant_that_is_not_read_is_named(key, value, tmp_path):
    folder, _ = quantized.write("llama", tmp_path, layout(4, 32), {**config("4 bits"), key: value})
    with pytest.raises(Unsupported, match=f"{key}={value!r}"):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("broken", ["qzeros", "scales", "bits", "g_idx"])
def test_parts_that_do_not_fit(broken, tmp_path):
    def write(name, shape, chance):
        parts, numbers = layout(4, 32)(name, shape, chance)
        last = name.removesuffix("weight") + broken
        if broken == "g_idx":
            parts[last] = parts[last] + 1
        elif broken == "qzeros":
            del parts[last]
        elif broken == "scales":
            parts[last] = parts[last][:, :-1]
        return parts, numbers

    options = config("4 bits") | ({"bits": 8} if broken == "bits" else {})
    folder, _ = quantized.write("llama", tmp_path, write, options)
    with pytest.raises(WeightsError, match=r"q_proj\.|down_proj\."):
        AutoModelForCausalLM.from_pretrained(folder)
