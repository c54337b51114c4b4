"""Where each millisecond of a decode step goes, by the kind of work, and the bytes that it reads.

On a CPU most models repeat a recorded step (ops/cpu/steps.py). It is recorded once more while the modules say what they
are, and from then on each of its calls is timed where it is made. Of other models the modules themselves are timed.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from pellucid.engine.engine import Engine
    from pellucid.engine.replayed import Replayed
    from pellucid.models.model import Model

AHEAD = 2  # steps before those that are measured: the second is recorded, where steps are

Wrap = Callable[[str, str, Callable[..., Any]], Callable[..., Any]]  # of a kind, a path and a function

# In the order in which a step meets them.
KINDS = (
    "embedding", "norms", "attention products", "attention", "recurrence", "mlp products", "activation", "residual",
    "head product", "sampling", "rest",
)  # fmt: skip


@dataclass
class Meter:
    """Seconds of each kind that are not those of another kind inside it; and how often each module ran."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    runs: Counter[str] = field(default_factory=Counter)
    _inside: list[float] = field(default_factory=list)  # seconds of what ran within each call that is under way

    def timed(self, kind: str, path: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, measured."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return run(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                self.seconds[kind] += took - self._inside.pop()
                self.runs[path] += 1
                if self._inside:
                    self._inside[-1] += took

        return measured

    def labelled(self, kind: str, path: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`; what is recorded meanwhile is labelled."""
        from pellucid.ops.cpu import recorder

        def labelled(*args: Any, **kwargs: Any) -> Any:
            recording = recorder.current
            outside, recording.label = recording.label, kind
            self.runs[path] += 1
            try:
                return run(*args, **kwargs)
            finally:
                recording.label = outside

        return labelled


def kind_of(path: str, module: nn.Module) -> str | None:
    """What kind of work a module's own time is; None for one that is counted with what holds it."""
    from pellucid.nn.attention import Attention
    from pellucid.nn.block import Block
    from pellucid.nn.linear import Linear
    from pellucid.nn.mlp import Mlp
    from pellucid.nn.moe import Moe
    from pellucid.nn.parts import Embedding, Layer, Rms

    steps = path.split(".")
    if isinstance(module, Linear):
        if steps[0] == "lm_head":
            return "head product"
        return "mlp products" if "mlp" in steps else "attention products" if "blocks" in steps else "rest"
    if isinstance(module, (Rms, Layer)):
        return "norms"
    if isinstance(module, Embedding):
        return "embedding"
    if isinstance(module, Attention):
        return "attention"
    if isinstance(module, (Mlp, Moe)):
        return "activation"
    if isinstance(module, Block) or steps[-2:-1] == ["blocks"]:
        return "residual"
    return "recurrence" if steps[-1] in ("attn", "mamba") else "head product" if path == "lm_head" else None


@contextmanager
def wrapped(model: Model, wrap: Wrap) -> Iterator[None]:
    """While the block runs, the model's modules go through `wrap`; hooks stay as they are."""
    found = {path: module for path, module in model.named_modules() if path and kind_of(path, module)}
    for path, module in found.items():
        kind = kind_of(path, module)
        assert kind is not None
        module.__dict__["forward"] = wrap(kind, path, module.forward)
    try:
        yield
    finally:
        for module in found.values():
            del module.__dict__["forward"]


@contextmanager
def choices(meter: Meter) -> Iterator[None]:
    """While the block runs, the choice of tokens is measured."""
    from pellucid.engine.decoding.line import Line

    choose = Line.choose
    Line.choose = meter.timed("sampling", "", choose)  # type: ignore[method-assign]  # put back below
    try:
        yield
    finally:
        Line.choose = choose  # type: ignore[method-assign]


def profile(engine: Engine, cached: int, tokens: int) -> list[dict[str, Any]]:
    """The kinds of work in the steps that are left of an engine's one row: milliseconds and bytes of a step.

    Args:
        engine: it has made `AHEAD` steps of the row, and its pages do not grow.
        cached: bytes that attention reads of the cache in a step.
        tokens: of the row in the end.
    """
    made = replays(engine)
    return of_modules(engine, cached) if made is None else of_calls(engine, made, cached, tokens)


def replays(engine: Engine) -> Replayed | None:
    """What repeats the engine's steps; None where they are computed by the modules."""
    from pellucid.engine.replayed import Replayed

    made = engine.main.captured
    return made if isinstance(made, Replayed) and made.recorded else None


def of_modules(engine: Engine, cached: int) -> list[dict[str, Any]]:
    """Of steps that the modules compute."""
    model, meter, steps = engine.main.model, Meter(), 0
    with wrapped(model, meter.timed), choices(meter):
        start = time.perf_counter()
        while engine.busy:
            engine.step()
            steps += 1
        took = time.perf_counter() - start
    meter.seconds["rest"] += took - sum(meter.seconds.values())
    size = bytes_read(model, meter, steps)
    size["attention" if meter.seconds["attention"] else "recurrence"] += cached
    return table(meter.seconds, size, steps)


def of_calls(engine: Engine, made: Replayed, cached: int, tokens: int) -> list[dict[str, Any]]:
    """Of steps that are replayed; and for each kind, the milliseconds of each kernel."""
    from pellucid.ops.cpu.steps import Spent

    meter = Meter()
    with wrapped(made.model, meter.labelled):
        (step,) = made.again(tokens)
    step.spent, steps, start = Spent(step.recording), 0, time.perf_counter()
    with choices(meter):
        while engine.busy:
            engine.step()
            steps += 1
    took = time.perf_counter() - start
    assert step.spent.runs == steps, "its pages do not grow, and nobody changes the model"
    by: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (label, kernel), seconds in step.spent.seconds().items():
        kind = label or "rest"
        by[kind][kernel] = 1e3 * seconds / steps
        meter.seconds[kind] += seconds
    meter.seconds["rest"] += took - sum(meter.seconds.values())
    size = bytes_read(made.model, meter, 1)
    size["attention"] += cached
    return [row | {"by": by[row["kind"]]} for row in table(meter.seconds, size, steps)]


def table(seconds: defaultdict[str, float], size: defaultdict[str, float], steps: int) -> list[dict[str, Any]]:
    """The kinds that took time, of one step."""
    return [
        {"kind": kind, "ms": 1e3 * seconds[kind] / steps, "bytes": round(size[kind])} for kind in KINDS if seconds[kind]
    ]


def bytes_read(model: Model, meter: Meter, steps: int) -> defaultdict[str, float]:
    """Bytes of parameters by the kind of the innermost measured module that holds them and ran, in one step."""
    from torch import nn

    from pellucid.nn.parts import Table
    from pellucid.ops.packed import PackedTensor

    size: defaultdict[str, float] = defaultdict(float)
    modules = dict(model.named_modules())
    for path, module in modules.items():
        if isinstance(module, Table) or ("experts" in path.split(".") and not meter.runs[path]):
            continue  # a table gives a row; experts that nobody chose are not read
        over = path
        while over and not meter.runs[over]:
            over = over.rpartition(".")[0]
        kind = kind_of(over, modules[over]) if over else None
        for parameter in dict.values(module._parameters):
            if kind is not None and isinstance(parameter, nn.Parameter | PackedTensor):
                parts = parameter.parts.values() if isinstance(parameter, PackedTensor) else [parameter]
                size[kind] += sum(part.nbytes for part in parts) * meter.runs[over] / steps
    return size
