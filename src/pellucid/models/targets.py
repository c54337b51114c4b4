"""What `pellucid quantize` can write: one row for each target, whose module is imported when it runs. No torch here.

    report = TARGETS["q4_k_m"].run(Path("model"), Path("model.gguf"), Options())

A target's function reads the source one tensor at a time, writes beside the old files and renames, and tells
`options.progress` of each tensor. The rows of GGUF kinds are `GGUF` below; those of safetensors formats `SAFETENSORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pellucid.errors import ArgumentError, nearest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    what: of the step, such as a tensor's name in the file that is written.
    done, tensors: how many are written, of how many.
    read, written: bytes so far.
    """

    what: str
    done: int
    tensors: int
    read: int
    written: int


@dataclass(frozen=True)
class Options:
    """What a user asks of a run.

    text: for calibration; one text, as long as there is.
    importance: weight of each input column, by the name of a matrix in the model: `blocks.3.mlp.down.weight` -> [in].
    settings: what one target understands (`group_size`), checked by it.
    says: further metadata of a GGUF file, by keys without the architecture before them (`pooling_type`).
    progress: told of each tensor, in the thread that works; what it raises ends the run, and no file is left.
    """

    text: str | None = None
    importance: Mapping[str, Tensor] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    says: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[Progress], None] = lambda step: None


@dataclass(frozen=True)
class Report:
    """What a run wrote.

    kinds: kind of the tensors -> how many, and their bytes.
    before, after: bytes of all tensors.
    """

    files: list[Path]
    kinds: Mapping[str, tuple[int, int]]
    before: int
    after: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """One row.

    help: for `pellucid quantize --list`, one line.
    container: "gguf" is one file whose name ends so, "safetensors" a folder.
    calibrated: whether it needs a text.
    runner: "module:function", called with source, out, options and `given`.
    settings: names that `Options.settings` may have.
    given: further keywords of the function, which tell targets of one module apart.
    """

    name: str
    help: str
    container: Literal["gguf", "safetensors"]
    runner: str
    calibrated: bool = False
    settings: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    def run(self, source: Path, out: Path, options: Options) -> Report:
        """Writes `out`.

        Raises:
            ArgumentError: a setting that the target lacks, or a text that it needs and that is not given.
            ConfigError, WeightsError, Unsupported: the source cannot be read, or has no form in the container.
        """
        if self.calibrated and not options.text:
            what = f"{self.name} is fitted to what a model computes for a text, and none is given"
            raise ArgumentError(what, where="--calibrate", next="give --calibrate FILE, with text of the usual kind")
        for name in options.settings:
            if name not in self.settings:
                known = ", ".join(self.settings) or "it has none"
                raise ArgumentError(
                    f"{self.name} has no setting {name!r}", where=name, next=nearest(name, self.settings) or known
                )
        module, _, function = self.runner.partition(":")
        report: Report = getattr(import_module(module), function)(source, out, options, **self.given)
        return report


def _gguf(name: str, help: str) -> Target:
    return Target(name, help, "gguf", "pellucid.models.gguf_target:quantize", given={"to": name})


GGUF = [
    _gguf("f32", "32 bits: every number as it is"),
    _gguf("f16", "16 bits, IEEE"),
    _gguf("bf16", "16 bits, with float32's range"),
    _gguf("q8_0", "8.5 bits: a scale for 32 numbers"),
    _gguf("q4_0", "4.5 bits: a scale for 32 numbers"),
    _gguf("q4_1", "5 bits: a scale and a minimum for 32 numbers"),
    _gguf("q5_0", "5.5 bits: a scale for 32 numbers"),
    _gguf("q5_1", "6 bits: a scale and a minimum for 32 numbers"),
    _gguf("q2_k", "about 3.2 bits: most matrices in 2.6, some in 3.4 or more"),
    _gguf("q3_k_s", "about 3.5 bits"),
    _gguf("q3_k_m", "about 3.9 bits: values and downward matrices in more"),
    _gguf("q3_k_l", "about 4.3 bits: those in 5.5"),
    _gguf("q4_k_s", "about 4.6 bits"),
    _gguf("q4_k_m", "about 4.9 bits: half of the values and downward matrices in 6.6; the usual choice"),
    _gguf("q5_k_s", "about 5.5 bits"),
    _gguf("q5_k_m", "about 5.7 bits: half of the values and downward matrices in 6.6"),
    _gguf("q6_k", "6.6 bits"),
    _gguf("iq4_nl", "4.5 bits: 16 values that lie closer near zero"),
    _gguf("iq4_xs", "4.25 bits: the same, eight scales in one"),
    _gguf("mxfp4", "4.25 bits: values of E2M1, a power of two for 32 (OCP Microscaling)"),
]

GPTQ = ("group_size", "act_order", "symmetric", "damp")


def _packed(name: str, help: str, *settings: str) -> Target:
    """Of those that are fitted to a text, none is `calibrated`: there is a text in the package."""
    runner = "pellucid.models.packing_to_disk:quantize"
    return Target(name, help, "safetensors", runner, settings=settings, given={"to": name})


# name, help, container, "module:function"; `calibrated`, `settings` and `given` where there are some.
SAFETENSORS = [
    _packed("nf4", "4.1 bits: bitsandbytes' NF4, its scales packed too", "double"),
    _packed("fp4", "4.5 bits: bitsandbytes' FP4", "double"),
    _packed("int8", "8 bits: LLM.int8(), with outliers as they are"),
    _packed("fp8", "8 bits: float8 with a scale for 128 by 128 numbers; of whole blocks"),
    _packed("hqq-4", "4.5 bits: HQQ", "bits", "group_size"),
    _packed("w8a16", "8 bits: compressed-tensors, a scale for each row"),
    _packed("w4a16", "4.1 bits: compressed-tensors, a scale for 128 numbers", "group_size"),
    _packed("gptq-2", "2.3 bits: GPTQ, fitted to a text", *GPTQ),
    _packed("gptq-3", "3.3 bits: GPTQ, fitted to a text", *GPTQ),
    _packed("gptq-4", "4.3 bits: GPTQ, fitted to a text", *GPTQ),
    _packed("gptq-8", "8.3 bits: GPTQ, fitted to a text", *GPTQ),
    _packed("awq-4", "4.2 bits: AWQ, fitted to a text", "group_size"),
]

TARGETS: dict[str, Target] = {target.name: target for target in [*GGUF, *SAFETENSORS]}


def find(name: str) -> Target:
    """The row of a name, in either case.

    Raises:
        ArgumentError: there is none.
    """
    found = TARGETS.get(name.lower().replace("-", "_")) or TARGETS.get(name.lower())
    if found is None:
        hint = nearest(name.lower(), TARGETS) or f"there are {', '.join(TARGETS)}"
        raise ArgumentError(f"no target {name!r}", where="--to", next=hint)
    return found
