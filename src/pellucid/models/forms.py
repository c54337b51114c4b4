"""The packed formats that `pellucid quantize` writes as safetensors: what a matrix becomes, and what config.json says.

A form is data: `FORMS[to](settings)`. Where it has `pack`, each matrix is packed by itself; where it is fitted to a
text, `models/fitting.py` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.ops.packed import PackedTensor
from pellucid.quant._bitsandbytes import eight_bit, four_bit
from pellucid.quant._columns import awq, gptq
from pellucid.quant._gptq_rounding import Rounded, Rounding
from pellucid.quant._hqq import hqq
from pellucid.quant._scaled import BLOCK, fp8_blocks, in_words

WHOLE = -1  # a group of all inputs


@dataclass(frozen=True)
class Form:
    """One format with its settings.

    Args:
        kind: what people call it.
        says: names of the linear layers that stay as they are -> config.json's `quantization_config`.
        pack: numbers [O, I] -> the same packed; None where it is fitted to a text.
        fitted: by which method.
        rounding: of a fitted one.
        finish: what it rounds to -> packed.
        multiple: what O and I must be multiples of.
        least: sizes up to this one need not be.
    """

    kind: str
    says: Callable[[list[str]], dict[str, Any]]
    pack: Callable[[Tensor], PackedTensor] | None = None
    fitted: Literal["gptq", "awq"] | None = None
    rounding: Rounding = field(default_factory=Rounding)
    finish: Callable[[Rounded, Any], PackedTensor] | None = None
    multiple: tuple[int, int] = (1, 1)
    least: int = 0

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether a matrix has a form."""
        return all(size % each == 0 or size <= self.least for size, each in zip(shape, self.multiple))


def _bitsandbytes(settings: Mapping[str, Any], kind: str) -> Form:
    four = kind in ("nf4", "fp4")
    double = _yes(settings, "double", kind == "nf4")

    def says(left: list[str]) -> dict[str, Any]:
        return {
            "quant_method": "bitsandbytes", "load_in_4bit": four, "load_in_8bit": not four,
            "_load_in_4bit": four, "_load_in_8bit": not four, "bnb_4bit_quant_type": kind if four else "fp4",
            "bnb_4bit_use_double_quant": four and double, "bnb_4bit_compute_dtype": "float32",
            "bnb_4bit_quant_storage": "uint8", "llm_int8_threshold": 6.0, "llm_int8_skip_modules": left,
            "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False,
        }  # fmt: skip

    if not four:
        return Form("LLM.int8()", says, eight_bit)
    return Form(
        kind.upper() + (", double" if double else ""), says, lambda numbers: four_bit(numbers, kind, double=double)
    )


def _fp8(settings: Mapping[str, Any]) -> Form:
    def says(left: list[str]) -> dict[str, Any]:
        block = [BLOCK, BLOCK]
        return {
            "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": block,
            "modules_to_not_convert": left,
        }  # fmt: skip

    # transformers takes a block to be size / number of blocks: right where blocks are whole, or there is one
    return Form("FP8", says, fp8_blocks, multiple=(BLOCK, BLOCK), least=BLOCK)


