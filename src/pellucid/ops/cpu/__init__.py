"""Native kernels: C++ behind a plain C interface, built when the package is installed if a compiler is there.

Without them everything works in torch. They run on torch's own OpenMP threads: no second pool competes with it. Their
written-out references are in the tests that compare them (tests/ops/test_cpu.py).
"""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import Unsupported
from pellucid.ops.cpu.version import fits

FILE = Path(__file__).with_name("kernels.so")
STALE = "was compiled from other sources than those beside it"
ROWS = 6  # most rows of x in panels of float32: with more, a product is bound by arithmetic, and oneDNN's is faster
WORTH_SHARING = 2**19  # multiply-adds of a product, from which a second thread pays
WIDTHS = (64, 48, 32, 24, 16, 8)  # outputs side by side in oneDNN's layouts
BLOCKS = (1024, 512, 2048)  # products that oneDNN sums before they join the total
NOISE = 2**16  # results in bfloat16 that tell one order of sums from another
WAYS = {0: "nothing", 1: "AVX2", 2: "AVX-512", 3: "AVX512_BF16", 4: "NEON", 5: "NEON and BF16"}  # bfloat16 products
IN_PAIRS = 3  # of AVX-512


MATRIX, ROWS_WORK = struct.Struct("Q5q6Qqf4x"), struct.Struct("3Q4q?7xq")  # as in kernels.h
FEW_ROWS = struct.Struct("4Q7q")


class _Recorder(threading.local):
    """The recording that this thread makes (steps.py), whose calls kernels note instead of running."""

    current: Any = None


recorder = _Recorder()


def threads(work: int, worth: int = WORTH_SHARING) -> int:
    """How many of torch's threads so much work is worth, where a second one pays from `worth` on."""
    return 1 if work < worth else torch.get_num_threads()


@lru_cache(maxsize=1)
def kernels() -> ctypes.CDLL | None:
    """The library, bound to torch's OpenMP runtime; None where it was not built, or not for this processor.

    Nor is one used that was compiled from other sources than those beside it: what Python packs and the bits that it
    gives belong to them.
    """
    runtime = openmp()
    if not FILE.is_file() or runtime is None:
        return None
    if not fits(FILE, FILE.parent):
        warnings.warn(f"{FILE} {STALE}: torch computes everything, slower. Next: {rebuild()}", stacklevel=2)
        return None
    try:
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)  # it is loaded already: now its names are found
        found = ctypes.CDLL(str(FILE))
    except OSError:  # built for another system
        return None
    if not found.pellucid_vector():
        return None
    found.pellucid_few_rows.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 6 + [ctypes.c_int] * 2
    found.pellucid_bfloat16.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 5 + [ctypes.c_int] * 2
    return found


def rebuild() -> str:
    """The command that compiles the library again."""
    root = FILE.parents[4]
    if (root / "setup.py").is_file():
        return f"cd {root} && {sys.executable} setup.py -q build_ext --inplace"
    return "pip install -v --force-reinstall --no-deps pellucid"


