"""Products with GGUF's blocks against the definition: x rounded to 8 bits, times the unpacked numbers, in float64."""

from __future__ import annotations

import pytest
import torch

from native import needs_kernels, on_threads
from pellucid.models.sizes import ROUNDING
from pellucid.ops.cpu import blocks as native
from pellucid.quant._blocks import TYPES, UNPACK, GgufBlocks

pytestmark = needs_kernels(native.library() is not None)


def levels() -> list[int]:
    found = native.library()
    return [level for level in native.LEVELS if found and found.pellucid_blocks_has(native.KINDS["Q8_0"], level)]


LEVELS = levels()
HALVES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q8_0": (0,), "Q4_0": (0,), "Q5_0": (0,), "IQ4_NL": (0,)}
HALVES |= {"IQ4_XS": (0,), "MXFP4": ()}  # where float16 scales are; in the others at 0 and 2


def matrix(kind: str, outputs: int, inputs: int) -> torch.Tensor:
    """Blocks of any bytes, but for the scales."""
    random, block = torch.Generator().manual_seed(outputs * inputs), TYPES[kind]
    blocks_nB = torch.randint(0, 256, (outputs * inputs // block.block, block.nbytes), generator=random).byte()
    for at in HALVES.get(kind, (0, 2)):
        scale = torch.rand(len(blocks_nB), 1, generator=random) * 0.02 - 0.005
        blocks_nB[:, at : at + 2] = scale.half().view(torch.uint8)
    if kind == "MXFP4":
        blocks_nB[:, 0] = torch.randint(0, 130, (len(blocks_nB),), generator=random).byte()
    return blocks_nB.view(outputs, -1)


def dense(blocks_OB: torch.Tensor, kind: str) -> torch.Tensor:
    return UNPACK[kind](blocks_OB.reshape(-1, TYPES[kind].nbytes)).view(len(blocks_OB), -1).double()


def rounded(x_NI: torch.Tensor, kind: str) -> torch.Tensor:
    """Whole numbers of at most 127, times a scale for each block."""
    x_NnB = x_NI.float().unflatten(1, (-1, TYPES[kind].block))
    scale = x_NnB.abs().amax(-1, keepdim=True) / 127
    whole = torch.round(x_NnB * torch.where(scale > 0, 1 / scale, 0))
    return (whole.double() * scale.double()).flatten(1)


def product(blocks_OB, kind, x_NI, bias_O, level=None):
    matrix = native.Blocks(blocks_OB, kind, x_NI.shape[1])
    assert matrix.takes(x_NI, bias_O)
    return matrix.product(x_NI, bias_O, level)


def inputs(rows: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x_NI = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)) * 3
    x_NI[0, : width // 2] = 0  # whole blocks of nothing
    return x_NI.to(dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", native.KINDS)
def test_the_definition(kind, level):
    width = 3 * 256 if TYPES[kind].block == 256 else 256 + 3 * 32
    for outputs, rows in ((1, 1), (70, 3), (33, 23), (8, 300)):
        blocks_OB, x_NI = matrix(kind, outputs, width), inputs(rows, width)
        bias_O = torch.randn(outputs)
        wanted = rounded(x_NI, kind) @ dense(blocks_OB, kind).T + bias_O
        found = product(blocks_OB, kind, x_NI, bias_O, level)
        assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()


@pytest.mark.parametrize("kind", native.KINDS)
def test_rows_have_the_same_bits_in_any_company_on_any_threads_at_any_level(kind):
    width = 1024
    blocks_OB, x_NI = matrix(kind, 70, width), inputs(29, width)
    wanted = product(blocks_OB, kind, x_NI, None)
    for level in LEVELS:
        for threads in (1, 2, 3):
            with on_threads(threads):
                assert torch.equal(product(blocks_OB, kind, x_NI, None, level), wanted)
        for first, count in ((0, 1), (1, 2), (3, 4), (7, 5), (12, 7), (19, 10)):
            alone = product(blocks_OB, kind, x_NI[first : first + count], None, level)
            assert torch.equal(alone, wanted[first : first + count])


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_bfloat16_is_rounded_once_at_the_end(kind):
    blocks_OB, x_NI = matrix(kind, 40, 512), inputs(9, 512, torch.bfloat16)
    bias_O = torch.randn(40).bfloat16()
    wanted = product(blocks_OB, kind, x_NI.float(), bias_O.float())
    assert torch.equal(product(blocks_OB, kind, x_NI, bias_O), wanted.bfloat16())


def test_views_of_x_and_of_the_blocks():
    blocks_OB, x_NI = matrix("Q6_K", 40, 512), inputs(12, 1024)
    wanted = product(blocks_OB[8:30].clone(), "Q6_K", x_NI[::2, 512:].contiguous(), None)
    assert torch.equal(product(blocks_OB[8:30], "Q6_K", x_NI[::2, 512:], None), wanted)
    other = x_NI[::2, 512:].T.contiguous().T  # neighbours of a row lie apart
    assert torch.equal(product(blocks_OB[8:30], "Q6_K", other, None), wanted)
    unaligned = torch.empty(blocks_OB.numel() + 1, dtype=torch.uint8)[1:].view_as(blocks_OB).copy_(blocks_OB)
    assert torch.equal(product(unaligned[8:30], "Q6_K", x_NI[::2, 512:], None), wanted)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["Q4_1", "Q4_K"])
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_what_is_not_finite_stays_so_in_its_row(kind, bad, level):
    blocks_OB, x_NI = matrix(kind, 9, 512), inputs(6, 512)
    x_NI[3, 77] = bad
    found = product(blocks_OB, kind, x_NI, None, level)
    assert found[3].isnan().all() and found[[0, 1, 2, 4, 5]].isfinite().all()


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e37])
def test_very_small_and_very_large_numbers(size):
    blocks_OB, x_NI = matrix("Q8_0", 9, 64), inputs(2, 64) * size
    found = product(blocks_OB, "Q8_0", x_NI, None).double()
    wanted = x_NI.double() @ dense(blocks_OB, "Q8_0").T
    assert (found - wanted).abs().max() <= 0.02 * wanted.abs().max() + 1e-36


