"""Who can write to a parameter behind its module's back.

Torch counts in-place changes in a tensor's version, but not writes through `.data`, numpy, or a list of parameters kept
from before. A packed copy of a matrix (`nn/linear.py`) must notice those too. So a module's parameters note who reads
them (`Watched`), and `held` says whether somebody else still has the parameter or its memory.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn


class Handed:
    """A clock: how often parameters were handed out to code that may write to them."""

    times = 0


class Watched(dict[str, Any]):
    """A module's parameters. Whoever reads one through torch's own ways leaves a mark on it: `parameter.handed`."""

    def __getitem__(self, name: str) -> Any:
        return _mark(super().__getitem__(name))

    def get(self, name: str, default: Any = None) -> Any:
        return _mark(super().get(name, default))

    def pop(self, *args: Any) -> Any:
        return _mark(super().pop(*args))

    def items(self) -> Any:
        self.values()
        return super().items()

    def values(self) -> Any:
        for parameter in super().values():
            _mark(parameter)
        return super().values()

    def copy(self) -> dict[str, Any]:
        return dict(self.items())


def _mark(parameter: Any) -> Any:
    if parameter is not None and not torch.compiler.is_compiling():  # a graph reads it, and would count at every call
        Handed.times += 1
        parameter.handed = Handed.times
    return parameter


def stored(module: nn.Module, name: str = "weight") -> Any:
    """A parameter for us to read: leaves no mark."""
    return getattr(module, name) if torch.compiler.is_compiling() else dict.__getitem__(module._parameters, name)


def watch(module: nn.Module) -> None:
    """Makes a module's parameters note who reads them."""
    module.__dict__["_parameters"] = Watched(module._parameters)


def mapped(weight_OI: Tensor) -> Any:
    """The source of a weight that still lies where the file is mapped; None for others."""
    source = getattr(weight_OI, "source", None)
    return source if source is not None and source.address == weight_OI.data_ptr() else None


def held(parameters: dict[str, Any], homes: int) -> bool:
    """Whether anybody besides `homes` modules, and a caller's local variable, can reach the weight or its memory."""
    references, uses = reach(parameters)
    source = mapped(dict.__getitem__(parameters, "weight"))
    return references > homes + 1 or uses > (1 if source is None else source.tensors)


def reach(parameters: dict[str, Any]) -> tuple[int, int]:
    """(Python references to the weight, tensors on its memory); a graph of gradients only reads, and does not count."""
    references, uses, graph = _counts(parameters)
    alone, lonely, by_graph = _own_counts()
    return references - alone + 1 - (by_graph if graph else 0), uses - lonely + 1


def _counts(parameters: dict[str, Any]) -> tuple[int, int, bool]:
    references = sys.getrefcount(dict.__getitem__(parameters, "weight"))
    weight: Any = dict.__getitem__(parameters, "weight")
    return references, torch._C._storage_Use_Count(weight.untyped_storage()._cdata), weight._use_count() > 1


@lru_cache(maxsize=1)
def _own_counts() -> tuple[int, int, int]:
    """References and tensors that are counted where nobody else is, and what a graph adds: versions differ."""
    with torch.inference_mode(False), torch.enable_grad():
        parameters = {"weight": nn.Parameter(torch.empty(1))}
        references, uses, _ = _counts(parameters)
        graph = parameters["weight"].double()
        return references, uses, _counts(parameters)[0] - references if graph.grad_fn else 0


@lru_cache(maxsize=1)
def countable() -> bool:
    """Whether this torch can say how many tensors share a memory; where it cannot, nothing is packed."""
    return hasattr(torch._C, "_storage_Use_Count") and hasattr(Tensor, "_use_count")
