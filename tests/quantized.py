"""Writes checkpoints in published layouts, number by number, and the same weights unpacked beside them.

Every linear layer but the head and routers gets random numbers of the format: what is tested is the layout, not a
quantizer. Words are put together as Python integers, so that nothing here shares a mistake with the code under test.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import reference as ref
from pellucid import AutoModelForCausalLM

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "num_hidden_layers": 2,
}  # fmt: skip
GPT2 = {"n_embd": 64, "n_inner": 96, "n_head": 4, "n_layer": 2}
FAMILIES = {"llama": {}, "mixtral": {"sliding_window": None, "num_local_experts": 4, "num_experts_per_tok": 2}}

# Name and shape of a weight, chance -> the file tensors that stand for it, and its numbers.
Layout = Callable[[str, tuple[int, int], np.random.Generator], tuple[dict[str, Tensor], Tensor]]


def words(numbers: np.ndarray, bits: int) -> Tensor:
    """Whole numbers [n, m], along m in words of 32 bits, the first in the lowest: [n, ceil(m · bits / 32)]."""
    size = math.ceil(numbers.shape[1] * bits / 32)
    rows = [sum(int(number) << bits * at for at, number in enumerate(row)) for row in numbers]
    data = b"".join(row.to_bytes(4 * size, "little") for row in rows)
    return torch.from_numpy(np.frombuffer(data, np.int32).reshape(len(rows), size).copy())


def scales(chance: np.random.Generator, shape: tuple[int, ...], inputs: int, levels: int) -> np.ndarray:
    """Half precision, so that the weights are of the size that they have in a network."""
    return ((0.5 + chance.random(shape)) * 3 / levels / math.sqrt(inputs)).astype(np.float16)


def write(family: str, root: Path, layout: Layout, options: dict[str, Any]) -> tuple[Path, Path]:
    """A checkpoint and the same unpacked: two folders."""
    case = ref.case(family, "", "causal-lm")
    sizes = GPT2 if family == "gpt2" else {**SIZES, **FAMILIES[family]}
    case = replace(case, variant="to be packed", config={**case.config, **sizes})
    folder = ref.checkpoint(case, root)
    chance = np.random.default_rng(5)
    packed, dense = {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith(("_proj.weight", ".c_attn.weight", ".c_fc.weight")) or ".experts." in name:
            turned = family == "gpt2"  # unpacked, it keeps matrices as [in, out]
            parts, numbers = layout(name, tuple(tensor.t().shape if turned else tensor.shape), chance)
            packed, dense[name] = packed | parts, (numbers.t() if turned else numbers).contiguous()
        else:
            packed[name] = dense[name] = tensor
    found = root / f"{family} packed", root / f"{family} dense"
    for to, tensors in zip(found, (packed, dense)):
        shutil.copytree(folder, to)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, to / "model.safetensors")
    config = json.loads((found[0] / "config.json").read_text())
    (found[0] / "config.json").write_text(json.dumps({**config, "quantization_config": options}))
    return found


def models(family: str, root: Path, layout: Layout, options: dict[str, Any], **how: Any) -> tuple[Any, Any]:
    """The two, loaded in float32."""
    how = {"dtype": torch.float32, **how}
    packed, dense = write(family, root, layout, options)
    return AutoModelForCausalLM.from_pretrained(packed, **how), AutoModelForCausalLM.from_pretrained(dense, **how)


def assert_same(packed: Any, dense: Any, *, company: bool = True) -> None:
    """Every weight, every bit; and the logits, within the rounding of another product; in any `company` alike."""
    theirs = dict(dense.state_dict())
    for name, tensor in packed.state_dict().items():
        assert torch.equal(tensor.float() + 0, theirs[name]), name
    ids = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, wanted = packed(ids).logits, dense(ids).logits
        alone = packed(ids[1:2]).logits
    assert ref.distance(found, wanted) <= 1e-5
    assert torch.equal(alone[0], found[1]) or not company


def assert_saved_again(packed: Any, folder: Path, root: Path) -> None:
    """The file's tensors, every bit, and what config.json says of them."""
    packed.save_pretrained(root / "again")
    theirs, ours = load_file(folder / "model.safetensors"), load_file(root / "again" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape, name
        assert torch.equal(*(each.flatten().view(torch.uint8) for each in (ours[name], tensor))), name
    said = [json.loads((where / "config.json").read_text()) for where in (folder, root / "again")]
    assert said[0]["quantization_config"] == said[1]["quantization_config"]


def e4m3(byte: int) -> float:
    """Sign, four bits of exponent, three of mantissa; no infinities."""
    sign, exponent, mantissa = -1.0 if byte >> 7 else 1.0, byte >> 3 & 15, byte & 7
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


VALUES = np.array([e4m3(byte) for byte in range(256)], np.float32)


@dataclass
class Float8:
    """A layout of float8: blocks of so many rows and inputs share a scale; None for all."""

    height: int | None
    width: int | None
    scale: str = "weight_scale_inv"
    shape: tuple[int, ...] | None = None  # of the scales, where it is another
    power: bool = False  # E8M0
    more: str | None = None

    def __call__(self, name: str, shape: tuple[int, int], chance: np.random.Generator) -> Any:
        rows, inputs = shape
        height, width = self.height or rows, self.width or inputs
        bytes_ = chance.integers(0, 256, shape).astype(np.uint8)
        bytes_[(bytes_ & 127) == 127] = 56  # no NaN
        count = -(-rows // height), -(-inputs // width)
        scales = (0.5 + chance.random(count)).astype(np.float32) / 100 / np.sqrt(inputs, dtype=np.float32)
        exponents = chance.integers(112, 119, count).astype(np.uint8)
        if self.power:
            scales = 2.0 ** (exponents.astype(np.float32) - 127)
        spread = np.array([[scales[r // height, i // width] for i in range(inputs)] for r in range(rows)], np.float32)
        stored = torch.from_numpy(exponents).view(torch.float8_e8m0fnu) if self.power else torch.from_numpy(scales)
        parts = {
            name: torch.from_numpy(bytes_).view(torch.float8_e4m3fn),
            name.removesuffix("weight") + self.scale: stored if self.shape is None else stored.reshape(self.shape),
        }
        if self.more:
            parts[name.removesuffix("weight") + self.more] = torch.tensor(float(chance.random()))
        return parts, torch.from_numpy(VALUES[bytes_] * spread)
