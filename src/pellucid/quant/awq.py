"""AWQ, in the layout of its matrix-matrix kernel ("GEMM"): 4 bits, a scale and a zero point for each group of inputs.

    X.qweight  int32 [I, O/8]   eight outputs a word: those numbered 0 2 4 6 1 3 5 7, from the lowest bits up
    X.qzeros   int32 [G, O/8]   zero points, in the same order
    X.scales   float [G, O]

    W[o, i] = (q[i, o] - zero[g, o]) · scale[g, o]   with g = i // group_size

Layout: AutoAWQ (github.com/casper-hansen/AutoAWQ). Paper: arXiv 2306.00978.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import WeightsError
from pellucid.quant._layers import FLOATS, check, expect, modules, parts
from pellucid.quant._layers import way as way
from pellucid.quant.format import Entries, Group
from pellucid.weights.safetensors import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from pellucid.ops.packed import PackedTensor

EACH = 8  # numbers a word
READ = {
    "bits": (None, 4),
    "w_bit": (None, 4),
    "version": (None, "gemm"),
    "format": (None, "gemm"),
    "zero_point": (None, True),
    "pack_dtype": (None, "int32"),
}


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
    check(options, READ)
    for module in modules(entries, "qweight"):
        found = parts(entries, module, ("qweight", "qzeros", "scales"))
        weight, zeros, scales = (entries[name] for name in found.values())
        if {len(entry.shape) for entry in (weight, zeros, scales)} != {2}:
            raise WeightsError(f"{weight.name} {list(weight.shape)} is no matrix with scales", next=AGAIN)
        (inputs, columns), count = weight.shape, scales.shape[0]
        expect(weight, ("I32",), (inputs, columns))
        expect(zeros, ("I32",), (count, columns))
        expect(scales, FLOATS, (count, columns * EACH))
        size = options.get("group_size", options.get("q_group_size"))
        if count < 1 or inputs % count or size not in (None, -1, inputs // count):
            what = f"{weight.name} has {inputs} inputs in {count} groups, and group_size is {size}"
            raise WeightsError(what, next=f"correct config.json, or {AGAIN}")
        yield Group(f"{module}weight", found, (columns * EACH, inputs), "AWQ 4-bit")


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    from pellucid.quant._columns import Awq

    return Awq(parts, None, group.shape)
