"""`BitsAndBytesConfig` and its short forms: how to pack a checkpoint while it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pellucid.errors import ArgumentError, Unsupported, strict
from pellucid.models.plan import Plan
from pellucid.models.quantizing import Quantize

STORAGES = ("uint8", "int8", "float16", "bfloat16", "float32", "float64")


class BitsAndBytesConfig:
    """How bitsandbytes packs the linear layers of a model.

    Args:
        load_in_4bit: to NF4 or FP4, in blocks of 64.
        load_in_8bit: to LLM.int8().
        llm_int8_threshold: from which magnitude on an input is multiplied as it is; 0 for never.
        llm_int8_skip_modules: names or patterns of modules that stay as they are; None for heads.
        bnb_4bit_quant_type: "nf4" or "fp4".
        bnb_4bit_use_double_quant: whether the scales are packed, too.
        bnb_4bit_quant_storage: the dtype that the bytes are stored as.
        bnb_4bit_compute_dtype: for inputs in float16, in the library. Here, and there for other inputs, a layer
            computes in the dtype of the model. Written into config.json.
        llm_int8_enable_fp32_cpu_offload: of no effect: any model runs on a CPU.
        llm_int8_has_fp16_weight: True is refused: such weights are not packed.

    Raises:
        ArgumentError: both widths, or a value that none of these is.
    """

    quant_method = "bitsandbytes"

    @strict
    def __init__(
        self,
        load_in_8bit: bool = False,
        load_in_4bit: bool = False,
        llm_int8_threshold: float = 6.0,
        llm_int8_skip_modules: list[str] | None = None,
        llm_int8_enable_fp32_cpu_offload: bool = False,
        llm_int8_has_fp16_weight: bool = False,
        bnb_4bit_compute_dtype: torch.dtype | str | None = None,
        bnb_4bit_quant_type: str = "fp4",
        bnb_4bit_use_double_quant: bool = False,
        bnb_4bit_quant_storage: torch.dtype | str | None = None,
    ) -> None:
        flags = {
            "load_in_8bit": load_in_8bit, "load_in_4bit": load_in_4bit,
            "bnb_4bit_use_double_quant": bnb_4bit_use_double_quant,
            "llm_int8_has_fp16_weight": llm_int8_has_fp16_weight,
            "llm_int8_enable_fp32_cpu_offload": llm_int8_enable_fp32_cpu_offload,
        }  # fmt: skip
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise ArgumentError(f"{name}={value!r}", where=name, next="use True or False")
        if load_in_4bit and load_in_8bit:
            raise ArgumentError("both load_in_4bit and load_in_8bit", where="BitsAndBytesConfig", next="choose one")
        if llm_int8_has_fp16_weight:
            what = "llm_int8_has_fp16_weight keeps weights in 16 bits"
            raise Unsupported(what, where="llm_int8_has_fp16_weight", next="leave it out")
        threshold = llm_int8_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not threshold >= 0:
            what = f"llm_int8_threshold={threshold!r}"
            raise ArgumentError(what, where="llm_int8_threshold", next="use a number such as 6.0, or 0 for none")
        skip = llm_int8_skip_modules
        if skip is not None and not (isinstance(skip, (list, tuple)) and all(isinstance(each, str) for each in skip)):
            what = f"llm_int8_skip_modules={skip!r}"
            raise ArgumentError(what, where="llm_int8_skip_modules", next="give a list of module names")
        if bnb_4bit_quant_type not in ("nf4", "fp4"):
            what = f"bnb_4bit_quant_type={bnb_4bit_quant_type!r}"
            raise ArgumentError(what, where="bnb_4bit_quant_type", next="use 'nf4' or 'fp4'")
        self.load_in_8bit, self.load_in_4bit = load_in_8bit, load_in_4bit
        self.llm_int8_threshold = float(threshold)
        self.llm_int8_skip_modules = None if skip is None else list(skip)
        self.llm_int8_enable_fp32_cpu_offload = llm_int8_enable_fp32_cpu_offload
        self.llm_int8_has_fp16_weight = llm_int8_has_fp16_weight
        self.bnb_4bit_compute_dtype = _dtype("bnb_4bit_compute_dtype", bnb_4bit_compute_dtype, STORAGES[2:], "float32")
        self.bnb_4bit_quant_type = bnb_4bit_quant_type
        self.bnb_4bit_use_double_quant = bnb_4bit_use_double_quant
        self.bnb_4bit_quant_storage = _dtype("bnb_4bit_quant_storage", bnb_4bit_quant_storage, STORAGES, "uint8")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BitsAndBytesConfig:
        """From config.json's `quantization_config`."""
        if not isinstance(values, Mapping) or values.get("quant_method", cls.quant_method) != cls.quant_method:
            raise ArgumentError(
                f"quantization_config={values!r:.200}",
                where="quantization_config",
                next="give a BitsAndBytesConfig, or load a checkpoint that is packed in another format",
            )
        return cls(**{key: value for key, value in values.items() if key != "quant_method" and key[0] != "_"})

    def to_dict(self) -> dict[str, Any]:
        """As config.json says it."""
        dtypes = ("bnb_4bit_compute_dtype", "bnb_4bit_quant_storage")
        said = {key: str(value).removeprefix("torch.") if key in dtypes else value for key, value in vars(self).items()}
        return {"quant_method": self.quant_method, **said}

    def is_quantizable(self) -> bool:
        """Whether it asks for anything."""
        return self.load_in_4bit or self.load_in_8bit

    def quantization_method(self) -> str | None:
        """ "llm_int8", "nf4", "fp4", or None."""
        if self.load_in_8bit:
            return "llm_int8"
        return self.bnb_4bit_quant_type if self.load_in_4bit else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BitsAndBytesConfig) and other.to_dict() == self.to_dict()

    def __repr__(self) -> str:
        return f"BitsAndBytesConfig({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"


