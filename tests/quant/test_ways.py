"""What `pellucid show` says of a packed matrix's kernel is what a layer of the loaded model multiplies with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from gguf import GGMLQuantizationType as Kind

import gguf_models
import quantized
import reference as ref
from pellucid import AutoModelForCausalLM, quant
from pellucid.cli import main
from pellucid.ops.packed import PackedTensor

SIZES = {**quantized.SIZES, "hidden_size": 256, "intermediate_size": 256}
FP8 = {"quant_method": "fp8", "weight_block_size": [32, 32]}


def gguf(kind: Kind, root: Path) -> Path:
    case = ref.case("llama", "", "causal-lm")
    case = replace(case, variant=f"ways {kind.name}", config={**case.config, **SIZES})
    return gguf_models.write(ref.checkpoint(case, root), root / "m.gguf", kind)


def float8(root: Path) -> Path:
    return quantized.write("llama", root, quantized.Float8(32, 32), FP8)[0]


FILES: dict[str, Any] = {
    "Q8_0": lambda root: gguf(Kind.Q8_0, root),
    "Q4_K": lambda root: gguf(Kind.Q4_K, root),
    "FP8": float8,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", FILES)
def test_show_says_what_a_layer_multiplies_with(kind, dtype, tmp_path):
    path = FILES[kind](tmp_path)
    if dtype == "bfloat16" and path.is_dir():
        file = path / "model.safetensors"
        tensors = quantized.load_file(file)
        plain = {name for name, tensor in tensors.items() if tensor.dtype == torch.float32 and "scale" not in name}
        quantized.save_file({n: t.bfloat16() if n in plain else t for n, t in tensors.items()}, file)
    elif dtype == "bfloat16":
        pytest.skip("a GGUF file has its vectors in float32")
    model = AutoModelForCausalLM.from_pretrained(path)
    assert str(model.dtype) == f"torch.{dtype}"
    layers = [p for p in model.parameters() if isinstance(p, PackedTensor) and p.kind == kind]
    chosen = {way.name if (way := layer.chosen()) else quant.TILES for layer in layers}
    ran = CliRunner().invoke(main, ["show", "--json", str(path)], catch_exceptions=False)
    notes = json.loads(ran.output)["notes"]
    said = [re.fullmatch(rf"\d+ matrices stay packed as {kind}: (.*)", note) for note in notes]
    found = [match[1] for match in said if match]
    assert len(layers) > 10 and {*found} == chosen
