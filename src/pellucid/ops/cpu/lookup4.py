"""Numbers of 4 bits that stand for 16 values, and the nearest of these, through native kernels (lookup4.cpp)."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import torch
from torch import Tensor

from pellucid.ops.cpu import kernels, recorded, threads

WORTH_SHARING = 2**18  # numbers, from which a second thread pays
STEP = 32  # numbers: a block that is packed has a multiple of so many


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library, where it has the kernel."""
    found = kernels()
    if found is None:
        return None
    found.pellucid_lookup4.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2 + [ctypes.c_int] * 2
    found.pellucid_lookup4.restype = None
    found.pellucid_nearest4.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 2 + [ctypes.c_int]
    found.pellucid_nearest4.restype = None
    return found


def looks_up(codes: Tensor, dtype: torch.dtype) -> bool:
    """Whether `lookup4` gives numbers of this dtype."""
    return (
        codes.is_cpu
        and dtype in (torch.bfloat16, torch.float32)
        and library() is not None
        and not torch.compiler.is_compiling()
        and not recorded()
    )


def lookup4(codes_B: Tensor, scales_n: Tensor, values_16: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Blocks of `size` numbers, [n, size]: value times scale in float32, then rounded to `dtype`.

    Args:
        codes_B: uint8 [n size / 2], two numbers to a byte, the first in the high half.
        scales_n, values_16: float32.
    """
    found, count = library(), scales_n.numel()
    assert found is not None, "`looks_up` says so"
    assert codes_B.numel() * 2 == count * size and values_16.numel() == 16
    codes_B, scales_n, values_16 = codes_B.contiguous(), scales_n.contiguous(), values_16.contiguous()
    y_nS = torch.empty(count, size, dtype=dtype)
    found.pellucid_lookup4(
        codes_B.data_ptr(), scales_n.data_ptr(), values_16.data_ptr(), y_nS.data_ptr(), count, size,
        dtype == torch.bfloat16, threads(count * size, WORTH_SHARING),
    )  # fmt: skip
    return y_nS


def nearest4(numbers_nS: Tensor, values_16: Tensor) -> tuple[Tensor, Tensor] | None:
    """Blocks as numbers of 4 bits; None where there is no kernel.

    Args:
        numbers_nS: any float dtype; S is a multiple of `STEP`.
        values_16: float32, between -1 and 1.

    Returns:
        the places in `values_16` of the values nearest to the numbers over their block's magnitude, two to a byte, the
        first in the high half: uint8 [n S / 2]; and the magnitudes, float32 [n].
    """
    found, (count, size) = library(), numbers_nS.shape
    if found is None or not numbers_nS.is_cpu or size % STEP:
        return None
    x_nS, values, names = numbers_nS.float().contiguous(), *values_16.sort()
    bounds, names = (values[:-1] + values[1:]) / 2, names.to(torch.uint8)
    codes_B, scales_n = torch.empty(count * size // 2, dtype=torch.uint8), torch.empty(count)
    found.pellucid_nearest4(
        x_nS.data_ptr(), bounds.data_ptr(), names.data_ptr(), codes_B.data_ptr(), scales_n.data_ptr(), count, size,
        threads(count * size, WORTH_SHARING),
    )  # fmt: skip
    return codes_B, scales_n
