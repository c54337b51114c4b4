"""FP8 as FBGEMM has it: numbers in float8 (E4M3) with a scale for each row, X.weight_scale [O, 1]. See `fp8.py`.

`activation_scale_ub` bounds the scales of activations, which are not rounded here.
Layout: transformers' FbgemmFp8Config; huggingface.co/meta-llama/Llama-3.1-405B-Instruct-FP8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pellucid.quant.format import Entries, Group
from pellucid.quant.fp8 import pack, scaled, way


def groups(entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
    return scaled(entries, None)


__all__ = ["groups", "pack", "way"]
