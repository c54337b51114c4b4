"""compressed-tensors: checkpoints written number by number in the library's layouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import quantized
from pellucid import AutoModelForCausalLM
from pellucid.errors import PellucidError, Unsupported, WeightsError
from pellucid.ops.packed import PackedTensor
from pellucid.quant._scaled import EVERY, Grid, Words
from quantized import Float8


@dataclass
class Layout:
    """Whole numbers.

    Args:
        size: inputs that share a scale; None for a whole row, 0 for the whole matrix.
        zeros: None, "words" or "int8".
    """

    bits: int
    size: int | None = None
    words: bool = True
    zeros: str | None = None
    order: bool | None = False  # of the inputs' groups; None: said to be none
    more: str | None = None

    def __call__(self, name: str, shape: tuple[int, int], chance: np.random.Generator) -> Any:
        (rows, inputs), half = shape, 2 ** (self.bits - 1)
        size = self.size or inputs
        index = np.arange(inputs) // size
        if self.order:
            chance.shuffle(index)
        count = (1, 1) if self.size == 0 else (rows, -(-inputs // size))
        q, zeros = chance.integers(-half, half, shape), chance.integers(-half, half, count)
        if self.zeros is None:
            zeros[:] = 0
        scales = quantized.scales(chance, count, inputs, 2**self.bits)
        numbers = (q - zeros[:, index]).astype(np.float32) * scales.astype(np.float32)[:, index]
        parts = {"weight_scale": torch.from_numpy(scales.reshape(1) if self.size == 0 else scales)}
        if self.words:
            parts["weight_packed"] = quantized.words(q + half, self.bits)
            parts["weight_shape"] = torch.tensor(shape)
        else:
            parts["weight"] = torch.from_numpy(q).to(torch.int8)
        if self.zeros == "words":
            parts["weight_zero_point"] = quantized.words((zeros + half).T, self.bits).t()
        elif self.zeros:
            parts["weight_zero_point"] = torch.from_numpy(zeros).to(torch.int8)
        if self.order is not False:
            parts["weight_g_idx"] = torch.from_numpy(index if self.order else index * 0 - 1).int()
        if self.more:
            parts[self.more] = torch.tensor([float(chance.random())])
        module = name.removesuffix("weight")
        return {module + part: tensor for part, tensor in parts.items()}, torch.from_numpy(numbers)


def config(form: str, *groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
        "config_groups": {f"group_{i}": {"targets": ["Linear"], **group} for i, group in enumerate(groups)},
        "ignore": ["lm_head"], **more,
    }  # fmt: skip


def weights(bits: int, kind: str = "int", size: int | None = None, **more: Any) -> dict[str, Any]:
    strategy = "channel" if size is None else "group"
    return {"weights": {"num_bits": bits, "type": kind, "group_size": size, "strategy": strategy, **more}}


DYNAMIC = {"input_activations": {"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token"}}
BLOCK = {"strategy": "block", "block_structure": [24, 40]}
PACK, INT, FLOAT = "pack-quantized", "int-quantized", "float-quantized"

KINDS = {
    "int4": (config(PACK, weights(4, size=32)), Layout(4, 32)),
    "int4, asymmetric": (config(PACK, weights(4, size=16)), Layout(4, 16, zeros="words")),
    "int4, asymmetric, as it was": (config(PACK, weights(4, size=16)), Layout(4, 16, zeros="int8")),
    "int4, a scale for each row": (config(PACK, weights(4)), Layout(4)),
    "int4, act-order": (config(PACK, weights(4, size=32, actorder="group")), Layout(4, 32, order=True)),
    "int4, no order": (config(PACK, weights(4, size=32, actorder="group")), Layout(4, 32, order=None)),
    "int8 in words": (config(PACK, weights(8)), Layout(8, zeros="words")),
    "int8": (config(INT, weights(8) | DYNAMIC), Layout(8, words=False)),
    "int8, asymmetric": (config("naive-quantized", weights(8)), Layout(8, words=False, zeros="int8")),
    "int8, one scale": (
        config("naive-quantized", weights(8, strategy="tensor")), Layout(8, 0, words=False, more="input_scale"),
    ),
    "fp8": (config(FLOAT, weights(8, "float")), Float8(1, None, "weight_scale")),
    "fp8, one scale": (
        config(FLOAT, weights(8, "float", strategy="tensor")),
        Float8(None, None, "weight_scale", shape=(1,), more="input_scale"),
    ),
    "fp8, blocks": (config(FLOAT, weights(8, "float", **BLOCK)), Float8(24, 40, "weight_scale")),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint(kind, tmp_path):
    options, layout = KINDS[kind]
    packed, dense = quantized.models("llama", tmp_path, layout, options)
    assert len({p.kind for p in packed.parameters() if isinstance(p, PackedTensor)}) == 1
    quantized.assert_same(packed, dense)
    quantized.assert_saved_again(packed, tmp_path / "llama packed", tmp_path)


def test_experts_and_groups_of_other_bits(tmp_path):
    """By name, by pattern, by class: in this order, whatever that of the config."""

    def mixed(name, shape, chance):
        if name == "model.layers.0.self_attn.q_proj.weight":
            return Float8(1, None, "weight_scale")(name, shape, chance)
        return Layout(8 if "self_attn" in name else 4, 32)(name, shape, chance)

    options = config(
        "mixed-precision",
        weights(4, size=32) | {"format": PACK},
        weights(8, size=32) | {"format": PACK, "targets": ["re:.*self_attn.*"]},
        weights(8, "float") | {"format": FLOAT, "targets": ["model.layers.0.self_attn.q_proj"]},
    )
    packed, dense = quantized.models("mixtral", tmp_path, mixed, options)
    assert {p.kind for p in packed.parameters() if isinstance(p, PackedTensor)} == {
        "int4 in words", "int8 in words", "FP8",
    }  # fmt: skip
    quantized.assert_same(packed, dense)
    quantized.assert_saved_again(packed, tmp_path / "mixtral packed", tmp_path)


@pytest.mark.parametrize("zeros", ["words", "int8", None])
def test_rows_stay_packed_wherever_they_are_cut(zeros):
    parts, numbers = Layout(4, 16, zeros=zeros, order=True)("weight", (70, 64), np.random.default_rng(1))
    whole = Words(parts, Grid("int4", 1, 16, bits=4), (70, 64))
    for sizes in ([24, 46], [5, 32, 33]):
        pieces = whole.split(sizes)
        assert all(isinstance(piece, Words) for piece in pieces)
        assert torch.equal(torch.cat([piece.dense() for piece in pieces]), numbers)
        again = torch.cat(pieces)
        assert isinstance(again, Words) and again.same(whole)
    mixed = whole.view(2, 35, 64).transpose(0, 1).flatten(0, 1)
    assert torch.equal(mixed.dense(), numbers.view(2, 35, 64).transpose(0, 1).flatten(0, 1))
    assert torch.equal(whole.lookup(torch.tensor([3, 69])), numbers[[3, 69]])


def test_one_scale_for_words():
    parts, numbers = Layout(4, 0, zeros="int8")("weight", (9, 40), np.random.default_rng(1))
    whole = Words(parts, Grid("int4", EVERY, 40, bits=4), (9, 40))
    assert torch.equal(whole.dense(), numbers) and torch.cat(whole.split([4, 5])).same(whole)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (config("nvfp4-pack-quantized", weights(4)), "format='nvfp4-pack-quantized'"),
        (config(PACK, weights(3, size=32)), "num_bits=3"),
        (config(PACK, weights(4, "float", size=32)), "weights.type='float, packed'"),
        (config(PACK, weights(4, size=32), quantization_status="frozen"), "quantization_status='frozen'"),
        (config(PACK, weights(4, size=32), kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme={'num_bits': 8}"),
        (config(PACK, weights(4, size=32), sparsity_config={"format": "sparse-bitmask"}), "'sparse-bitmask'"),
        (config(PACK, weights(4, size=32) | {"output_activations": {"num_bits": 8}}), "output_activations={"),
    ],
)
def test_a_variant_that_is_not_read_is_named(options, said, tmp_path):
    folder, _ = quantized.write("llama", tmp_path, Layout(4, 32), options)
    with pytest.raises(Unsupported) as caught:
        AutoModelForCausalLM.from_pretrained(folder)
    assert said in caught.value.what


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (config(PACK, weights(4, size=16)), "weight_scale is F16"),
        (config(PACK, weights(8, size=32)), "weight_packed is I32"),
        (config(PACK, weights(4, size=32) | {"targets": ["re:.*mlp.*"]}), "no group of quantization_config has it"),
    ],
)
def test_a_config_that_does_not_fit(options, said, tmp_path):
    folder, _ = quantized.write("llama", tmp_path, Layout(4, 32), options)
    with pytest.raises(WeightsError, match=said):
        AutoModelForCausalLM.from_pretrained(folder)


def test_groups_that_there_are_not(tmp_path):
    def broken(name, shape, chance):
        parts, numbers = Layout(4, 32, order=True)(name, shape, chance)
        index = name.removesuffix("weight") + "weight_g_idx"
        return parts | {index: parts[index] + 1}, numbers

    folder, _ = quantized.write("llama", tmp_path, broken, config(PACK, weights(4, size=32)))
    with pytest.raises(PellucidError, match="weight_g_idx"):
        AutoModelForCausalLM.from_pretrained(folder)
