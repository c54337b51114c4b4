"""Native kernels: C++ behind a plain C interface, built when the package is installed if a compiler is there.

Without them everything works in torch. They run on torch's own OpenMP threads: no second pool competes with it. Their
written-out references are in the tests that compare them (tests/ops/test_cpu.py).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from pellucid.errors import Unsupported

FILE = Path(__file__).with_name("kernels.so")
ROWS = 6  # most rows of x that every level takes: with more, a product is bound by arithmetic, and oneDNN's is as fast
WORTH_SHARING = 2**19  # multiply-adds of a product, from which a second thread pays
WIDTHS = (64, 48, 32, 24, 16, 8)  # outputs side by side in oneDNN's layouts
BLOCKS = (1024, 512, 2048)  # products that oneDNN sums before they join the total


@lru_cache(maxsize=1)
def kernels() -> ctypes.CDLL | None:
    """The library, bound to torch's OpenMP runtime; None where it was not built, or not for this processor."""
    runtime = openmp()
    if not FILE.is_file() or runtime is None:
        return None
    try:
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)  # it is loaded already: now its names are found
        found = ctypes.CDLL(str(FILE))
    except OSError:  # built for another system
        return None
    if not found.pellucid_vector():
        return None
    found.pellucid_few_rows.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 6 + [ctypes.c_int]
    return found


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


@dataclass(frozen=True)
class Panels:
    """A float32 matrix that lies in memory as [ceil(outputs / wide), depth, wide], with zeros beyond its edges.

    Called with at most `ROWS` rows it gives x W^T + b, the same bits for a row in any company.
    """

    address: int
    outputs: int
    inputs: int
    depth: int
    wide: int
    block: int

    def __call__(self, x_NI: Tensor, bias_O: Tensor | None) -> Tensor:
        """[N, O]; all float32 on the CPU."""
        library = kernels()
        assert library is not None, "panels are only found where there is a library"
        x_NI, bias_O = x_NI.contiguous(), None if bias_O is None else bias_O.contiguous()
        rows = x_NI.shape[0]
        y_NO = x_NI.new_empty(rows, self.outputs)
        work = rows * self.outputs * self.inputs
        failed = library.pellucid_few_rows(
            self.address, x_NI.data_ptr(), None if bias_O is None else bias_O.data_ptr(), y_NO.data_ptr(), rows,
            self.outputs, self.inputs, self.depth, self.wide, self.block,
            1 if work < WORTH_SHARING else torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise Unsupported(f"no kernel for {rows} rows of {self}", where="ops.cpu")
        return y_NO


def panels(matrix: Tensor, outputs: int, inputs: int) -> Panels | None:
    """How oneDNN laid out a packed float32 matrix, if our kernel gives the bits of its product; else None.

    The layout is oneDNN's own affair, and so is the order of its sums. So both are tried on this very matrix: what
    gives the same bits for a row of noise reads the right numbers in the right order.
    """
    library = kernels()
    if library is None or not hasattr(torch.ops.mkldnn, "data_ptr") or not outputs or not inputs:
        return None
    address, size = torch.ops.mkldnn.data_ptr(matrix), torch.ops.mkldnn._nbytes(matrix) // 4
    x_2I = torch.randn(2, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    wanted_2O = torch.ops.mkldnn._linear_pointwise(x_2I, matrix, None, "none", [], "")
    for wide in (wide for wide in WIDTHS if wide % library.pellucid_vector() == 0):
        depth, beyond = divmod(size, -(-outputs // wide) * wide)
        if beyond or not inputs <= depth < inputs + 64:
            continue
        for block in BLOCKS if inputs > min(BLOCKS) else BLOCKS[:1]:
            found = Panels(address, outputs, inputs, depth, wide, block)
            if torch.equal(found(x_2I[:1], None), wanted_2O[:1]):
                return found
    return None