def _hqq(settings: Mapping[str, Any]) -> Form:
    bits, group = _one_of(settings, "bits", 4, (8, 4, 2)), _group(settings, 64)

    def says(left: list[str]) -> dict[str, Any]:
        how = {
            "nbits": bits, "group_size": group, "axis": 1, "channel_wise": True, "optimize": True,
            "round_zero": bits == 4, "view_as_float": False,
        }  # fmt: skip
        parts = {"weight_quant_params": how, "scale_quant_params": None, "zero_quant_params": None}
        return {"quant_method": "hqq", "quant_config": {**parts, "offload_meta": False}, "skip_modules": left}

    return Form(f"HQQ {bits}-bit", says, lambda numbers: hqq(numbers, bits, group), multiple=(8 // bits, group))


def _compressed(settings: Mapping[str, Any], bits: int) -> Form:
    group = _group(settings, 128) if bits == 4 else WHOLE

    def says(left: list[str]) -> dict[str, Any]:
        weights = {
            "num_bits": bits, "type": "int", "symmetric": True, "dynamic": False, "observer": "minmax",
            "strategy": "group" if bits == 4 else "channel", "group_size": group if bits == 4 else None,
            "actorder": None, "block_structure": None,
        }  # fmt: skip
        groups = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
        return {
            "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
            "config_groups": {"group_0": groups}, "ignore": left, "kv_cache_scheme": None,
        }  # fmt: skip

    kind, multiple = f"int{bits} in words", (1, group if bits == 4 else 1)
    return Form(kind, says, lambda numbers: in_words(numbers, bits, group), multiple=multiple)


def _gptq(settings: Mapping[str, Any], bits: int) -> Form:
    group, scattered = _group(settings, 128), _yes(settings, "act_order", False)
    how = Rounding(
        bits, group, symmetric=_yes(settings, "symmetric", True), neighbours=not scattered,
        damp=_number(settings, "damp", 0.01),
    )  # fmt: skip

    def says(left: list[str]) -> dict[str, Any]:
        return {
            "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": scattered, "sym": how.symmetric,
            "damp_percent": how.damp, "static_groups": not scattered, "true_sequential": False, "lm_head": False,
            "checkpoint_format": "gptq", "pack_dtype": "int32",
            "dynamic": {f"-:^{name.replace('.', chr(92) + '.')}$": {} for name in left},
        }  # fmt: skip

    return Form(
        f"GPTQ {bits}-bit", says, fitted="gptq", rounding=how, multiple=(32, max(group, 32)),
        finish=lambda found, dtype: gptq(found, bits, dtype),
    )  # fmt: skip


def _awq(settings: Mapping[str, Any]) -> Form:
    group = _group(settings, 128)

    def says(left: list[str]) -> dict[str, Any]:
        return {
            "quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": left,
        }  # fmt: skip

    how = Rounding(4, group, symmetric=False)
    return Form("AWQ 4-bit", says, fitted="awq", rounding=how, finish=awq, multiple=(8, group))


FORMS: dict[str, Callable[[Mapping[str, Any]], Form]] = {
    "nf4": lambda settings: _bitsandbytes(settings, "nf4"),
    "fp4": lambda settings: _bitsandbytes(settings, "fp4"),
    "int8": lambda settings: _bitsandbytes(settings, "int8"),
    "fp8": _fp8,
    "hqq-4": _hqq,
    "w8a16": lambda settings: _compressed(settings, 8),
    "w4a16": lambda settings: _compressed(settings, 4),
    "gptq-2": lambda settings: _gptq(settings, 2),
    "gptq-3": lambda settings: _gptq(settings, 3),
    "gptq-4": lambda settings: _gptq(settings, 4),
    "gptq-8": lambda settings: _gptq(settings, 8),
    "awq-4": _awq,
}


def _group(settings: Mapping[str, Any], usual: int) -> int:
    size = settings.get("group_size", usual)
    if isinstance(size, bool) or not isinstance(size, int) or size < 8 or size % 8:
        raise ArgumentError(f"group_size={size!r}", where="group_size", next="give a multiple of 8, such as 32 or 128")
    return size


def _yes(settings: Mapping[str, Any], name: str, usual: bool) -> bool:
    value = settings.get(name, usual)
    if not isinstance(value, bool):
        raise ArgumentError(f"{name}={value!r}", where=name, next=f"{name}=true or {name}=false")
    return value


def _number(settings: Mapping[str, Any], name: str, usual: float) -> float:
    value = settings.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ArgumentError(f"{name}={value!r}", where=name, next=f"a share between 0 and 1, such as {usual}")
    return float(value)


def _one_of(settings: Mapping[str, Any], name: str, usual: int, known: tuple[int, ...]) -> int:
    value = settings.get(name, usual)
    if isinstance(value, bool) or value not in known:
        raise ArgumentError(f"{name}={value!r}", where=name, next=f"one of {', '.join(map(str, known))}")
    return int(value)
