"""FP8 with scales for blocks, rows or whole matrices: checkpoints in the published layouts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import quantized
import reference as ref
from pellucid import AutoModelForCausalLM
from pellucid.errors import Unsupported, WeightsError
from pellucid.ops.packed import PackedTensor
from pellucid.quant._scaled import EVERY, Grid, Scaled, widened
from quantized import Float8, e4m3

BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [24, 40]}
WHOLE = {"quant_method": "fp8", "activation_scheme": "static"}
FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}


KINDS = {
    "blocks": (BLOCKS, Float8(24, 40)),
    "blocks, powers of two": ({**BLOCKS, "scale_fmt": "ue8m0"}, Float8(24, 40, power=True)),
    "one scale": (WHOLE, Float8(None, None, shape=(), more="activation_scale")),
    "one scale, called otherwise": (WHOLE, Float8(None, None, "weight_scale", shape=(1,), more="input_scale")),
    "a scale for each row": (FBGEMM, Float8(1, None, "weight_scale")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", quantized.FAMILIES)
def test_a_checkpoint(family, kind, tmp_path):
    options, layout = KINDS[kind]
    packed, dense = quantized.models(family, tmp_path, layout, options)
    assert {p.kind for p in packed.parameters() if isinstance(p, PackedTensor)} == {"FP8"}
    quantized.assert_same(packed, dense)
    quantized.assert_saved_again(packed, tmp_path / f"{family} packed", tmp_path)


def test_every_byte():
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    found, wanted = widened(every), torch.tensor([math.nan if byte & 127 == 127 else e4m3(byte) for byte in range(256)])
    assert torch.equal(found.isnan(), wanted.isnan()) and torch.equal(found.isnan(), every.float().isnan())
    assert torch.equal(found.nan_to_num(1).view(torch.int32), wanted.nan_to_num(1).view(torch.int32))  # signs of zeros


@pytest.mark.parametrize(("height", "width"), [(24, 40), (1, 64), (None, None), (128, 128)])
def test_rows_stay_packed_wherever_they_are_cut(height, width):
    parts, numbers = Float8(height, width)("weight", (72, 64), np.random.default_rng(1))
    whole = Scaled(parts, Grid("FP8", height or EVERY, width or 64, "weight_scale_inv"), (72, 64))
    for sizes in ([24, 48], [5, 33, 34], [1, 71]):
        pieces = whole.split(sizes)
        assert all(isinstance(piece, Scaled) for piece in pieces)
        assert torch.equal(torch.cat([piece.dense() for piece in pieces]), numbers)
        again = torch.cat(pieces)
        assert isinstance(again, Scaled) and again.same(whole)
    mixed = whole.view(2, 36, 64).transpose(0, 1).flatten(0, 1)
    assert torch.equal(mixed.dense(), numbers.view(2, 36, 64).transpose(0, 1).flatten(0, 1))
    assert torch.equal(whole.lookup(torch.tensor([3, 71])), numbers[[3, 71]])
    assert torch.equal(whole.dense(3, 50), numbers[3:50])


@pytest.mark.parametrize(
    ("key", "value"), [("fmt", "e5m2"), ("expert_dtype", "fp4"), ("weight_block_size", [128]), ("scale_fmt", "int")]
)
def test_a_variant_that_is_not_read_is_named(key, value, tmp_path):
    folder, _ = quantized.write("llama", tmp_path, Float8(24, 40), {**BLOCKS, key: value})
    with pytest.raises(Unsupported) as caught:
        AutoModelForCausalLM.from_pretrained(folder)
    assert f"{key}={value!r}" in caught.value.what


def test_scales_of_other_blocks(tmp_path):
    folder, _ = quantized.write("llama", tmp_path, Float8(24, 40), {**BLOCKS, "weight_block_size": [128, 128]})
    with pytest.raises(WeightsError, match="weight_scale_inv is F32"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_a_weight_without_scales(tmp_path):
    folder, _ = quantized.write("llama", tmp_path, Unscaled(24, 40), BLOCKS)
    with pytest.raises(WeightsError, match="without"):
        AutoModelForCausalLM.from_pretrained(folder)


class Unscaled(Float8):
    def __call__(self, name: str, shape: tuple[int, int], chance: np.random.Generator) -> Any:
        parts, numbers = super().__call__(name, shape, chance)
        return {name: parts[name]}, numbers


@pytest.mark.parametrize(("block", "height"), [([16, 24], 16), ([20, 24], 20), (None, None)])
def test_experts_in_one_tensor(block, height, tmp_path):
    """As transformers' FP8Experts has them: blocks of each expert, also where its rows are no whole number of them."""
    experts, hidden, width = 4, 40, 48
    changes = {"hidden_size": width, "moe_intermediate_size": hidden, "num_experts": experts, "num_experts_per_tok": 2}
    case = ref.case("qwen3_5_moe_text", "", "causal-lm")
    case = replace(case, variant="fp8", config={**case.config, **changes})
    source, chance = ref.checkpoint(case, tmp_path), np.random.default_rng(5)
    layout = Float8(height, None if block is None else block[1])
    tensors = load_file(source / "model.safetensors")
    packed = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    dense, layers = dict(packed), {name.split(".experts.")[0] for name in tensors if ".experts." in name}
    shapes = {"gate_up": (2 * hidden, width), "down": (width, hidden)}
    for layer, (matrix, shape) in product(sorted(layers), shapes.items()):
        name = f"{layer}.experts.{matrix}_proj"
        each = [layout("weight", shape, chance) for _ in range(experts)]
        dense[name] = torch.stack([numbers for _, numbers in each])
        for part in ("weight", "weight_scale_inv"):
            found = torch.stack([parts[part].view(torch.uint8) for parts, _ in each])
            packed[name + part.removeprefix("weight")] = found.view(each[0][0][part].dtype)
    models = []
    for kind, tensors in (("packed", packed), ("dense", dense)):
        folder = tmp_path / kind
        folder.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
        said = json.loads((source / "config.json").read_text())
        options = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": block}
        said |= {"quantization_config": options} if kind == "packed" else {}
        (folder / "config.json").write_text(json.dumps(said))
        models.append(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    matrices = [name for name, p in models[0].named_parameters() if isinstance(p, PackedTensor)]
    assert len(matrices) == 3 * experts * 4
    quantized.assert_same(*models, company=False)  # its delta rule rounds otherwise in a batch
    quantized.assert_saved_again(models[0], tmp_path / "packed", tmp_path)
