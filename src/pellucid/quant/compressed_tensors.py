"""compressed-tensors: whole numbers of 4 or 8 bits in words, int8, or float8, as groups of layers say in the config.

    pack-quantized    X.weight_packed      int32 [O, I·b/32]   q + 2^(b-1), along the inputs, from the lowest bits up
                      X.weight_shape       int [2]
                      X.weight_g_idx       int32 [I]           the group of each input; absent: neighbours
    int-, float-, naive-quantized  X.weight                    int8 or float8_e4m3fn [O, I]
    all               X.weight_scale       of groups [O, G], of rows [O, 1], of blocks, or one
                      X.weight_zero_point  the same in int8; or in words along the outputs, + 2^(b-1)

    W[o, i] = (q[o, i] - zero[o, g]) · scale[o, g]

Activations are not rounded to 8 bits, as with transformers' `dequantize=True`: `input_activations` have no effect, and
the scales that a file has for them are kept. Layout: github.com/vllm-project/compressed-tensors.
"""

from __future__ import annotations

import re
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

FORMATS = (None, "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense")
READ: dict[str, tuple[Any, ...]] = {
    "format": FORMATS,
    "quantization_status": (None, "compressed"),
    "kv_cache_scheme": (None,),
    "transform_config": (None, {}),
}
WEIGHTS = {"type": ("int", "float"), "num_bits": (4, 8)}
OPTIONAL = ("weight_zero_point", "weight_g_idx", "input_scale", "input_zero_point")
NUMBERS = {"I8": "int8", "F8_E4M3": "FP8"}


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
    check(options, READ)
    sparsity = (options.get("sparsity_config") or {}).get("format", "dense")
    if sparsity != "dense":
        refuse("sparsity_config.format", sparsity)
    for module in modules(entries, "weight_packed"):
        yield _in_words(module, entries, _scheme(module, options))
    for module in modules(entries, "weight"):
        if (entry := entries[f"{module}weight"]).dtype in NUMBERS:
            if len(entry.shape) != 2:
                raise WeightsError(f"{entry.name} {list(entry.shape)} is no matrix", next=AGAIN)
            found = parts(entries, module, ("weight", "weight_scale"), OPTIONAL)
            rows, inputs = entry.shape
            grid = _grid(module, entries, _scheme(module, options), (rows, inputs), 8)
            yield Group(entry.name, found, entry.shape, NUMBERS[entry.dtype], grid)


def _scheme(module: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the config says of a module's weights: of the group that names it, else matches it, else has its class."""
    name, sets = module.rstrip("."), list((options.get("config_groups") or {}).values())

    def naming(target: str) -> int:
        """0 for the name, 1 for a pattern that it has, 2 for a class, 3 for anything else."""
        if target.startswith("re:"):
            return 1 if re.match(target.removeprefix("re:"), name) else 3
        return 0 if target == name else 2 if target.isidentifier() else 3

    ranked = [(min(map(naming, group.get("targets") or ["Linear"]), default=3), at) for at, group in enumerate(sets)]
    best, at = min(ranked, default=(3, 0))
    if best == 3:
        what = f"{name} is packed, and no group of quantization_config has it"
        raise WeightsError(what, where="config.json", next=f"correct config_groups, or {AGAIN}")
    group, weights = sets[at], sets[at].get("weights") or {}
    if group.get("output_activations") is not None:
        refuse("output_activations", group["output_activations"])
    check(group, {"format": FORMATS})
    check(weights, WEIGHTS)
    found: Mapping[str, Any] = weights
    return found


def _in_words(module: str, entries: Entries, scheme: Mapping[str, Any]) -> Group:
    found = parts(entries, module, ("weight_packed", "weight_scale", "weight_shape"), OPTIONAL)
    packed, bits = entries[f"{module}weight_packed"], scheme["num_bits"]
    if scheme["type"] != "int":
        refuse("weights.type", f"{scheme['type']}, packed")
    sizes = entries[f"{module}weight_shape"]
    expect(sizes, ("I64", "I32"), (2,))
    data = entries.read(sizes.name)
    rows, inputs = (
        int.from_bytes(half, "little", signed=True) for half in (data[: len(data) // 2], data[len(data) // 2 :])
    )
    expect(packed, ("I32",), (rows, -(-inputs * bits // 32)))
    grid = _grid(module, entries, scheme, (rows, inputs), bits)
    return Group(f"{module}weight", found, (rows, inputs), f"int{bits} in words", grid)


def _grid(
    module: str, entries: Entries, scheme: Mapping[str, Any], shape: tuple[int, int], bits: int
) -> dict[str, int]:
    """What shares a scale, from the shape of the scales; the config's sizes of groups and blocks must agree."""
    (rows, inputs), scale = shape, entries[f"{module}weight_scale"]
    height, width = 0, inputs
    block, size = scheme.get("block_structure"), scheme.get("group_size")
    if scheme.get("strategy") == "block" and block is not None:
        height, width = block
        expect(scale, FLOATS, (-(-rows // height), -(-inputs // width)))
    elif size is not None and size > 0:
        height, width = 1, size
        expect(scale, FLOATS, (rows, -(-inputs // size)))
    elif scale.shape in ((rows, 1), (rows,)):
        height = 1
    else:
        expect(scale, FLOATS, (), (1,), (1, 1))
    zeros, index = entries.get(f"{module}weight_zero_point"), entries.get(f"{module}weight_g_idx")
    if zeros is not None and zeros.dtype == "I32" and f"{module}weight_packed" in entries:
        expect(zeros, ("I32",), (-(-rows * bits // 32), *scale.shape[1:]))
    elif zeros is not None:
        expect(zeros, ("I8", "F8_E4M3"), scale.shape)
    if index is not None:
        expect(index, ("I32", "I64"), (inputs,))
    return {"height": height, "width": width, "bits": bits}


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    from pellucid.quant._scaled import EVERY, Grid, Scaled, Words

    index = parts.get("weight_g_idx")
    if index is not None and not -1 <= int(index.min()) <= int(index.max()) < parts["weight_scale"].shape[-1]:
        raise WeightsError(f"{group.parts['weight_g_idx']} names groups that there are not", next=AGAIN)
    of = group.options
    grid = Grid(group.kind, of["height"] or EVERY, of["width"], bits=of["bits"])
    return (Words if "weight_packed" in parts else Scaled)(parts, grid, group.shape)
