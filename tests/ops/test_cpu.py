"""The native kernels beside what they replace: the bits of oneDNN's product, over odd shapes, threads and strides."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from native import needs_kernels as native_kernels
from native import on_threads, skip_where_they_cannot_be_built
from pellucid.nn.linear import Packed, reordered_product
from pellucid.ops import cpu

BUILT = cpu.kernels() is not None
PANELS = [torch.float32] + [torch.bfloat16] * (cpu.bfloat16_way() == cpu.IN_PAIRS)
needs_kernels = native_kernels(BUILT)
SHAPES = [(1, 7), (5, 3), (37, 77), (63, 1), (64, 64), (65, 1023), (100, 1025), (129, 2048), (512, 512), (300, 4100)]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with on_threads(request.param) as count:
        yield count


def test_kernels_are_built_where_they_can_be() -> None:
    skip_where_they_cannot_be_built()
    assert BUILT


@needs_kernels
@pytest.mark.parametrize("dtype", PANELS, ids=str)
@pytest.mark.parametrize("outputs", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("O", "I"), SHAPES)
def test_few_rows_have_the_bits_of_many(
    O: int,  # noqa: E741
    I: int,  # noqa: E741
    outputs: bool,
    dtype: torch.dtype,
    threads: int,
) -> None:
    """A row alone, among a few (our kernel), and among many (oneDNN's) is one row of numbers."""
    chance = torch.Generator().manual_seed(O + I)
    weight_OI, x_NI = (torch.randn(rows, I, generator=chance).to(dtype) for rows in (O, 500))
    bias_O = torch.randn(O, generator=chance).to(dtype) if outputs else None
    packed = Packed(torch.nn.Parameter(weight_OI))
    with torch.inference_mode():
        many_NO = packed(x_NI, bias_O)
        for rows in (1, 2, 3, cpu.ROWS, cpu.ROWS + 1, 17, 99):
            assert torch.equal(packed(x_NI[:rows], bias_O), many_NO[:rows]), rows
        assert torch.equal(reordered_product(x_NI, packed.matrix, bias_O), many_NO)
    exact_NO = F.linear(x_NI.double(), weight_OI.double(), None if bias_O is None else bias_O.double())
    rounding = 1e-5 if dtype is torch.float32 else 0.6 * torch.finfo(dtype).eps
    assert (many_NO - exact_NO).abs().max() < rounding * exact_NO.abs().max()


@needs_kernels
@pytest.mark.parametrize("dtype", PANELS, ids=str)
def test_common_layers_are_read_by_the_kernel(dtype: torch.dtype) -> None:
    """Otherwise a small layout change in oneDNN would silently cost half the speed."""
    for O, I in ((64, 64), (512, 1536), (1000, 300), (768, 3072)):  # noqa: E741
        assert Packed(torch.nn.Parameter(torch.randn(O, I).to(dtype))).panels is not None


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
    with pytest.raises(cpu.Unsupported, match="wide=7"):
        replace(packed.panels, wide=7)(torch.randn(9, 64), None)


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


def ways() -> list[int]:
    """How this processor can multiply in bfloat16, besides the way that it prefers."""
    flags = Path("/proc/cpuinfo").read_text() if BUILT else ""
    return [way for way, flag in ((1, "avx2"), (2, "avx512bw"), (3, "avx512_bf16")) if flag in flags]


def halves(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@needs_kernels
@pytest.mark.parametrize("way", ways(), ids=cpu.WAYS.get)
@pytest.mark.parametrize("outputs", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("O", "I"), SHAPES)
def test_a_bfloat16_product(O: int, I: int, outputs: bool, way: int, threads: int) -> None:  # noqa: E741
    """One row of numbers in any company, rounded once from a float32 sum."""
    weight_OI, x_NI, bias_O = halves(O, I), halves(101, I, seed=1), halves(O, seed=2) if outputs else None
    many_NO = cpu.product(x_NI, weight_OI, bias_O, way)
    for rows in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 47, 48, 49, 55):
        assert torch.equal(cpu.product(x_NI[:rows], weight_OI, bias_O, way), many_NO[:rows]), rows
    assert torch.equal(cpu.product(x_NI[96:], weight_OI, bias_O, way), many_NO[96:])
    exact_NO = F.linear(x_NI.double(), weight_OI.double(), None if bias_O is None else bias_O.double())
    rounding_NO = exact_NO.abs() * torch.finfo(torch.bfloat16).eps / 2 + 1e-5 * I**0.5
    assert ((many_NO.double() - exact_NO).abs() <= rounding_NO).all()


@needs_kernels
@pytest.mark.parametrize("way", ways(), ids=cpu.WAYS.get)
def test_more_threads_than_outputs(way: int) -> None:
    """A thread without outputs writes nothing, not even before the first one."""
    weight_OI, x_NI = halves(5, 8192)[1:4], halves(40, 8192, seed=1)
    with on_threads(1):
        alone_NO = cpu.product(x_NI, weight_OI, None, way)
    with on_threads(2):
        assert cpu.WORTH_SHARING <= 40 * 3 * 8192
        for _ in range(10):
            assert torch.equal(cpu.product(x_NI, weight_OI, None, way), alone_NO)


@needs_kernels
@pytest.mark.parametrize("way", [way for way in ways() if way < 3], ids=cpu.WAYS.get)
@pytest.mark.parametrize(("O", "I"), [(64, 64), (37, 78), (5, 2500)])
def test_the_order_of_bfloat16_sums(O: int, I: int, way: int) -> None:  # noqa: E741
    """Against the definition: 1024 products at a time, lane for lane, and halves of the lanes added to halves.

    Every product comes with its opposite at some other place: what is left is the rounding of the sums, nothing else.
    """
    lanes = {1: 8, 2: 16}[way]
    weight_OI, x_NI = halves(O, I // 2), halves(3, I // 2, seed=1)
    places = torch.randperm(I, generator=torch.Generator().manual_seed(2))
    weight_OI, x_NI = torch.cat([weight_OI, -weight_OI], 1)[:, places], torch.cat([x_NI, x_NI], 1)[:, places]
    total_NO = torch.zeros(3, O)
    for start in range(0, I, 1024):
        w_OI, part_NI = (t[:, start : start + 1024].double() for t in (weight_OI, x_NI))
        spare = -w_OI.shape[1] % (2 * lanes)
        products_NOI = F.pad(w_OI * part_NI[:, None], (0, spare))
        sums_NOL = torch.zeros(3, O, lanes)
        for step_NO2L in products_NOI.split(2 * lanes, -1):
            for which in (0, 1):
                sums_NOL = (sums_NOL.double() + step_NO2L[..., which::2]).float()
        while sums_NOL.shape[-1] > 1:
            left_NOL, right_NOL = sums_NOL.chunk(2, -1)
            sums_NOL = left_NOL + right_NOL
        total_NO = total_NO + sums_NOL[..., 0] if start else sums_NOL[..., 0]
    assert total_NO.any()
    assert torch.equal(cpu.product(x_NI, weight_OI, None, way), total_NO.bfloat16())


@needs_kernels
@pytest.mark.parametrize("way", ways(), ids=cpu.WAYS.get)
def test_bfloat16_rounds_to_even_and_keeps_what_is_no_number(way: int) -> None:
    unit = 2.0**-7
    weight_OI = torch.tensor([[1, unit / 2, 0], [1, unit, unit / 2], [float("inf"), 1, 0], [float("nan"), 1, 0]])
    y_NO = cpu.product(torch.ones(1, 3).bfloat16(), weight_OI.bfloat16(), None, way)
    assert y_NO[0, :3].tolist() == [1, 1 + 2 * unit, float("inf")]
    assert y_NO[0, 3].isnan()


@needs_kernels
@pytest.mark.parametrize("way", ways(), ids=cpu.WAYS.get)
def test_bfloat16_rows_that_lie_apart(way: int) -> None:
    """A slice of a fused matrix, and rows of a wider one, are read where they are."""
    fused_OI, x_NI = halves(70, 300), halves(9, 200, seed=1)
    here = cpu.product(x_NI[:, 50:140], fused_OI[:, 33:123], None, way)
    assert torch.equal(here, cpu.product(x_NI[:, 50:140].contiguous(), fused_OI[:, 33:123].contiguous(), None, way))
    every_other = cpu.product(x_NI[:, ::2], fused_OI[:, :100], None, way)
    assert torch.equal(every_other, cpu.product(x_NI[:, ::2].contiguous(), fused_OI[:, :100], None, way))
    whole_3BO = cpu.product(x_NI.view(3, 3, 200), fused_OI[:, :200], None, way)
    assert torch.equal(whole_3BO.flatten(0, 1), cpu.product(x_NI, fused_OI[:, :200], None, way))


@needs_kernels
def test_a_way_that_the_processor_has_not_is_refused() -> None:
    with pytest.raises(cpu.Unsupported, match="nothing"):
        cpu.product(halves(1, 8), halves(8, 8), None, 0)


def test_what_the_bfloat16_kernel_leaves_to_others() -> None:
    x_NI, weight_OI, bias_O = halves(2, 8), halves(4, 8), halves(4)
    assert cpu.multiplies(x_NI, weight_OI, bias_O) == (cpu.bfloat16_way() > 0)
    assert not cpu.multiplies(x_NI.float(), weight_OI, bias_O)
    assert not cpu.multiplies(x_NI, weight_OI.float(), bias_O)
    assert not cpu.multiplies(x_NI, weight_OI, bias_O.float())
    assert not cpu.multiplies(x_NI[:0], weight_OI, bias_O)
    assert not cpu.multiplies(x_NI, weight_OI.T.contiguous().T, bias_O)
    assert not cpu.multiplies(x_NI[:, :7], weight_OI, bias_O)
    assert not cpu.multiplies(x_NI.to("meta"), weight_OI.to("meta"), bias_O)
