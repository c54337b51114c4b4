"""GPTQ: 2, 3, 4 or 8 bits a number, with a scale and a zero point for each group of inputs. Paper: arXiv 2210.17323.

    X.qweight  int32 [I·b/32, O]   numbers of b bits along the inputs, the first in the lowest bits
    X.qzeros   int32 [G, O·b/32]   zero points along the outputs; of `checkpoint_format` "gptq", one less (mod 2^b)
    X.scales   float [G, O]
    X.g_idx    int32 [I]           the group of each input; absent: neighbours, in groups alike

    W[o, i] = (q[i, o] - zero[g_idx[i], o]) · scale[g_idx[i], o]

Layout: AutoGPTQ (github.com/AutoGPTQ/AutoGPTQ), GPTQModel (github.com/ModelCloud/GPTQModel).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import WeightsError
from pellucid.quant._layers import FLOATS, check, expect, modules, parts
from pellucid.quant._layers import way as way
from pellucid.quant.format import Entries, Group
from pellucid.weights.safetensors import AGAIN

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.ops.packed import PackedTensor

BITS = (2, 3, 4, 8)
READ = {
    "bits": BITS,
    "checkpoint_format": (None, "gptq", "gptq_v2"),
    "format": (None, "gptq", "gptq_v2"),
    "is_marlin_format": (None, False),
    "pack_dtype": (None, "int32"),
    "rotation": (None, ""),
}


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
    check(options, READ)
    for module in modules(entries, "qweight"):
        found = parts(entries, module, ("qweight", "qzeros", "scales"), ("g_idx",))
        bits, shape = _measured(module, entries, options)
        yield Group(f"{module}weight", found, shape, f"GPTQ {bits}-bit", {"bits": bits})


def _measured(module: str, entries: Entries, options: Mapping[str, Any]) -> tuple[int, tuple[int, int]]:
    """Bits and [O, I] of a layer, from its headers: `dynamic` options give some layers other bits."""
    weight, zeros, scales = (entries[module + part] for part in ("qweight", "qzeros", "scales"))
    if {len(entry.shape) for entry in (weight, zeros, scales)} != {2}:
        raise WeightsError(f"{weight.name} {list(weight.shape)} is no matrix with scales", next=AGAIN)
    count, outputs = scales.shape
    fitting = [bits for bits in BITS if zeros.shape[1] == -(-outputs * bits // 32)]
    bits = options["bits"] if options["bits"] in fitting or not options.get("dynamic") else (fitting or [0])[0]
    expect(zeros, ("I32",), (count, -(-outputs * bits // 32)))
    expect(scales, FLOATS, (count, outputs))
    inputs = weight.shape[0] * 32 // bits
    expect(weight, ("I32",), (inputs * bits // 32, outputs))
    index = entries.get(f"{module}g_idx")
    if index is not None:
        expect(index, ("I32", "I64"), (inputs,))
    elif inputs % max(count, 1):
        raise WeightsError(f"{weight.name} has {inputs} inputs in {count} groups, and no {module}g_idx", next=AGAIN)
    return bits, (outputs, inputs)


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    from pellucid.quant._columns import Gptq

    count, index = parts["scales"].shape[0], parts.get("g_idx")
    if index is not None and not 0 <= int(index.min()) <= int(index.max()) < count:
        what = f"{group.parts['g_idx']} names groups {int(index.min())} to {int(index.max())} of {count}"
        raise WeightsError(what, next=AGAIN)
    form = options.get("checkpoint_format") or options.get("format") or "gptq"
    return Gptq(parts, (group.options["bits"], int(form.lower() == "gptq")), group.shape)
