"""Linear layers and their execution forms.

Storage is one plain matrix, as in the file. What multiplies is chosen for each layer:

    mapped   F.linear on the stored matrix: training, saving, tracing, float64, accelerators
    packed   oneDNN's own layout, made at the first inference forward on a CPU, after which the file's pages go back
             to the operating system. 1.7 times as fast in bf16 and 2 to 6 times in float32 for few rows, and a row's
             result does not depend on its neighbours (see docs/decisions.md).

A packed copy must never outlive its matrix. In-place changes bump the version that the copy remembers, but writes
through `.data` or numpy do not. So a parameter notes that it was handed out (`Watched`), and the next forward looks:
while somebody else holds the parameter or its memory (an optimizer, a list, a state dict), the stored matrix is
multiplied as it is; when nobody does, the copy is compared once and stays.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN chooses its layout for a number of rows. For 16 it is one layout that is fastest from 1 to 512 rows, and the
# result of a row is the same in any company from 2 rows on; a single row is computed twice (measured: +0 to 4 %).
ROWS_HINT = 16
LEAST_ROWS = 2


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
    if parameter is not None:
        Handed.times += 1
        parameter.handed = Handed.times
    return parameter


def stored(module: nn.Module, name: str = "weight") -> Any:
    """A parameter for us to read: leaves no mark."""
    return getattr(module, name) if torch.compiler.is_compiling() else dict.__getitem__(module._parameters, name)


def watch(module: nn.Module) -> None:
    """Makes a module's parameters note who reads them."""
    module.__dict__["_parameters"] = Watched(module._parameters)


class Linear(nn.Linear):
    """y = x W^T + b for packed rows [N, I]."""

    _packed: Packed | None = None

    homes = 1  # modules that hold the weight: more than one where it is tied

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        watch(self)

    def reset_parameters(self) -> None:
        """Nothing: a model is built empty and filled from a file or by `models.initialise`."""

    def forward(self, input: Tensor) -> Tensor:
        weight_OI, bias_O = stored(self), stored(self, "bias")
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not packable(weight_OI, input):
            return F.linear(input, weight_OI, bias_O)
        packed = self._packed
        looked_at = packed is None or getattr(weight_OI, "handed", math.inf) > packed.seen
        if looked_at and held(self._parameters, self.homes):
            self._packed = None
            return F.linear(input, weight_OI, bias_O)
        if packed is None or not packed.fits(weight_OI):
            packed = self._packed = Packed(weight_OI)
        return packed(input, bias_O)

    def __deepcopy__(self, memo: dict[int, Any]) -> Linear:
        self._packed = None
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        import copy as copying

        copy.__dict__.update(copying.deepcopy(self.__dict__, memo))
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_packed"}


class Packed:
    """A matrix in oneDNN's layout, and what tells whether it still equals the stored one."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.matrix = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), ROWS_HINT)
        self.version = weight_OI._version
        self.address = weight_OI.data_ptr()
        self.note(weight_OI)
        source = mapped(weight_OI)
        if source is not None and weight_OI._version == 0:
            source.release()

    def note(self, weight_OI: Tensor) -> None:
        """From here on, only what is handed out later is suspicious."""
        self.seen = Handed.times
        weight_OI.handed = self.seen  # type: ignore[attr-defined]  # read by `Linear.forward`

    def fits(self, weight_OI: Tensor) -> bool:
        """Whether the stored matrix is still the one that was packed."""
        if weight_OI._version != self.version or weight_OI.data_ptr() != self.address:
            return False
        if getattr(weight_OI, "handed", math.inf) > self.seen:
            source = mapped(weight_OI)
            written = source.dirty() if source is not None else None
            if written is None:  # not a mapped file: compare
                written = not torch.equal(self.matrix.to_dense(), weight_OI)
            if written:
                return False
            self.note(weight_OI)
        return True

    def __call__(self, x: Tensor, bias_O: Tensor | None) -> Tensor:
        x_NI = x if x.dim() == 2 else x.flatten(0, -2)
        rows = x_NI.shape[0]
        if rows < LEAST_ROWS:
            x_NI = x_NI.expand(LEAST_ROWS, -1).contiguous()
        y_NO = torch.ops.mkldnn._linear_pointwise(x_NI, self.matrix, bias_O, "none", [], "")[:rows]
        return y_NO if x.dim() == 2 else y_NO.unflatten(0, x.shape[:-1])


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


def packable(weight_OI: Tensor, x: Tensor) -> bool:
    """Whether oneDNN's packed product computes this layer."""
    return (
        weight_OI.dtype in packed_dtypes()
        and x.dtype == weight_OI.dtype
        and weight_OI.device.type == x.device.type == "cpu"
        and type(x) is Tensor
        and x.numel() > 0
    )


@lru_cache(maxsize=1)
def packed_dtypes() -> tuple[torch.dtype, ...]:
    """Dtypes that oneDNN multiplies on this processor; none where torch was built without it."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    if not hasattr(torch._C, "_storage_Use_Count") or not hasattr(Tensor, "_use_count"):
        return ()  # nobody could say whether the matrix is ours alone
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if native else (torch.float32,)
