"""A spec in a few words: what sets a family apart, for lists of families. `_describe.py` says all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pellucid import spec as s

NAMES = {
    s.PreNorm: "pre-norm", s.PostNorm: "post-norm", s.OutNorm: "norm after each part", s.Sandwich: "sandwich norms",
    s.Parallel: "parallel parts", s.LearnedPositions: "learned positions", s.Sinusoidal: "sinusoidal positions",
    s.RelativeBias: "bias by distance", s.Alibi: "ALiBi", s.LatentAttention: "latent attention",
    s.ShortConv: "short convolutions", s.DeltaNet: "gated delta rule", s.Mamba: "Mamba", s.Mamba2: "Mamba 2",
    s.Wkv: "WKV", s.QkNorm: "q/k norms", s.Gate: "gated attention", s.Temperature: "attention temperature",
    s.SharedExpert: "a shared expert",
}  # fmt: skip


def words(spec: s.Spec) -> list[str]:
    """Each part's words once, in the order in which a token meets them."""
    found = ["encoder-decoder"] if spec.encoder else []
    for stack in (spec.encoder, spec.stack):
        for part in walk(stack):
            found += WORDS[type(part)](part) if type(part) in WORDS else []
    return list(dict.fromkeys(found))


def walk(part: Any) -> Iterator[Any]:
    """A part of a spec, and all parts below it."""
    yield part
    below: Any = ()
    if is_dataclass(part):
        below = [getattr(part, f.name) for f in fields(part)]
    elif isinstance(part, tuple):
        below = dict.fromkeys(part)  # equal blocks once
    for each in below:
        yield from walk(each)


def attention(part: s.Attention) -> list[str]:
    heads = "one key head" if part.kv_heads == 1 else "grouped queries"
    said = {
        heads: part.kv_heads != part.heads,
        "windows": part.window,
        "chunks": part.chunk,
        "capped scores": part.cap,
        "sinks": part.sinks,
        "clipped q, k, v": part.clip,
        "keys of earlier layers": part.kv_from is not None,
    }
    return [name for name, wanted in said.items() if wanted]


def mlp(part: s.Mlp) -> list[str]:
    match part.act:
        case s.ClampedGlu():
            return ["clamped gate"]
        case s.Custom():
            return custom(part.act)
        case act:
            return [f"gated {act}" if part.gated else act]


def custom(part: s.Custom) -> list[str]:
    """`pellucid.families.xlnet.relative:RelativeAttention` as "relative attention"."""
    name = part.path.rpartition(":")[2]
    return [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()]


def named(part: Any) -> list[str]:
    return [NAMES[type(part)]]


WORDS: Mapping[type, Callable[[Any], list[str]]] = {
    **dict.fromkeys(NAMES, named),
    s.RmsNorm: lambda part: ["RMS norms"],
    s.LayerNorm: lambda part: ["layer norms"],
    s.Rope: lambda part: ["rotary on several axes" if part.sections else "rotary"],
    s.Attention: attention,
    s.Mlp: mlp,
    s.Moe: lambda part: [f"{part.router.top_k} of {part.experts} experts"],
    s.Stack: lambda part: ["layers that repeat"] if part.depth else [],
    s.Custom: custom,
}
