"""Fine-grained FP8: numbers in float8 (E4M3) with a scale for each block of 128 rows by 128 inputs, or one for all.

    X.weight            float8_e4m3fn [O, I]
    X.weight_scale_inv  float32, bfloat16 or E8M0 [O / 128, I / 128], rounded up; or one number. Also: X.weight_scale
    X.activation_scale  one number, of `activation_scheme` "static". Also: X.input_scale

    W[o, i] = q[o, i] · scale[o // 128, i // 128]

Activations are not rounded to 8 bits: the scales that a file has for them are kept and have no effect.
Layout: DeepSeek-V3 (arXiv 2412.19437, huggingface.co/deepseek-ai/DeepSeek-V3), transformers' FineGrainedFP8Config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import WeightsError
from pellucid.quant._layers import FLOATS, check, expect, modules, parts, refuse
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
    yield from scaled(entries, None if block is None else (block[0], block[1]))


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
    from pellucid.quant._scaled import EVERY, Grid, Scaled

    of = group.options
    return Scaled(parts, Grid(group.kind, of["height"] or EVERY, of["width"], of["scale"]), group.shape)
