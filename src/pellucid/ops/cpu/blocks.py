"""Products with matrices in GGUF's blocks, which stay as they are, through the native kernel (blocks.h).

x is rounded to 8 bits, as llama.cpp does: 32 neighbours share a scale, or 256 where W's blocks have 256. The result is
off by half a percent of its size (root mean square, normal numbers); `ops.packed.exactly` is for when that is too much.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pellucid.ops.cpu import kernels, recorded, recorder, threads

KINDS = {
    "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
    "IQ4_NL": 20, "IQ4_XS": 23, "MXFP4": 39,
}  # fmt: skip
LEVELS = {0: "nothing", 1: "AVX2", 2: "AVX512_VNNI", 3: "NEON", 4: "NEON and DOTPROD"}  # as in blocks.cpp
PRODUCT = struct.Struct("5Q7q")  # as in blocks.h
KEPT = 2**20  # bytes of scratch that a thread keeps: those of a decode step


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library, where it has these products and the processor their instructions."""
    found = kernels()
    if found is None or not found.pellucid_blocks_best():
        return None
    found.pellucid_blocks.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    found.pellucid_blocks_has.argtypes = [ctypes.c_int64, ctypes.c_int]
    found.pellucid_blocks_scratch.argtypes = [ctypes.c_int64]
    found.pellucid_blocks_scratch.restype = ctypes.c_int64
    return found


def level() -> int:
    """What this processor multiplies blocks with: one of `LEVELS`."""
    found = library()
    return 0 if found is None else int(found.pellucid_blocks_best())


def multiplies(kind: str) -> bool:
    """Whether there is a product with blocks of this kind on this machine."""
    found = library()
    return kind in KINDS and found is not None and bool(found.pellucid_blocks_has(KINDS[kind], level()))


class Blocks:
    """A matrix [out, in] of blocks as the file has them, uint8 [out, bytes of a row], of a kind that `multiplies`."""

    def __init__(self, blocks_OB: Tensor, kind: str, inputs: int) -> None:
        found = library()
        assert found is not None and blocks_OB.is_cpu and blocks_OB.stride(1) == 1, "`multiplies` says so"
        self.blocks_OB, self.kind, self.inputs, self.outputs = blocks_OB, KINDS[kind], inputs, len(blocks_OB)
        self.address, self.row_bytes = blocks_OB.data_ptr(), blocks_OB.stride(0)
        self.scratch: int = found.pellucid_blocks_scratch(inputs)  # bytes for a row of x
        self.multiply: Any = found.pellucid_blocks
        self.level = level()

    def takes(self, x_NI: Tensor, bias_O: Tensor | None) -> bool:
        """Whether `product` computes x W^T + b."""
        dtype = x_NI.dtype
        return (
            (dtype is torch.float32 or dtype is torch.bfloat16)
            and type(x_NI) is Tensor
            and x_NI.is_cpu
            and x_NI.shape[1] == self.inputs
            and (bias_O is None or (bias_O.dtype is dtype and bias_O.is_cpu))
            and not recorded()
        )

    def product(self, x_NI: Tensor, bias_O: Tensor | None, way: int | None = None) -> Tensor:
        """x W^T + b, [N, O] in x's dtype, for what `takes` accepts. Sums are whole numbers, then float32.

        A row's bits do not depend on the other rows, the number of threads or the level.

        Args:
            way: another level than the best one; for tests.
        """
        N, I, O = x_NI.shape[0], self.inputs, self.outputs  # noqa: E741
        x_NI = x_NI if x_NI.stride(1) == 1 else x_NI.contiguous()
        y_NO = x_NI.new_empty(N, O)
        bias_O = None if bias_O is None else bias_O.contiguous()
        if recorder.current is not None:
            self._record(x_NI, bias_O, y_NO)
            return y_NO
        scratch = _scratch.of(N * self.scratch)
        call = self._packed(x_NI, bias_O, y_NO, scratch)
        failed = self.multiply(call, self.level if way is None else way, threads(N * O * I))
        assert not failed, "`multiplies` says so"
        return y_NO

    def _packed(self, x_NI: Tensor, bias_O: Tensor | None, y_NO: Tensor, scratch: Tensor) -> bytes:
        return PRODUCT.pack(
            self.address, x_NI.data_ptr(), 0 if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(),
            scratch.data_ptr(), x_NI.shape[0], self.outputs, self.inputs, self.row_bytes, x_NI.stride(0), self.kind,
            x_NI.dtype is torch.bfloat16,
        )  # fmt: skip

    def _record(self, x_NI: Tensor, bias_O: Tensor | None, y_NO: Tensor) -> None:
        """Notes the product as two calls of a step. Products with the same x round it once."""
        recording, N = recorder.current, x_NI.shape[0]

        def keep() -> Tensor:
            scratch = x_NI.new_empty(N * self.scratch, dtype=torch.uint8)
            call = self._packed(x_NI, bias_O, y_NO, scratch)
            recording.call("blocks_keep", call, 16 * x_NI.numel(), (x_NI,), (scratch,))
            return scratch

        scratch = recording.prepared(("blocks", self.kind), x_NI, keep)
        call = self._packed(x_NI, bias_O, y_NO, scratch)
        recording.call("blocks_multiply", call, N * self.inputs * self.outputs, (scratch, bias_O), (y_NO,))


class _Scratch(threading.local):
    """Memory that a thread's products use one after the other."""

    kept: Tensor | None = None

    def of(self, size: int) -> Tensor:
        if self.kept is not None and size <= KEPT:
            return self.kept
        found = torch.empty(max(size, KEPT), dtype=torch.uint8)
        if size <= KEPT:
            self.kept = found
        return found


_scratch = _Scratch()
