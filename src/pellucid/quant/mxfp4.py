"""MXFP4 as gpt-oss has it: 32 neighbours of a row share a power of two, and each has 4 bits of its own. 4.25 bits each.

    X_blocks   uint8 [E, O, G, 16]   two E2M1 codes a byte, the low nibble first: sign, 2 bits exponent, 1 bit mantissa
    X_scales   uint8 [E, O, G]       E8M0: s stands for 2^(s - 127), and 255 for NaN

for E experts, O outputs, G groups of 32 inputs: X is [E, O, 32 G] here, as formats have matrices, where an unpacked
file has [E, inputs, outputs].
Format: OCP Microscaling Formats (MX) v1.0. Files that have it: huggingface.co/openai/gpt-oss-20b.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import WeightsError
from pellucid.quant._layers import way as way
from pellucid.quant.format import Entries, Group
from pellucid.weights.safetensors import AGAIN

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.ops.packed import PackedTensor

GROUP = 32
NAN = 255
HALVES = ("_blocks", "_scales")


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
    names = dict.fromkeys(
        name.removesuffix(half)
        for name, entry in entries.items()
        for half in HALVES
        if name.endswith(half) and entry.dtype == "U8"
    )
    for name in names:
        for half in HALVES:
            if name + half not in entries:
                raise WeightsError(f"half of {name} in MXFP4: there is no {name}{half}", next=AGAIN)
        if name in entries:
            what = f"{name} is there twice, as it is and in MXFP4"
            raise WeightsError(what, next="remove one of the two from the files")
        blocks, scales = (entries[name + half] for half in HALVES)
        whole = len(scales.shape) == 3 and blocks.shape == (*scales.shape, GROUP // 2)
        if (blocks.dtype, scales.dtype) != ("U8", "U8") or not whole:
            found = " and ".join(f"{half.name} is {half.dtype} {list(half.shape)}" for half in (blocks, scales))
            raise WeightsError(f"{found}: no MXFP4, U8 [E, O, G, 16] and [E, O, G]", next=AGAIN)
        experts, rows, count = scales.shape
        yield Group(name, {"blocks": blocks.name, "scales": scales.name}, (experts, rows, count * GROUP), "MXFP4")


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    """Raises WeightsError: a scale is NaN."""
    from pellucid.quant._mxfp4 import Mxfp4

    if (broken := int((parts["scales"] == NAN).sum())) > 0:
        what = f"{group.parts['scales']} has {broken} scales of {NAN}, which is NaN"
        raise WeightsError(what, next=AGAIN)
    return Mxfp4({name: part.flatten(0, 1) for name, part in parts.items()}, None, group.shape)
