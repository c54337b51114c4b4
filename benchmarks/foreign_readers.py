"""Files that `pellucid quantize` writes, read by the libraries that made their formats: largest difference of logits.

    PYTHONPATH=src:WHERE python benchmarks/foreign_readers.py      WHERE has auto-gptq, autoawq and hqq

    pip install --no-deps --target WHERE auto-gptq hqq termcolor       AutoAWQ has no wheel: its folder `awq` is enough

Each library makes the matrices of a tiny Llama from our tensors (AutoGPTQ's and HQQ's layers; AutoAWQ's functions,
which round to float16), the reference runs them, and the logits are compared with ours of the same file.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "models")]

import tiny  # noqa: E402

from pellucid import hub  # noqa: E402
from pellucid.models.targets import TARGETS, Options  # noqa: E402
from pellucid.ops.packed import exactly  # noqa: E402

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
SIZES = {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "head_dim": 64}


def module(path: str) -> ModuleType:
    """One file of a package whose other files want a GPU."""
    found = next(Path(place) / path for place in sys.path if (Path(place) / path).is_file())
    spec = importlib.util.spec_from_file_location(found.stem, found)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def gptq(parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> Tensor:
    layers = module("auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py")
    inputs, outputs = parts["g_idx"].numel(), parts["scales"].shape[1]
    layer = layers.QuantLinear(options["bits"], options["group_size"], inputs, outputs, False, use_cuda_fp16=False)
    for name in ("qweight", "qzeros", "g_idx"):
        setattr(layer, name, parts[name])
    layer.scales = parts["scales"].float()
    return layer(torch.eye(inputs)).t()


def awq(parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> Tensor:
    functions = module("awq/utils/packing_utils.py")
    numbers = (parts[name] for name in ("qweight", "qzeros", "scales"))
    return functions.dequantize_gemm(*numbers, options.get("bits", 4), options["group_size"]).t()


def hqq(parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> Tensor:
    from hqq.core.quantize import HQQLinear

    layer = HQQLinear(None, None, initialize=False, compute_dtype=torch.float32, device="cpu")
    layer.load_state_dict(dict(parts))
    return layer.dequantize()


READERS = {"gptq-2": gptq, "gptq-3": gptq, "gptq-4": gptq, "gptq-8": gptq, "awq-4": awq, "hqq-4": hqq}


def compared(target: str, dense: Path, out: Path, ids: Tensor) -> float:
    """Between the reference with the library's matrices and our model, as a share of the largest logit."""
    TARGETS[target].run(dense, out, Options(text=TEXT if target != "hqq-4" else None))
    stored = load_file(next(out.glob("*.safetensors")))
    options = json.loads((out / "config.json").read_text())["quantization_config"]
    plain = {name: tensor.float() for name, tensor in stored.items() if name.endswith("weight") and tensor.dim() < 3}
    plain = {name: tensor for name, tensor in plain.items() if not name.endswith("qweight")}
    for base in {name.rpartition(".")[0] for name in stored if name.endswith((".qweight", ".W_q"))}:
        parts = {name.rpartition(".")[2]: tensor for name, tensor in stored.items() if name.startswith(base + ".")}
        plain[base + ".weight"] = READERS[target](parts, options).float()
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(dense)).eval()
    theirs.load_state_dict(plain)
    ours = tiny.auto("llama").from_pretrained(out, dtype=torch.float32)
    with torch.inference_mode(), exactly():
        found, wanted = ours(ids).logits, theirs(ids).logits
    return float((found - wanted).abs().max() / wanted.abs().max())


def main() -> None:
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    ids = torch.randint(3, 500, (2, 12), generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as scratch:
        dense = Path(scratch) / "dense"
        tiny.make("llama", num_key_value_heads=2, **SIZES).save_pretrained(dense)
        for file in Path(hub.default_model()).glob("token*"):
            shutil.copy(file, dense)
        for target in READERS:
            print(f"{target:8s} {compared(target, dense, Path(scratch) / target, ids):.0e}", flush=True)


if __name__ == "__main__":
    main()
