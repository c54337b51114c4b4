"""Fine-grained FP8: numbers in float8 (E4M3) with a scale for each block of 128 rows by 128 inputs, or one for all.

    X.weight            float8_e4m3fn [O, I]
    X.weight_scale_inv  float32, bfloat16 or E8M0 [O / 128, I / 128], rounded up; or one number. Also: X.weight_scale
    X.activation_scale  one number, of `activation_scheme` "static". Also: X.input_scale

    W[o, i] = q[o, i] · scale[o // 128, i // 128]

    X                  float8_e4m3fn [E, O, I], of all experts in one tensor: `mlp.experts.gate_up_proj`
    X_scale_inv        [E, O / 128, I / 128], rounded up; or [E, 1, 1]. Also: X_scale

Activations are not rounded to 8 bits: the scales that a file has for them are kept and have no effect.
Layout: DeepSeek-V3 (arXiv 2412.19437, huggingface.co/deepseek-ai/DeepSeek-V3), transformers' FineGrainedFP8Config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import WeightsError
from pellucid.quant._layers import FLOATS, check, expect, modules, parts, refuse
from pellucid.quant._layers import way as way
from pellucid.quant.format import Entries, Group
from pellucid.weights.safetensors import AGAIN

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.ops.packed import PackedTensor

DTYPE, SCALES = "F8_E4M3", ("weight_scale_inv", "weight_scale")
KEPT = ("activation_scale", "input_scale")
READ = {
    "fmt": (None, "e4m3"),
    "activation_scheme": (None, "dynamic", "static"),
    "scale_fmt": (None, "float", "ue8m0"),
    "expert_dtype": (None, "fp8"),
    "kv_cache_scheme": (None,),
}


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
    check(options, READ)
    block = options.get("weight_block_size")
    if block is not None:
        good = isinstance(block, (list, tuple)) and len(block) == 2 and all(isinstance(n, int) and n > 0 for n in block)
        if not good:
            refuse("weight_block_size", block, "this version reads two sizes, as [128, 128]")
    sizes = None if block is None else (block[0], block[1])
    yield from scaled(entries, sizes)
    yield from stacked(entries, sizes)


def stacked(entries: Entries, block: tuple[int, int] | None) -> Iterable[Group]:
    """Experts in one tensor, with scales of blocks in each, or one for each."""
    for name, weight in list(entries.items()):
        scale = next((s for s in SCALES if name + s.removeprefix("weight") in entries), None)
        if weight.dtype != DTYPE or name.endswith(".weight") or len(weight.shape) != 3 or scale is None:
            continue
        scales = entries[name + scale.removeprefix("weight")]
        experts, rows, inputs = weight.shape
        height, width = block if block is not None and scales.shape[1:] != (1, 1) else (rows, inputs)
        expect(scales, (*FLOATS, "F8_E8M0"), (experts, -(-rows // height), -(-inputs // width)))
        options = {"height": height, "width": width, "scale": scale}
        yield Group(name, {"weight": name, scale: scales.name}, weight.shape, "FP8", options)


def scaled(entries: Entries, block: tuple[int, int] | None) -> Iterable[Group]:
    """Every weight in float8 with its scales: of blocks, of rows, or one."""
    for module in modules(entries, "weight"):
        weight = entries[f"{module}weight"]
        if weight.dtype != DTYPE:
            continue
        scale = next((name for name in SCALES if module + name in entries), SCALES[0])
        found = parts(entries, module, ("weight", scale), KEPT)
        if len(weight.shape) != 2:
            raise WeightsError(f"{weight.name} {list(weight.shape)} is no matrix", next=AGAIN)
        rows, inputs = weight.shape
        shapes = [(rows, 1), (rows,), (), (1,), (1, 1)]
        if block is not None:
            shapes.insert(0, (-(-rows // block[0]), -(-inputs // block[1])))
        expect(entries[module + scale], (*FLOATS, "F8_E8M0"), *shapes)
        at = shapes.index(entries[module + scale].shape)
        height, width = block if block is not None and at == 0 else (1 if shapes[at][:1] == (rows,) else 0, inputs)
        yield Group(weight.name, found, (rows, inputs), "FP8", {"height": height, "width": width, "scale": scale})


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    import torch

    from pellucid.quant._scaled import EVERY, Grid, Scaled, bitwise

    of = group.options
    grid = Grid(group.kind, of["height"] or EVERY, of["width"], of["scale"])
    if len(group.shape) == 3:
        (_, rows, inputs), scales = group.shape, parts[grid.scale]
        block = torch.arange(rows) // grid.height
        each = bitwise(scales)[:, block].view(scales.dtype) if rows % grid.height else scales  # a row of scales each
        parts = {"weight": parts["weight"].view(-1, inputs), grid.scale: each.flatten(0, 1)}
    return Scaled(parts, grid, group.shape)
