"""AWQ: scales and cut ranges lose less than the nearest numbers; and what other packers of ours write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import quantized
from pellucid.ops.packed import PackedTensor
from pellucid.quant import _awq_scaling as scaling
from pellucid.quant._columns import awq
from pellucid.quant._gptq_rounding import Rounding, nearest, output_loss
from pellucid.quant._hqq import hqq
from pellucid.quant._scaled import fp8_blocks, in_words

PLAIN = Rounding(4, 32, symmetric=False)


def layer() -> tuple[Tensor, Tensor, Tensor]:
    """A matrix, sum of x x^T and mean of |x|, where few inputs are large."""
    chance = torch.Generator().manual_seed(2)
    x_NI = torch.randn(300, 96, generator=chance) * (1.5 * torch.randn(96, generator=chance)).exp()
    return torch.randn(24, 96, generator=chance) / 10, x_NI.t() @ x_NI, x_NI.abs().mean(0)


def test_each_step_loses_less() -> None:
    weight, hessian, mean = layer()
    blocks = scaling.blocks(hessian, 32)
    scale = scaling.searched([(weight, blocks)], mean)
    rescaled = scaling.blocks(hessian / scale[:, None] / scale, 32)

    def lost(numbers: Tensor) -> float:
        return output_loss(numbers - weight, hessian)

    plain = lost(nearest(weight, PLAIN, shrinks=(1.0,)).numbers())
    scaled = lost(nearest(weight * scale, PLAIN, shrinks=(1.0,)).numbers() / scale)
    cut = lost(scaling.clipped(weight, blocks).numbers())
    both = lost(scaling.clipped(weight * scale, rescaled).numbers() / scale)
    assert scaled < 0.7 * plain and cut < 0.9 * plain and both < min(scaled, cut)


def test_blocks_are_those_of_the_groups() -> None:
    _, hessian, _ = layer()
    blocks = scaling.blocks(hessian, 32)
    assert blocks.shape == (3, 32, 32)
    assert all(torch.equal(blocks[g], hessian[32 * g : 32 * g + 32, 32 * g : 32 * g + 32]) for g in range(3))


def test_inputs_alike_are_not_scaled() -> None:
    weight, _, _ = layer()
    scale = scaling.searched([(weight, torch.eye(32).expand(3, 32, 32))], torch.ones(96))
    assert torch.equal(scale, torch.ones(96))


def test_the_published_layout_of_awq() -> None:
    """Eight outputs to a word, those numbered 0 2 4 6 1 3 5 7 from the lowest bits up."""
    weight, hessian, _ = layer()
    found = scaling.clipped(weight, scaling.blocks(hessian, 32))
    packed = awq(found)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    for part, numbers in (("qweight", found.q_OI), ("qzeros", found.zeros_OG)):
        columns = numbers.numpy().T.reshape(numbers.shape[1], -1, 8)[:, :, order].reshape(numbers.shape[1], -1)
        assert torch.equal(packed.parts[part], quantized.words(columns, 4)), part
    assert torch.equal(packed.dense(), found.numbers())


# ------------------------------------------------------------------------------------------------ without a text


@pytest.mark.parametrize(
    ("pack", "near"),
    [
        (fp8_blocks, 0.03),
        (lambda numbers: in_words(numbers, 8, -1), 0.01),
        (lambda numbers: in_words(numbers, 4, 32), 0.1),
        (lambda numbers: in_words(numbers, 8, 32), 0.01),
        (lambda numbers: hqq(numbers, 8, 32), 0.01),
        (lambda numbers: hqq(numbers, 4, 32), 0.1),
        (lambda numbers: hqq(numbers, 2, 32), 0.5),
    ],
    ids=["fp8", "int8 rows in words", "int4 in words", "int8 in words", "hqq-8", "hqq-4", "hqq-2"],
)
def test_numbers_are_kept(pack: Callable[[Tensor], PackedTensor], near: float) -> None:
    weight = layer()[0]
    weight[3] = 0
    for dtype in (torch.float32, torch.bfloat16):
        packed = pack(weight.to(dtype))
        found = packed.dense()
        assert packed.dtype == dtype and found.shape == weight.shape
        assert float((found.float() - weight).norm() / weight.norm()) < near + 0.01 * (dtype == torch.bfloat16)
        assert not bool(found[3].any()) or packed.kind.startswith("HQQ")


def test_the_published_layouts_of_compressed_tensors_and_fp8() -> None:
    weight = layer()[0]
    words = in_words(weight, 4, 32)
    q = np.rint((words.dense() / words.parts["weight_scale"].float().repeat_interleave(32, 1)).numpy()).astype(int) + 8
    assert q.min() >= 0 and q.max() <= 15
    assert torch.equal(words.parts["weight_packed"], quantized.words(q, 4))
    assert words.parts["weight_shape"].tolist() == [24, 96]
    rows = in_words(weight, 8, -1)
    assert rows.parts["weight_scale"].shape == (24, 1) and rows.parts["weight_packed"].shape == (24, 24)
    wide = torch.randn(200, 300, generator=torch.Generator().manual_seed(1))
    blocks = fp8_blocks(wide)
    assert blocks.parts["weight_scale_inv"].shape == (2, 3)
    assert torch.allclose(blocks.parts["weight_scale_inv"][1, 2], wide[128:, 256:].abs().max() / 448)
    assert int((blocks.parts["weight"].float().abs() == 448).sum()) >= 6  # the largest of each block


def test_hqq_loses_less_than_a_zero_point_of_the_extremes() -> None:
    """In the norm that it searches by: its zero points are not those it begins with."""
    chance = torch.Generator().manual_seed(3)
    weight = torch.randn(32, 64, generator=chance) / 50
    found = hqq(weight, 4, 64).dense()
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    plain = ((weight / scale + zero).round().clamp(0, 15) - zero) * scale
    assert float((found - weight).abs().pow(0.7).sum()) < 0.99 * float((plain - weight).abs().pow(0.7).sum())


def test_a_symmetric_grid_is_symmetric() -> None:
    weight = layer()[0]
    found = nearest(weight, replace(PLAIN, symmetric=True))
    assert found.zeros_OG.unique().tolist() == [8]
