"""HQQ: 1 to 8 bits a number, with a scale and a zero point, both fractions, for each group.

The matrix [O, I], row after row, is cut into a table [K, C]: with `axis` 1 each row of the table is a group, with 0
each column. The table is cut from top to bottom into as many parts as numbers go into a byte (or ten into an int32, of
3 bits), which lie over each other, the first in the highest bits.

    X.W_q              uint8 or int32 [K / parts, C]
    X.scale, X.zero    float [K, 1] or [1, C]
    X.shape, X.nbits, X.axis, X.packing, …   settings, as tensors: a number, or the characters of a name

    table[k, c] = (q[k, c] - zero) · scale

Layout: github.com/mobiusml/hqq, `HQQLinear.state_dict` as safetensors has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import WeightsError
from pellucid.quant import _layers
from pellucid.quant._layers import FLOATS, expect, modules, parts, refuse
from pellucid.quant.format import Entries, Group
from pellucid.weights.safetensors import AGAIN

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.ops.packed import PackedTensor

NEEDED = ("W_q", "scale", "zero", "shape", "nbits", "axis", "packing")
REFUSED = ("view_as_float", "quant_scale", "quant_zero")
KEPT = (
    *REFUSED, "group_size", "unpack_view_dtype", "compute_dtype", "channel_wise", "optimize", "round_zero",
    "encoded_state_dict", "stores_quant_config", "offload_meta",
)  # fmt: skip
PACKINGS = {"8bit_u8": (8, 1), "4bit_u8": (4, 2), "3bit_32": (3, 10), "2bit_u8": (2, 4), "1bit_u8": (1, 8)}


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
    for module in modules(entries, "W_q"):
        found = parts(entries, module, NEEDED, KEPT)

        def number(part: str, found: Mapping[str, str] = found) -> int:
            return int.from_bytes(entries.read(found[part]), "little")

        for part in REFUSED:
            if part in found and number(part):
                refuse(found[part], True)
        name, axis = entries.read(found["packing"]).decode("ascii", "replace"), number("axis")
        if name not in PACKINGS:
            refuse(found["packing"], name)
        if axis not in (0, 1):
            refuse(found["axis"], axis)
        bits, each = PACKINGS[name]
        shape = _shape(entries, found["shape"])
        packed = entries[found["W_q"]]
        columns = packed.shape[-1] if packed.shape else 0
        if columns < 1 or math.prod(shape) % columns:
            what = f"{packed.name} {list(packed.shape)} is no table of the numbers of {list(shape)}"
            raise WeightsError(what, next=AGAIN)
        rows = math.prod(shape) // columns
        expect(packed, ("I32",) if name.endswith("_32") else ("U8",), (-(-rows // each), columns))
        for part in ("scale", "zero"):
            expect(entries[found[part]], FLOATS, (rows, 1) if axis else (1, columns))
        form = {"bits": bits, "each": each, "columns": columns}
        yield Group(f"{module}weight", found, shape, f"HQQ {bits}-bit", form)


def _shape(entries: Entries, name: str) -> tuple[int, int]:
    expect(entries[name], ("I64", "I32"), (2,))
    data = entries.read(name)
    half = len(data) // 2
    return int.from_bytes(data[:half], "little"), int.from_bytes(data[half:], "little")


def way(kind: str) -> str:
    from pellucid.quant import TILES

    return TILES if kind == "HQQ 8-bit" else _layers.way(kind)


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    from pellucid.quant._hqq import Hqq

    return Hqq(parts, (group.options["bits"], group.options["each"]), group.shape)