def openmp() -> str | None:
    """The file of the OpenMP runtime that torch has loaded; other libraries may have brought theirs."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # no Linux
        return None
    files = dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines if "omp" in line)
    found = [file for file in files if Path(file).name.startswith(("libgomp", "libiomp", "libomp"))]
    homes = tuple(str(Path(torch.__file__).parent.with_name(name)) for name in ("torch", "torch.libs"))
    return next((file for file in found if file.startswith(homes)), found[0] if len(found) == 1 else None)


def recorded() -> bool:
    """Whether somebody records or transforms torch's calls (`torch.jit.trace`, `make_fx`, `vmap`, a dispatch mode).

    They see nothing of a kernel that is called behind torch's back, so torch must compute then. A recording of our own
    does: kernels tell it.
    """
    return (
        torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > (recorder.current is not None)
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


@lru_cache(maxsize=1)
def bfloat16_way() -> int:
    """How this processor multiplies in bfloat16: one of `WAYS`. 0: not with our kernel.

    That is where there is no library, and where oneDNN multiplies in tiles (AMX): many times as fast for many rows.
    """
    library = kernels()
    return 0 if library is None else int(library.pellucid_bfloat16_best())


def multiplies(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> bool:
    """Whether `product` computes x W^T + b; it knows no gradients."""
    return (
        x.dtype == weight_OI.dtype == torch.bfloat16
        and bfloat16_way() > 0
        and type(x) is Tensor
        and x.is_cpu
        and weight_OI.is_cpu
        and weight_OI.dim() == 2
        and weight_OI.stride(1) == 1
        and x.shape[-1] == weight_OI.shape[1]
        and x.numel() > 0
        and weight_OI.numel() > 0
        and (bias_O is None or (bias_O.dtype == torch.bfloat16 and bias_O.is_contiguous()))
    )


def product(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, way: int | None = None) -> Tensor:
    """x W^T + b in bfloat16 with float32 sums, [..., I] -> [..., O], for what `multiplies` accepts.

    W is read where it lies. A row's bits do not depend on the other rows, nor on the number of threads.

    Raises `Unsupported` for a way that this processor has not.
    """
    library = kernels()
    assert library is not None, "`multiplies` says so"
    O, I = weight_OI.shape  # noqa: E741
    x_NI = x if x.dim() == 2 else x.reshape(-1, I)
    x_NI = x_NI if x_NI.stride(1) == 1 else x_NI.contiguous()
    rows = x_NI.shape[0]
    y_NO = x.new_empty(rows, O)
    if recorder.current is not None:
        matrix = MATRIX.pack(weight_OI.data_ptr(), weight_OI.stride(0) * 2, 0, 1 << 60, 1, *[0] * 8, 0.0)
        record_rows(matrix, x_NI, bias_O, y_NO, bfloat16_way() if way is None else way, [weight_OI])
        return y_NO if x.dim() == 2 else y_NO.view(*x.shape[:-1], O)
    failed = library.pellucid_bfloat16(
        weight_OI.data_ptr(), x_NI.data_ptr(), None if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(),
        rows, O, I, weight_OI.stride(0), x_NI.stride(0), bfloat16_way() if way is None else way,
        threads(rows * O * I),
    )  # fmt: skip
    if failed:
        raise Unsupported(f"this processor cannot multiply by {WAYS[way or 0]}", where="ops.cpu")
    return y_NO if x.dim() == 2 else y_NO.view(*x.shape[:-1], O)


def record_rows(
    matrix: bytes, x_NI: Tensor, bias_O: Tensor | None, y_NO: Tensor, way: int, parts: Sequence[Tensor]
) -> None:
    """Notes a product with a matrix of `kernels.h` as a call of a step."""
    (rows, I), outputs = x_NI.shape, y_NO.shape[1]  # noqa: E741
    work = matrix + ROWS_WORK.pack(
        x_NI.data_ptr(), 0 if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(), rows, outputs, I,
        x_NI.stride(0), x_NI.dtype is torch.bfloat16, way,
    )  # fmt: skip
    recorder.current.call("rows_share", work, rows * outputs * I, (x_NI, bias_O, *parts), (y_NO,))


@dataclass(frozen=True)
class Panels:
    """A matrix that lies in memory as [ceil(outputs / wide), depth, wide], with zeros beyond its edges.

    In bfloat16 as [ceil(outputs / wide), depth / 2, wide, 2]. Called with rows it gives x W^T + b, the same bits for
    a row in any company.
    """

    address: int
    outputs: int
    inputs: int
    depth: int
    wide: int
    block: int
    half: bool = False

    def fast(self, rows: int) -> bool:
        """Whether it is faster than oneDNN: in bfloat16 always, or as fast."""
        return self.half or rows <= ROWS

    def __call__(self, x_NI: Tensor, bias_O: Tensor | None) -> Tensor:
        """[N, O]; all float32, or all bfloat16, on the CPU."""
        library = kernels()
        assert library is not None, "panels are only found where there is a library"
        x_NI, bias_O = x_NI.contiguous(), None if bias_O is None else bias_O.contiguous()
        rows = x_NI.shape[0]
        y_NO = x_NI.new_empty(rows, self.outputs)
        work = rows * self.outputs * self.inputs
        if recorder.current is not None:
            call = FEW_ROWS.pack(
                self.address, x_NI.data_ptr(), 0 if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(), rows,
                self.outputs, self.inputs, self.depth, self.wide, self.block, self.half,
            )  # fmt: skip
            recorder.current.call("few_rows_share", call, work, (x_NI, bias_O), (y_NO,))
            return y_NO
        failed = library.pellucid_few_rows(
            self.address, x_NI.data_ptr(), None if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(), rows,
            self.outputs, self.inputs, self.depth, self.wide, self.block, self.half, threads(work),
        )  # fmt: skip
        if failed:
            raise Unsupported(f"no kernel for {self}", where="ops.cpu")
        return y_NO


def panels(matrix: Tensor, outputs: int, inputs: int) -> Panels | None:
    """How oneDNN laid out a packed matrix, if our kernel gives the bits of its product; else None.

    The layout is oneDNN's own affair, and so is the order of its sums. So both are tried on this very matrix: what
    gives the same bits for a row of noise reads the right numbers in the right order. (bfloat16 has so few bits that
    another order seldom shows: there it takes many rows.)
    """
    library = kernels()
    half = matrix.dtype is torch.bfloat16
    if library is None or not hasattr(torch.ops.mkldnn, "data_ptr") or not outputs or not inputs:
        return None
    if half and bfloat16_way() != IN_PAIRS:  # in tiles oneDNN is faster
        return None
    address = torch.ops.mkldnn.data_ptr(matrix)
    size = torch.ops.mkldnn._nbytes(matrix) // matrix.element_size()
    rows = min(max(2, NOISE // outputs), 4096) if half else 2
    x_NI = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    x_NI = x_NI.to(matrix.dtype)
    wanted_NO = torch.ops.mkldnn._linear_pointwise(x_NI, matrix, None, "none", [], "")
    tried = rows if half else 1
    for wide in (wide for wide in WIDTHS if wide % library.pellucid_vector() == 0):
        depth, beyond = divmod(size, -(-outputs // wide) * wide)
        if beyond or not inputs <= depth < inputs + 64:
            continue
        for block in BLOCKS if inputs > min(BLOCKS) else BLOCKS[:1]:
            found = Panels(address, outputs, inputs, depth, wide, block, half)
            if torch.equal(found(x_NI[:tried], None), wanted_NO[:tried]):
                return found
    return None
