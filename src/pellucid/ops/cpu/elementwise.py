"""Norms, rotations and activations through native kernels (elementwise.cpp): one call for what torch does in several.

Written out in `ops/elementwise.py` and `ops/rope.py`. The bits are torch's; a row's do not depend on its company.
"""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.ops.cpu import kernels, recorded, recorder, threads

if TYPE_CHECKING:
    from pellucid.ops.cpu.steps import Recording

LEVELS = {"best": 0, "avx2": 1, "avx512": 2, "neon": 3}  # of instructions; what another than the best is for: tests
NORMING, TURNING, LOOKING = struct.Struct("4Q2q2f5i4x"), struct.Struct("4Q4q4i"), struct.Struct("4Q2q3i4x")
POINTWISE, GATHERING = struct.Struct("3Q2qf4i4x"), struct.Struct("3Q3q")
POINTS = {
    "sum": 0,
    "product": 1,
    "scaled": 2,
    "silu": 3,
    "gelu_tanh": 4,
    "gelu_quick": 5,
    "halved": 6,
}  # as in elementwise.h
ACTIVATIONS = ("silu", "gelu_tanh", "gelu_quick")
WORTH_SHARING = 2**16  # numbers, from which a second thread pays
LEAST_WIDTH, MOST_WIDTH = 8, 2**20  # of a row that is normed: torch adds shorter and longer ones in another order


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library with its elementwise kernels; None where it was not built, or not for this processor."""
    found = kernels()
    if found is None:
        return None
    for function in (found.pellucid_norm, found.pellucid_turn, found.pellucid_look_up, found.pellucid_pointwise):
        function.argtypes, function.restype = [ctypes.c_char_p], None
    return found if found.pellucid_has_elementwise(LEVELS["best"]) else None


def takes(x: Tensor) -> bool:
    """Whether there are kernels for x: float32 or bfloat16 on the CPU, and nobody asks for gradients or records."""
    return (
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and (x.dtype is torch.bfloat16 or x.dtype is torch.float32)
        and x.is_cpu
        and type(x) is Tensor
        and library() is not None
        and not recorded()
    )


def norms(x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> bool:
    """Whether `rms_norm` or `layer_norm` norms x."""
    if not takes(x) or not LEAST_WIDTH <= x.shape[-1] <= MOST_WIDTH or (weight is None and bias is not None):
        return False
    return all(
        each is None or (each.dtype is x.dtype and each.is_cpu and each.is_contiguous() and each.numel() == x.shape[-1])
        for each in (weight, bias)
    )


def rms_norm(
    x: Tensor, weight: Tensor | None, *, eps: float, offset: float, round_first: bool, level: str = "best"
) -> Tensor:
    """As `ops.elementwise.rms_norm`, for what `norms` says yes to."""
    return _norm(x, weight, None, (eps, offset, round_first, False), level)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float, level: str = "best") -> Tensor:
    """As `ops.elementwise.layer_norm`, for what `norms` says yes to: to about 2 in the last place."""
    return _norm(x, weight, bias, (eps, 0.0, False, True), level)


def _norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, how: tuple[float, float, bool, bool], level: str
) -> Tensor:
    found = library()
    assert found is not None, "`norms` says whether there is a kernel"
    x = x.contiguous()
    y, numbers, width = torch.empty_like(x), x.numel(), x.shape[-1]
    call = NORMING.pack(
        x.data_ptr(), 0 if weight is None else weight.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr(),
        numbers // width, width, *how, x.dtype is torch.bfloat16, LEVELS[level], threads(numbers, WORTH_SHARING),
    )  # fmt: skip
    if recorder.current is not None:
        recorder.current.call("norm_share", call, 8 * numbers * (numbers > width), (x, weight, bias), (y,))
    else:
        found.pellucid_norm(call)
    return y


def rotates(x_NHK: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether `rotate` turns x."""
    if not takes(x_NHK) or x_NHK.dim() != 3 or cos.dtype is not x_NHK.dtype or sin.dtype is not x_NHK.dtype:
        return False
    rows, _, width = x_NHK.shape
    shape = cos.shape
    return sin.shape == shape == (rows, 1, shape[-1]) and shape[-1] <= width and cos.is_cpu and sin.is_cpu


