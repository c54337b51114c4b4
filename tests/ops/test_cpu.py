"""The native kernels beside what they replace: the bits of oneDNN's product, over odd shapes, threads and strides."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.nn.linear import Packed
from pellucid.ops import cpu

BUILT = cpu.kernels() is not None
needs_kernels = pytest.mark.skipif(not BUILT, reason="no native kernels: no compiler at install, or no AVX2")
SHAPES = [(1, 7), (5, 3), (37, 77), (63, 1), (64, 64), (65, 1023), (100, 1025), (129, 2048), (512, 512), (300, 4100)]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_kernels_are_built_where_they_can_be() -> None:
    if platform.machine() != "x86_64" or not Path("/proc/self/maps").exists() or not shutil.which("c++"):
        pytest.skip("kernels are for x86-64 under Linux, built by a compiler")
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    assert BUILT


@needs_kernels
@pytest.mark.parametrize("outputs", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("O", "I"), SHAPES)
def test_few_rows_have_the_bits_of_many(O: int, I: int, outputs: bool, threads: int) -> None:  # noqa: E741
    """A row alone, among a few (our kernel), and among many (oneDNN's) is one row of numbers."""
    chance = torch.Generator().manual_seed(O + I)
    weight_OI, x_NI = torch.randn(O, I, generator=chance), torch.randn(40, I, generator=chance)
    bias_O = torch.randn(O, generator=chance) if outputs else None
    packed = Packed(torch.nn.Parameter(weight_OI))
    with torch.inference_mode():
        many_NO = packed(x_NI, bias_O)
        for rows in (1, 2, 3, cpu.ROWS, cpu.ROWS + 1, 17):
            assert torch.equal(packed(x_NI[:rows], bias_O), many_NO[:rows]), rows
    exact_NO = F.linear(x_NI.double(), weight_OI.double(), None if bias_O is None else bias_O.double())
    assert (many_NO - exact_NO).abs().max() < 1e-5 * exact_NO.abs().max()


@needs_kernels
def test_common_layers_are_read_by_the_kernel() -> None:
    """Otherwise a small layout change in oneDNN would silently cost half the speed."""
    for O, I in ((64, 64), (512, 1536), (1000, 300)):  # noqa: E741
        assert Packed(torch.nn.Parameter(torch.randn(O, I))).panels is not None


@needs_kernels
def test_rows_that_lie_apart(threads: int) -> None:
    packed = Packed(torch.nn.Parameter(torch.randn(70, 90)))
    x_NI = torch.randn(3, 180)[:, ::2]
    with torch.inference_mode():
        assert torch.equal(packed(x_NI, None), packed(x_NI.contiguous(), None))


@needs_kernels
def test_a_matrix_that_is_not_a_number_is_left_to_onednn() -> None:
    """Bits that cannot be compared are not trusted."""
    weight_OI = torch.randn(64, 64)
    weight_OI[0, 0] = float("nan")
    assert Packed(torch.nn.Parameter(weight_OI)).panels is None


@needs_kernels
def test_one_openmp_runtime() -> None:
    """Two pools of threads would fight for the cores. In a process of its own: sentencepiece brings a runtime, too."""
    program = "from pellucid.ops import cpu; assert cpu.kernels(); print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    files = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "omp" in line}
    runtimes = {file for file in files if Path(file).name.startswith(("libgomp", "libiomp", "libomp"))}
    assert runtimes == {cpu.openmp()}


@needs_kernels
def test_what_the_kernel_does_not_take_is_refused() -> None:
    packed = Packed(torch.nn.Parameter(torch.randn(64, 64)))
    assert packed.panels is not None
    with pytest.raises(cpu.Unsupported, match="9 rows"):
        packed.panels(torch.randn(9, 64), None)


def written_out(x_NI: Tensor, weight_OI: Tensor, block: int) -> Tensor:
    """The kernel's order of sums, in float64 where a chain of float32 multiply-adds rounds once each."""
    total_NO = torch.zeros(len(x_NI), len(weight_OI))
    for start in range(0, x_NI.shape[1], block):
        sum_NO = torch.zeros_like(total_NO)
        for k in range(start, min(start + block, x_NI.shape[1])):
            sum_NO = (x_NI[:, k, None].double() * weight_OI[:, k].double() + sum_NO.double()).float()
        total_NO = total_NO + sum_NO if start else sum_NO
    return total_NO


@needs_kernels
@pytest.mark.parametrize(("O", "I"), [(64, 64), (37, 77), (65, 1100)])
def test_the_order_of_the_sums(O: int, I: int) -> None:  # noqa: E741
    """Against the definition; a float64 sum rounded to float32 differs from a true multiply-add in rare ties only."""
    weight_OI, x_NI = torch.randn(O, I), torch.randn(2, I)
    packed = Packed(torch.nn.Parameter(weight_OI))
    assert packed.panels is not None
    with torch.inference_mode():
        same = packed(x_NI, None) == written_out(x_NI, weight_OI, packed.panels.block)
    assert same.float().mean() > 0.99
