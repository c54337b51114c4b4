"""Which tensors of a GGUF file get more bits than the others. No torch.

A target such as Q4_K_M is a mixture: the matrices that lose most, values and what leads out of a block, are kept in
more bits in some layers. The rules are llama.cpp's, so that a file of ours is of the size and quality that people know
by its name. Facts: src/llama-quant.cpp of github.com/ggml-org/llama.cpp, commit 007dbbf3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pellucid.gguf import TENSOR_TYPES

BLOCK = {kind.name: kind.block for kind in TENSOR_TYPES.values()}

# Target -> the kind of most matrices, and the number that `general.file_type` has for it (llama.h, enum llama_ftype).
BASE = {
    "f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7),
    "q4_0": ("Q4_0", 2), "q4_1": ("Q4_1", 3), "q5_0": ("Q5_0", 8), "q5_1": ("Q5_1", 9),
    "q2_k": ("Q2_K", 10), "q3_k_s": ("Q3_K", 11), "q3_k_m": ("Q3_K", 12), "q3_k_l": ("Q3_K", 13),
    "q4_k_s": ("Q4_K", 14), "q4_k_m": ("Q4_K", 15), "q5_k_s": ("Q5_K", 16), "q5_k_m": ("Q5_K", 17),
    "q6_k": ("Q6_K", 18), "iq4_nl": ("IQ4_NL", 25), "iq4_xs": ("IQ4_XS", 30), "mxfp4": ("MXFP4", 38),
}  # fmt: skip

# What a matrix gets whose rows are no whole blocks of 256: blocks of 32, of at least as many bits.
NARROW = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}

# Parts of names of matrices that stay in 16 or 32 bits: small, and chosen by, or looked up.
WHOLE = ("_norm.", "ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d", "shortconv.conv", "attn_rel_b")

VALUES = ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight")


@dataclass(frozen=True)
class Model:
    """What the rules ask of a model.

    Args:
        grouped: query heads for each key head.
        experts: of a layer; 0 for none.
    """

    architecture: str
    layers: int
    grouped: int = 1
    experts: int = 0


def mixture(
    shapes: Mapping[str, Sequence[int]], target: str, model: Model, *, importance: bool = False
) -> dict[str, str]:
    """Tensor -> kind.

    Args:
        shapes: of all tensors by llama.cpp's names, in the file's order.
        target: a key of BASE.
        importance: whether the encoder knows what matters: some matrices need no more bits then.
    """
    tied = "output.weight" not in shapes
    values = sorted((name for name in shapes if name.endswith(VALUES)), key=_layer)
    downs = sorted((name for name in shapes if "ffn_down" in name and name.endswith("weight")), key=_layer)
    found = {}
    for name, shape in shapes.items():
        kind = BASE[target][0]
        if len(shape) < 2 or not name.endswith("weight") or any(part in name for part in WHOLE):
            kind = "F32"
        elif BLOCK[kind] > 1:
            kind = _kind(name, shape, kind, target, model, tied, values, downs, importance)
        found[name] = _fitting(kind, shape)
    return found


def _layer(name: str) -> int:
    return next((int(step) for step in name.split(".") if step.isdigit()), -1)


def _fitting(kind: str, shape: Sequence[int]) -> str:
    for each in (kind, NARROW.get(kind, kind)):
        if not shape or shape[-1] % BLOCK[each] == 0:
            return each
    return "F16"


def _more(i: int, n: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _kind(
    name: str, shape: Sequence[int], usual: str, target: str, model: Model,
    tied: bool, values: list[str], downs: list[str], importance: bool,
) -> str:  # fmt: skip
    falcon = model.architecture == "falcon"
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        if target == "mxfp4" or falcon or shape[-1] % BLOCK[usual]:
            return "Q8_0"
        return "Q8_0" if usual == "Q8_0" else "Q6_K"
    if target == "mxfp4":  # made for experts
        return "MXFP4" if model.experts == 0 or len(shape) > 2 else "Q8_0"
    if name in values:
        return _of_values(values.index(name), len(values), usual, target, model)
    if "attn_k.weight" in name and model.experts == 8:
        return "Q8_0"
    if name in downs:
        layer = _layer(name) if model.experts > 1 else downs.index(name)
        return _of_down(layer, model.layers, usual, target, falcon, importance)
    if "attn_output.weight" in name:
        if falcon:
            return "Q4_K" if target == "q3_k_l" else usual
        if model.experts == 8:
            return "Q5_K" if target in ("q2_k", "q3_k_s", "q3_k_m", "iq4_nl", "q4_k_s", "q4_k_m", "iq4_xs") else usual
        return {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(target, usual)
    return usual


def _of_values(i: int, n: int, usual: str, target: str, model: Model) -> str:
    """Where few heads share the work the matrix is small, and its errors are shared."""
    if model.experts == 8:
        return "Q8_0"
    match target:
        case "q2_k":
            kind = "Q4_K" if model.grouped >= 4 else "Q3_K"
        case "q3_k_m":
            kind = "Q5_K" if i < 2 else "Q4_K"
        case "q3_k_l":
            kind = "Q5_K"
        case "iq4_nl" | "iq4_xs" if model.grouped >= 4:
            kind = "Q5_K"
        case "q4_k_m" | "q5_k_m" if _more(i, n):
            kind = "Q6_K"
        case "q4_k_s" if i < 4:
            kind = "Q5_K"
        case _:
            kind = usual
    return "Q5_K" if model.layers == 80 and model.grouped == 8 and kind in ("Q3_K", "Q4_K") else kind  # 70 billion


def _of_down(i: int, n: int, usual: str, target: str, falcon: bool, importance: bool) -> str:
    early = i < n // 8
    match target:
        case "q2_k":
            return "Q3_K"
        case "q3_k_m":
            return "Q5_K" if i < n // 16 else "Q3_K" if falcon and not _more(i, n) else "Q4_K"
        case "q3_k_l":
            return "Q4_K" if falcon else "Q5_K"
        case "q4_k_m" if falcon:
            return "Q6_K" if i < n // 16 else "Q5_K" if _more(i, n) else "Q4_K"
        case "q4_k_m" | "q5_k_m" if _more(i, n):
            return "Q6_K"
        case "iq4_nl" | "iq4_xs" if early and not importance:
            return "Q5_K"
        case "q4_k_s" if early and not falcon:
            return "Q5_K"
        case "q4_0" | "q5_0" if early and importance:
            return "Q4_1" if target == "q4_0" else "Q5_1"
    return usual
