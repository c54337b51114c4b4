"""Linear layers and their execution forms.

Storage is one plain matrix, as in the file. What multiplies is chosen for each layer:

    mapped   F.linear on the stored matrix: training, saving, tracing, float64, accelerators
    packed   oneDNN's own layout, made at the first inference forward on a CPU, after which the file's pages go back
             to the operating system. 1.7 times as fast in bf16 and 2 to 6 times in float32 for few rows, and a row's
             result does not depend on its neighbours (see docs/decisions.md).

A packed copy must never outlive its matrix. In-place changes bump the version that the copy remembers; reading the
`weight` attribute, or handing out `parameters()`, makes the next forward look whether anything was written.
"""

from __future__ import annotations

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
    """Counts how often parameters were handed out to code that may write to them through `.data`."""

    times = 0


class Linear(nn.Linear):
    """y = x W^T + b for packed rows [N, I]."""

    _packed: Packed | None = None

    def reset_parameters(self) -> None:
        """Nothing: a model is built empty and filled from a file or by `models.initialise`."""

    def forward(self, input: Tensor) -> Tensor:
        weight_OI: Tensor = self._parameters["weight"]  # type: ignore[assignment]  # always there
        bias_O = self._parameters["bias"]
        if torch.is_grad_enabled() or not packable(weight_OI, input):
            return F.linear(input, weight_OI, bias_O)
        if self._packed is None or not self._packed.fits(weight_OI):
            self._packed = Packed(weight_OI)
        return self._packed(input, bias_O)

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and self._packed is not None:
            self._packed.seen = -1  # the caller may write to it
        return super().__getattr__(name)

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
        self.seen = Handed.times
        source = getattr(weight_OI, "source", None)
        if source is not None and weight_OI._version == 0:
            source.release()

    def fits(self, weight_OI: Tensor) -> bool:
        """Whether the stored matrix is still the one that was packed."""
        if weight_OI._version != self.version or weight_OI.data_ptr() != self.address:
            return False
        if self.seen != Handed.times:
            source = getattr(weight_OI, "source", None)
            written = source.dirty() if source is not None else None
            if written is None:  # not a mapped file: compare
                written = not torch.equal(self.matrix.to_dense(), weight_OI)
            if written:
                return False
            self.seen = Handed.times
        return True

    def __call__(self, x: Tensor, bias_O: Tensor | None) -> Tensor:
        x_NI = x if x.dim() == 2 else x.flatten(0, -2)
        rows = x_NI.shape[0]
        if rows < LEAST_ROWS:
            x_NI = x_NI.expand(LEAST_ROWS, -1).contiguous()
        y_NO = torch.ops.mkldnn._linear_pointwise(x_NI, self.matrix, bias_O, "none", [], "")[:rows]
        return y_NO if x.dim() == 2 else y_NO.unflatten(0, x.shape[:-1])


def packable(weight_OI: Tensor, x: Tensor) -> bool:
    """Whether oneDNN's packed product computes this layer."""
    return (
        weight_OI.dtype in packed_dtypes()
        and x.dtype == weight_OI.dtype
        and weight_OI.device.type == x.device.type == "cpu"
        and type(x) is Tensor
        and x.numel() > 0
        and not torch.compiler.is_compiling()
    )


@lru_cache(maxsize=1)
def packed_dtypes() -> tuple[torch.dtype, ...]:
    """Dtypes that oneDNN multiplies on this processor; none where torch was built without it."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if native else (torch.float32,)
