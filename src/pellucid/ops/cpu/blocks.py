"""Products with matrices in GGUF's blocks, which stay as they are, through the native kernel (blocks.h).

x is rounded to 8 bits, as llama.cpp does: 32 neighbours share a scale, or 256 where W's blocks have 256. The result is
off by half a percent of its size (root mean square, normal numbers); `ops.packed.exactly` is for when that is too much.
"""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache

import torch
from torch import Tensor

from pellucid.ops.cpu import WORTH_SHARING, kernels

KINDS = {
    "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
    "IQ4_NL": 20, "IQ4_XS": 23, "MXFP4": 39,
}  # fmt: skip
LEVELS = {0: "nothing", 1: "AVX2", 2: "AVX512_VNNI"}
PRODUCT = struct.Struct("5Q7q")  # as in blocks.h


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library, where it has these products and the processor their instructions."""
    found = kernels()
    if found is None or not hasattr(found, "pellucid_blocks") or not found.pellucid_blocks_best():
        return None
    found.pellucid_blocks.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
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


def product(
    blocks_OB: Tensor, kind: str, x_NI: Tensor, bias_O: Tensor | None, outputs: int, way: int | None = None
) -> Tensor:
    """x W^T + b, [N, O] in x's dtype: float32 or bfloat16. Sums are whole numbers, then float32.

    A row's bits do not depend on the other rows, the number of threads or the level.

    Args:
        blocks_OB: uint8, the rows of W as the file has them.
        kind: one of `KINDS`, for which `multiplies` is true.
        way: another level than the best one; for tests.
    """
    found = library()
    assert found is not None, "`multiplies` says so"
    N, I = x_NI.shape  # noqa: E741
    x_NI = x_NI if x_NI.stride(1) == 1 or I == 1 else x_NI.contiguous()
    y_NO = x_NI.new_empty(N, outputs)
    scratch = torch.empty(N * found.pellucid_blocks_scratch(I), dtype=torch.uint8)
    if bias_O is not None:
        bias_O = bias_O.to(x_NI.dtype).contiguous()
    call = PRODUCT.pack(
        blocks_OB.data_ptr(), x_NI.data_ptr(), 0 if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(),
        scratch.data_ptr(), N, outputs, I, blocks_OB.stride(0), x_NI.stride(0), KINDS[kind],
        x_NI.dtype == torch.bfloat16,
    )  # fmt: skip
    threads = 1 if N * outputs * I < WORTH_SHARING else torch.get_num_threads()
    failed = found.pellucid_blocks(call, level() if way is None else way, threads)
    assert not failed, "`multiplies` says so"
    return y_NO
