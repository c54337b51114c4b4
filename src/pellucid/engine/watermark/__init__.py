"""Watermarks: a text that a model wrote can be told from others by whoever has the key.

Two kinds, with the numbers of transformers 5.23, so that either library detects what the other wrote: green lists
(`green.py`) and SynthID-Text (`synthid.py`). `watermark_rule` gives the rule of a config; detectors, of the functions
here, are in `compat/watermarking.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pellucid.engine.rules.rule import Rule
from pellucid.engine.watermark.configs import SynthIDTextWatermarkingConfig, WatermarkingConfig
from pellucid.engine.watermark.green import GreenList
from pellucid.engine.watermark.synthid import SynthId, Tournament
from pellucid.errors import ArgumentError

Watermark = WatermarkingConfig | SynthIDTextWatermarkingConfig


def watermark_of(wanted: object) -> Watermark | None:
    """The config that `watermarking_config=` names: one of ours, the dict of one, or an object that has `to_dict`.

    Raises:
        ArgumentError: it is none, or a value is out of range.
    """
    if wanted is None:
        return None
    found = wanted
    if not isinstance(found, Mapping | Watermark) and callable(getattr(wanted, "to_dict", None)):
        found = wanted.to_dict()  # type: ignore[attr-defined]
    if isinstance(found, Mapping):
        kind = SynthIDTextWatermarkingConfig if {"keys", "ngram_len"} & set(found) else WatermarkingConfig
        needed = [name for name, each in inspect.signature(kind).parameters.items() if each.default is each.empty]
        if missing := [name for name in needed if name not in found]:
            what = f"watermarking_config has no {missing[0]!r}"
            raise ArgumentError(what, where="watermarking_config", next=f"{kind.__name__} needs {', '.join(needed)}")
        found = kind.from_dict(found)
    if not isinstance(found, Watermark):
        what = f"watermarking_config is a {type(wanted).__name__}"
        raise ArgumentError(what, where="watermarking_config", next="a WatermarkingConfig, or its dict")
    found.validate()
    return found


def watermark_rule(wanted: object, vocab: int, begin: int, device: Any = "cpu") -> Rule | None:
    """The rule of a `watermarking_config`; None for none.

    Args:
        wanted: see `watermark_of`.
        vocab: how many logits the model gives.
        begin: how many ids stand before the output; the SynthID watermark begins there.
        device: whose random numbers choose the green list. They differ between devices; a detector needs the same.

    Raises:
        ArgumentError: it is no config, or a value is out of range.
    """
    match watermark_of(wanted):
        case None:
            return None
        case WatermarkingConfig() as config:
            return GreenList(**config.to_dict(), vocab=vocab, device=str(device))
        case SynthIDTextWatermarkingConfig() as config:
            skip, debug = config.skip_first_ngram_calls, config.debug_mode
            return SynthId(Tournament.of(config), begin, skip_first=skip, debug=debug)
