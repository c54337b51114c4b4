"""bitsandbytes: NF4 and FP4, with and without double quantization, and LLM.int8(). The bytes: `_bitsandbytes.py`.

    weight U8 [n, 1], weight.absmax, weight.quant_map, weight.quant_state.bitsandbytes__nf4 (JSON), and where the
        magnitudes are packed weight.nested_absmax, weight.nested_quant_map
    weight I8 [R, I], SCB, weight_format

Layout: `Linear4bit` and `Linear8bitLt` of github.com/bitsandbytes-foundation/bitsandbytes as they save themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import Unsupported, WeightsError
from pellucid.quant import _layers
from pellucid.quant.format import Entries, Group
from pellucid.weights.safetensors import DTYPES

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.ops.packed import PackedTensor

STATE = ".quant_state.bitsandbytes__"
SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
AGAIN = "download the checkpoint again"
MAX_STATE = 4096  # bytes of JSON


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterator[Group]:
    for name in entries:
        if STATE in name:
            yield _four_bit(entries, *name.split(STATE, 1))
        elif name.endswith("SCB"):  # of in_proj_weight: in_proj_SCB
            yield _eight_bit(entries, name.removesuffix("SCB"))


def _four_bit(entries: Entries, name: str, kind: str) -> Group:
    """A weight by its name and its kind of table."""
    if kind not in ("nf4", "fp4"):
        raise Unsupported(f"{name} is packed as {kind!r}", where=name, next="this version reads nf4 and fp4")
    parts = {"weight": name} | {part: f"{name}.{part}" for part in ("absmax", "quant_map")}
    state = _state(entries, f"{name}{STATE}{kind}")
    shape, size = tuple(state["shape"]), state["blocksize"]
    n = math.prod(shape)
    blocks = -(-n // size)
    wanted = {"absmax": blocks, "quant_map": 16}
    if nested := state.get("nested_blocksize", 0):
        parts |= {part: f"{name}.{part}" for part in ("nested_absmax", "nested_quant_map")}
        wanted |= {"nested_absmax": -(-blocks // nested), "nested_quant_map": 256}
    if state.get("quant_type") != kind:
        raise WeightsError(f"{name}{STATE}{kind} says quant_type {state.get('quant_type')!r}", next=AGAIN)
    for part, count in wanted.items():
        entry = entries.get(parts[part])
        dtype = "U8" if part == "absmax" and nested else "F32"
        if entry is None or math.prod(entry.shape) != count or entry.dtype != dtype:
            what = "missing" if entry is None else f"{entry.dtype} {list(entry.shape)}"
            raise WeightsError(f"{parts[part]} is {what}, and should be {dtype} [{count}]", where=name, next=AGAIN)
    entry = entries.get(name)
    held = 0 if entry is None or entry.dtype not in DTYPES else math.prod(entry.shape) * DTYPES[entry.dtype][0] // 8
    if held != (n + 1) // 2:
        raise WeightsError(f"{name} has {held} bytes, and {list(shape)} in 4 bits are {(n + 1) // 2}", next=AGAIN)
    label = kind.upper() + (", double" if nested else "")
    return Group(name, parts | {"quant_state": f"{name}{STATE}{kind}"}, shape, label, state)


def _state(entries: Entries, name: str) -> dict[str, Any]:
    """The JSON of a matrix, checked."""
    if entries[name].dtype != "U8" or entries[name].nbytes > MAX_STATE:
        raise WeightsError(f"{name} is {entries[name].dtype} {list(entries[name].shape)}, and no JSON", next=AGAIN)
    data = entries.read(name)
    try:
        state = json.loads(data)
        right = (
            isinstance(state, dict)
            and len(state["shape"]) == 2
            and all(type(side) is int and 0 < side < 2**40 for side in state["shape"])
            and state["blocksize"] in SIZES
            and type(state.get("nested_blocksize", 256)) is int
            and state.get("nested_blocksize", 256) in SIZES
            and math.isfinite(state.get("nested_offset", 0.0 if "nested_blocksize" not in state else math.nan))
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise WeightsError(f"{name} says {data[:200]!r}, no shape and block size of a matrix", next=AGAIN)
    return dict(state)


def _eight_bit(entries: Entries, stem: str) -> Group:
    """A weight by what its names begin with."""
    name, weight, scale = f"{stem}weight", entries.get(f"{stem}weight"), entries[f"{stem}SCB"]
    if weight is None or weight.dtype != "I8" or len(weight.shape) != 2:
        what = "missing" if weight is None else f"{weight.dtype} {list(weight.shape)}"
        raise WeightsError(f"{name} is {what}, and should be a matrix of I8", where=name, next=AGAIN)
    if scale.dtype != "F32" or scale.shape != weight.shape[:1]:
        what = f"{scale.dtype} {list(scale.shape)} for {weight.shape[0]} rows"
        raise WeightsError(f"{stem}SCB is {what}", where=name, next=AGAIN)
    parts = {"weight": name, "SCB": f"{stem}SCB"}
    if f"{stem}weight_format" in entries:
        parts["weight_format"] = f"{stem}weight_format"
    return Group(name, parts, tuple(weight.shape), "LLM.int8()")


def way(kind: str) -> str:
    return "whole numbers, outliers as they are" if kind == "LLM.int8()" else _layers.way(kind)


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    from pellucid.quant._bitsandbytes import Blocks, FourBit, Int8

    state = group.options
    if state:
        nested, offset = state.get("nested_blocksize", 0), float(state.get("nested_offset", 0.0))
        return FourBit(parts, Blocks(state["quant_type"], state["blocksize"], nested, offset), group.shape)
    if (layout := parts.get("weight_format")) is not None and int(layout.flatten()[0]) != 0:
        raise Unsupported(
            f"{group.name} lies in the order of another machine's kernels (weight_format {int(layout.flatten()[0])})",
            where=group.name,
            next="save the checkpoint again with a newer bitsandbytes",
        )
    threshold = options.get("llm_int8_threshold", 6.0)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not threshold >= 0:
        what = f"llm_int8_threshold is {threshold!r}"
        raise WeightsError(what, where="config.json", next="set it to 6.0, or to 0 for no outliers")
    return Int8(parts, float(threshold), group.shape)