def test_a_layer_takes_the_kernel_and_can_do_without():
    from pellucid.nn.linear import Linear
    from pellucid.ops.packed import exactly

    blocks_OB, x_NI = matrix("Q4_K", 12, 512), inputs(3, 512)
    layer = Linear(512, 12, bias=False)
    layer.weight = torch.nn.Parameter(GgufBlocks({"blocks": blocks_OB}, "Q4_K", (12, 512)), requires_grad=False)
    plain = x_NI.double() @ dense(blocks_OB, "Q4_K").T
    with torch.inference_mode():
        assert torch.equal(layer(x_NI), product(blocks_OB, "Q4_K", x_NI, None))
        with exactly():
            assert (layer(x_NI) - plain).abs().max() < 1e-5 * plain.abs().max()
        off = (layer(x_NI) - plain).norm() / plain.norm()
    assert 1e-3 < off < 2e-2  # rounded: as much as the format's own engine shows
    assert (layer(x_NI) - plain).abs().max() < 1e-5 * plain.abs().max()  # with gradients nothing is rounded


def test_scratch_for_many_rows_lives_as_long_as_the_product():
    blocks_OB, x_NI = matrix("Q8_0", 3, 4096), inputs(2000, 4096)  # 11 MB, which the allocator would give back
    wanted = torch.cat([product(blocks_OB, "Q8_0", part, None) for part in x_NI.split(50)])
    assert torch.equal(product(blocks_OB, "Q8_0", x_NI, None), wanted)


def test_plans_know_which_kinds_round() -> None:
    assert set(native.KINDS) == ROUNDING
