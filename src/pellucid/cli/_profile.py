"""Where each millisecond of a decode step goes: the modules' own times by the kind of work, and the bytes they read."""

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
    from pellucid.models.model import Model

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
def measured(model: Model, meter: Meter) -> Iterator[None]:
    """While the block runs, the model's modules and the choice of tokens are measured; hooks stay as they are."""
    from pellucid.engine.decoding.line import Line

    found = {path: module for path, module in model.named_modules() if path and kind_of(path, module)}
    for path, module in found.items():
        kind = kind_of(path, module)
        assert kind is not None
        module.__dict__["forward"] = meter.timed(kind, path, module.forward)
    choose = Line.choose
    Line.choose = meter.timed("sampling", "", choose)  # type: ignore[method-assign]  # put back below
    try:
        yield
    finally:
        Line.choose = choose  # type: ignore[method-assign]
        for module in found.values():
            del module.__dict__["forward"]


def profile(engine: Engine, model: Model, cached: int) -> list[dict[str, Any]]:
    """The kinds of work in the steps that are left of an engine's one row: milliseconds and bytes of a step.

    Args:
        cached: bytes that attention reads of the cache in a step.
    """
    meter, steps = Meter(), 0
    with measured(model, meter):
        start = time.perf_counter()
        while engine.busy:
            engine.step()
            steps += 1
        took = time.perf_counter() - start
    meter.seconds["rest"] += took - sum(meter.seconds.values())
    size = bytes_read(model, meter, steps)
    size["attention" if meter.seconds["attention"] else "recurrence"] += cached
    return [
        {"kind": kind, "ms": 1e3 * meter.seconds[kind] / steps, "bytes": round(size[kind])}
        for kind in KINDS
        if meter.seconds[kind]
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