def _dtype(name: str, given: torch.dtype | str | None, allowed: tuple[str, ...], usual: str) -> torch.dtype:
    word = usual if given is None else str(given).removeprefix("torch.")
    if word not in allowed:
        raise ArgumentError(f"{name}={given!r}", where=name, next=f"use one of {', '.join(allowed)}")
    found: torch.dtype = getattr(torch, word)
    return found


def asked_for(config: Any, load_in_4bit: object, load_in_8bit: object) -> Quantize | None:
    """What `from_pretrained` was told of packing; None for nothing.

    Args:
        config: a BitsAndBytesConfig, the reference's own, or a dict of the same keys.
    """
    for name, value in (("load_in_4bit", load_in_4bit), ("load_in_8bit", load_in_8bit)):
        if value not in (None, True, False):
            raise ArgumentError(f"{name}={value!r}", where=name, next="use True or False")
        if value and config is not None:
            raise ArgumentError(f"{name} beside quantization_config", where=name, next="say it in the config")
    if config is None:
        config = BitsAndBytesConfig(load_in_4bit=bool(load_in_4bit), load_in_8bit=bool(load_in_8bit))
    if not isinstance(config, BitsAndBytesConfig):
        config = BitsAndBytesConfig.from_dict(_values(config))
    return quantize(config) if config.is_quantizable() else None


def planned(plan: Plan | None) -> BitsAndBytesConfig | None:
    """How a plan packs matrices while loading; None for not at all.

    Raises:
        Unsupported: a kind that only files have.
    """
    match getattr(plan, "quantization", None):
        case None:
            return None
        case "nf4" | "fp4" as kind:
            return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind)
        case "int8":
            return BitsAndBytesConfig(load_in_8bit=True)
        case kind:
            advice = f"write it first: pellucid quantize IN OUT --to {kind}"
            raise Unsupported(f"a plan that packs to {kind} while loading", where="plan", next=advice)


def _values(config: Any) -> Any:
    """A dict of the keys of another library's object."""
    values = config.to_dict() if callable(getattr(config, "to_dict", None)) else config
    if isinstance(values, Mapping) and "quant_method" in values:
        values = {**values, "quant_method": str(getattr(values["quant_method"], "value", values["quant_method"]))}
    return values


def quantize(config: BitsAndBytesConfig) -> Quantize:
    """What a config means for the loader."""
    from pellucid.quant._bitsandbytes import eight_bit, four_bit

    kind = config.quantization_method() or ""
    skip, says = config.llm_int8_skip_modules, config.to_dict()
    if config.load_in_8bit:
        threshold = config.llm_int8_threshold
        return Quantize(lambda numbers: eight_bit(numbers, threshold=threshold), "LLM.int8()", skip, says)
    double, storage = config.bnb_4bit_use_double_quant, config.bnb_4bit_quant_storage
    return Quantize(
        lambda numbers: four_bit(numbers, kind, double=double, storage=storage),
        kind.upper() + (", double" if double else ""), skip, says,
    )  # fmt: skip