def rotate(x_NHK: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, level: str = "best") -> Tensor:
    """As `ops.rope.rotate`, for what `rotates` says yes to."""
    found = library()
    assert found is not None, "`rotates` says whether there is a kernel"
    x_NHK, cos, sin = x_NHK.contiguous(), cos.contiguous(), sin.contiguous()
    y_NHK = torch.empty_like(x_NHK)
    call = TURNING.pack(
        x_NHK.data_ptr(), cos.data_ptr(), sin.data_ptr(), y_NHK.data_ptr(), *x_NHK.shape, cos.shape[-1], interleaved,
        x_NHK.dtype is torch.bfloat16, LEVELS[level], threads(x_NHK.numel(), WORTH_SHARING),
    )  # fmt: skip
    if recorder.current is not None:
        several = y_NHK.shape[0] > 1
        recorder.current.call("turn_share", call, 8 * x_NHK.numel() * several, (x_NHK, cos, sin), (y_NHK,))
    else:
        found.pellucid_turn(call)
    return y_NHK


def looks_up(x: Tensor, times: Tensor | None = None) -> bool:
    """Whether `look_up` finds f(x), times another where there is one."""
    if x.dtype is not torch.bfloat16 or not takes(x):
        return False
    return times is None or (times.dtype is torch.bfloat16 and times.is_cpu and times.shape == x.shape)


def look_up(table: Tensor, x: Tensor, times: Tensor | None = None, level: str = "best") -> Tensor:
    """f(x), or f(x) * times, for what `looks_up` says yes to.

    Args:
        table: f of all 65536 numbers in bfloat16, in the order of their bits.
    """
    found = library()
    assert found is not None, "`looks_up` says whether there is a kernel"
    x, times = x.contiguous(), None if times is None else times.contiguous()
    y, numbers = torch.empty_like(x), x.numel()
    call = LOOKING.pack(
        x.data_ptr(), 0 if times is None else times.data_ptr(), table.data_ptr(), y.data_ptr(), numbers, 1, True,
        LEVELS[level], threads(numbers, WORTH_SHARING),
    )  # fmt: skip
    if recorder.current is not None:
        recorder.current.call("look_up_share", call, 8 * numbers, (x, times, table), (y,))
    else:
        found.pellucid_look_up(call)
    return y


def activates(act: str, x: Tensor, times: Tensor | None = None) -> bool:
    """Whether `activate` computes f(x), times another where there is one."""
    if act not in ACTIVATIONS or x.dtype is not torch.float32 or not takes(x):
        return False
    return times is None or (times.dtype is torch.float32 and times.is_cpu and times.shape == x.shape)


def activate(act: str, x: Tensor, times: Tensor | None = None, level: str = "best") -> Tensor:
    """f(x), or f(x) * times, in float32, for what `activates` says yes to: to about 2 in the last place."""
    found = library()
    assert found is not None, "`activates` says whether there is a kernel"
    x, times = x.contiguous(), None if times is None else times.contiguous()
    y = torch.empty_like(x)
    call = _pointwise(act, x, times, y, 1.0, level)
    if recorder.current is not None:
        recorder.current.call("pointwise_share", call, 16 * x.numel(), (x, times), (y,))
    else:
        found.pellucid_pointwise(call)
    return y


def _pointwise(point: str, x: Tensor, y: Tensor | None, out: Tensor, factor: float, level: str = "best") -> bytes:
    return POINTWISE.pack(
        x.data_ptr(), 0 if y is None else y.data_ptr(), out.data_ptr(), x.numel(), 1, factor, POINTS[point],
        x.dtype is torch.bfloat16, LEVELS[level], threads(x.numel(), WORTH_SHARING),
    )  # fmt: skip


# ------------------------------------------------------------------------------------ what a step has beside (steps.py)


def joined(recording: Recording, point: str, x: Tensor, y: Tensor | None, factor: float = 1.0) -> Tensor:
    """x + y, x * y, x * factor, or x in float16, with torch's bits; dense, of one dtype and shape."""
    out = recording.empty(torch.empty_like(x, dtype=torch.float16 if point == "halved" else x.dtype))
    call = _pointwise(point, x, y, out, factor)
    recording.call("pointwise_share", call, 4 * x.numel(), (x, y), (out,))
    return out


def gather(recording: Recording, table_VD: Tensor, at_N: Tensor) -> Tensor:
    """The rows of a dense table as a call of a step, [N, D]."""
    (count, width), rows = table_VD.shape, len(at_N)
    out = recording.empty(table_VD.new_empty(rows, width))
    size = width * table_VD.element_size()
    call = GATHERING.pack(table_VD.data_ptr(), at_N.data_ptr(), out.data_ptr(), rows, count, size)
    recording.call("gather_share", call, 0, (table_VD, at_N), (out,))
    return out
