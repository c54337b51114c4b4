"""Products with packed matrices, and with float16 ones, through a native kernel (bfloat16.h, sources.h).

Few rows of x are multiplied while W is unpacked in registers; for many it is unpacked once, a part at a time, in the
second cache. Sums are made in one order, so a row's bits do not depend on its company; nor on threads.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pellucid.ops.cpu import WAYS, bfloat16_way, kernels, record_rows, recorded, recorder, threads
from pellucid.ops.packed import PackedTensor, Way

# How numbers lie, as in kernels.h.
FLOAT16, HIGH_FIRST, LOW_FIRST, SIGNED, FLOAT8 = range(1, 6)
STEP = 32  # numbers side by side that share a scale are a multiple of so many
ALL = 1 << 60


class _Matrix(ctypes.Structure):
    """`Matrix` of kernels.h."""

    _fields_ = [
        ("numbers", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("stride", "lie", "group", "height", "groups")),
        *((name, ctypes.c_void_p) for name in ("values", "scales", "zeros", "packed", "map", "nested")),
        ("nest", ctypes.c_int64),
        ("offset", ctypes.c_float),
    ]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library, where it multiplies by packed matrices and this processor has AVX2 or better."""
    found = kernels()
    if found is None:
        return None
    found.pellucid_packed.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 4 + [ctypes.c_int] * 3
    found.pellucid_packed.restype = ctypes.c_int
    return found


def best(half: bool) -> int:
    """The way that this processor prefers, one of `cpu.WAYS`. Also where it has tiles (AMX): they need many rows."""
    found = library()
    assert found is not None, "`multiplies` says so"
    way = bfloat16_way() or (2 if found.pellucid_vector() == 16 else 1)
    return way if half else {3: 2, 5: 4}.get(way, way)


def multiplies(matrix: PackedTensor) -> bool:
    """Whether there is a kernel for packed matrices on its device, in its dtype."""
    return (
        matrix.is_cpu
        and matrix.dtype in (torch.bfloat16, torch.float32)
        and matrix.numel() > 0
        and library() is not None
        and not torch.compiler.is_compiling()
    )


def named(half: bool = True) -> str | None:
    """What people call the kernel of this machine; None where it has none."""
    return None if library() is None else f"unpacked in registers, {WAYS[best(half)]}"


def nibbles(codes_RI: Tensor) -> Tensor:
    """Numbers of 4 bits, two to a byte, `LOW_FIRST`: uint8 [R, I / 2], I rounded up."""
    codes_RI = torch.nn.functional.pad(codes_RI.to(torch.uint8), (0, codes_RI.shape[1] % 2))
    return codes_RI[:, ::2] | codes_RI[:, 1::2] << 4


@dataclass(frozen=True, eq=False)
class Lying:
    """A matrix [out, in] as it lies in memory: W = (number - zero) · scale.

    Args:
        numbers: uint8 [out, bytes], rows of which follow each other at any distance; or float16 [out, in].
        lie: `HIGH_FIRST` or `LOW_FIRST`, two numbers of 4 bits to a byte; `SIGNED` bytes; `FLOAT8` (E4M3); `FLOAT16`.
        inputs: in.
        order: int64 [in], if the numbers lie in another order than those of x: where the first is in x, and so on.
        group, height: inputs, and rows, that share a scale. `group` is a multiple of `STEP`, if it is less than `in`.
        values: float32 [16], of 4 bits: what each number stands for. No NaN.
        scales, zeros: float32 [out / height, in / group], both rounded up; zeros are for
            `LOW_FIRST` only, and are numbers.
        packed, map, nested, nest, offset: scales that are packed: map[packed] · nested + offset, with a `nested` for
            each `nest` of them, a power of two. uint8 [out · in / group], float32 [256] and [packed / nest].
    """

    numbers: Tensor
    lie: int
    inputs: int
    group: int = ALL
    height: int = 1
    values: Tensor | None = None
    scales: Tensor | None = None
    zeros: Tensor | None = None
    packed: Tensor | None = None
    map: Tensor | None = None
    nested: Tensor | None = None
    nest: int = 1
    offset: float = 0.0
    order: Tensor | None = None
    _c: _Matrix = field(init=False)

    def __post_init__(self) -> None:
        rows, groups = len(self.numbers), -(-self.inputs // self.group)
        assert self.numbers.stride(1) == 1 and self.numbers.is_cpu
        assert groups == 1 or self.group % STEP == 0
        wanted = -(-rows // self.height) * groups
        for part, count in ((self.values, 16), (self.scales, wanted), (self.zeros, wanted), (self.map, 256)):
            assert part is None or (part.numel() == count and part.dtype == torch.float32 and part.is_contiguous())
        assert self.packed is None or (self.packed.numel() == wanted and self.packed.is_contiguous())
        stride = self.numbers.stride(0) * self.numbers.element_size()
        # The structure does not keep the tensors alive: this object does.
        parts = (self.values, self.scales, self.zeros, self.packed, self.map, self.nested)
        addresses = [None if part is None else part.data_ptr() for part in parts]
        made = _Matrix(
            self.numbers.data_ptr(), stride, self.lie, self.group, self.height, groups, *addresses,
            self.nest.bit_length() - 1, self.offset,
        )  # fmt: skip
        object.__setattr__(self, "_c", made)

    def way(self, dtype: torch.dtype) -> Way:
        """What a layer calls, to compute in this dtype."""

        def product(matrix: Any, x_NI: Tensor, bias_O: Tensor | None) -> Tensor:
            return self.product(x_NI, bias_O)

        def takes(x_NI: Tensor, bias_O: Tensor | None) -> bool:
            return x_NI.dtype == dtype and self.takes(x_NI, bias_O)

        return Way(named(dtype == torch.bfloat16) or "", product, takes=takes)

    def takes(self, x_NI: Tensor, bias_O: Tensor | None) -> bool:
        """Whether `product` computes x W^T + b."""
        return (
            type(x_NI) is Tensor
            and x_NI.is_cpu
            and x_NI.shape[1] == self.inputs
            and (bias_O is None or (bias_O.dtype == x_NI.dtype and type(bias_O) in (Tensor, torch.nn.Parameter)))
            and not recorded()
        )

    def product(self, x_NI: Tensor, bias_O: Tensor | None, way: int | None = None) -> Tensor:
        """x W^T + b with float32 sums, [N, I] -> [N, O], for what `takes` accepts, in the dtype of x."""
        found = library()
        assert found is not None, "`multiplies` says so"
        x_NI = x_NI if self.order is None else x_NI.index_select(1, self.order)
        x_NI = x_NI if x_NI.stride(1) == 1 else x_NI.contiguous()
        bias_O = None if bias_O is None else bias_O.contiguous()
        rows, outputs, half = x_NI.shape[0], len(self.numbers), x_NI.dtype == torch.bfloat16
        y_NO = x_NI.new_empty(rows, outputs)
        if recorder.current is not None:
            record_rows(bytes(self._c), x_NI, bias_O, y_NO, best(half) if way is None else way, [])
            return y_NO
        failed = found.pellucid_packed(
            ctypes.byref(self._c), x_NI.data_ptr(), None if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(),
            rows, outputs, self.inputs, x_NI.stride(0), half, best(half) if way is None else way,
            threads(rows * outputs * self.inputs),
        )  # fmt: skip
        if failed:
            raise MemoryError("no room to unpack a part of a packed matrix")
        return y_NO
