"""GPTQ: less is lost in outputs than to the nearest numbers; the layout holds what was rounded, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import quantized
from pellucid.quant._columns import gptq
from pellucid.quant._gptq_rounding import Rounding, fitted, nearest, output_loss


def layer(outputs: int = 24, inputs: int = 96, tokens: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix, and the sum of x x^T of inputs that go together, some of them large."""
    chance = torch.Generator().manual_seed(5)
    mixed = torch.randn(inputs, inputs, generator=chance) * torch.rand(inputs, generator=chance)
    x_NI = torch.randn(tokens, inputs, generator=chance) @ mixed
    return torch.randn(outputs, inputs, generator=chance) / inputs**0.5, x_NI.t() @ x_NI


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_less_is_lost_than_to_the_nearest(bits: int, symmetric: bool) -> None:
    weight, hessian = layer()
    how = Rounding(bits, 32, symmetric=symmetric)
    plain = output_loss(nearest(weight, how).numbers() - weight, hessian)
    in_turn = output_loss(
        fitted(weight, hessian, Rounding(bits, 32, symmetric, ordered=False)).numbers() - weight, hessian
    )
    ordered = output_loss(fitted(weight, hessian, how).numbers() - weight, hessian)
    assert in_turn < 0.8 * plain and ordered < in_turn


def test_of_inputs_that_have_nothing_to_do_with_each_other_each_number_goes_to_the_nearest() -> None:
    weight, _ = layer()
    how = Rounding(4, 32)
    found, plain = fitted(weight, torch.eye(96) * 7, how), nearest(weight, how)
    assert torch.equal(found.q_OI, plain.q_OI) and torch.equal(found.scales_OG, plain.scales_OG)


@pytest.mark.parametrize("neighbours", [True, False])
def test_groups(neighbours: bool) -> None:
    weight, hessian = layer()
    found = fitted(weight, hessian, Rounding(4, 32, neighbours=neighbours))
    sizes = found.group_I.bincount().tolist()
    assert sizes == [32, 32, 32]
    in_turn = torch.equal(found.group_I, torch.arange(96, dtype=torch.int32) // 32)
    assert in_turn == neighbours
    used = hessian.diagonal().argsort(descending=True)[:32]
    assert neighbours or set(found.group_I[used].tolist()) == {0}  # what is used most shares a scale


def test_one_group_of_all_inputs_over_several_stretches_of_columns() -> None:
    weight, hessian = layer(8, 320, 900)
    how = Rounding(4, -1)
    found = fitted(weight, hessian, how)
    assert found.scales_OG.shape == (8, 1)
    assert output_loss(found.numbers() - weight, hessian) < output_loss(
        nearest(weight, how).numbers() - weight, hessian
    )


@pytest.mark.parametrize("spoil", ["an input that is always zero", "few tokens", "no tokens", "a row of zeros"])
def test_what_there_is_too_little_of(spoil: str) -> None:
    weight, hessian = layer(tokens=5 if spoil == "few tokens" else 300)
    if spoil.startswith("an input"):
        hessian[3], hessian[:, 3] = 0, 0
    if spoil == "no tokens":
        hessian.zero_()
    if spoil == "a row of zeros":
        weight[2] = 0
    found = fitted(weight, hessian, Rounding(4, 32)).numbers()
    assert bool(found.isfinite().all()) and float((found - weight).norm() / weight.norm()) < 0.4
    assert spoil != "a row of zeros" or not bool(found[2].any())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("how", [Rounding(4, 32), Rounding(4, 32, symmetric=False, neighbours=False), Rounding(4, -1)])
def test_the_published_layout(bits: int, how: Rounding) -> None:
    """Words put together as Python integers: qweight along the inputs, qzeros along the outputs and one less."""
    weight, hessian = layer(32)
    how = Rounding(bits, how.group, how.symmetric, neighbours=how.neighbours)
    found = fitted(weight, hessian, how)
    packed = gptq(found, bits)
    zeros = found.zeros_OG.numpy().T
    assert torch.equal(packed.parts["qweight"], quantized.words(found.q_OI.numpy(), bits).t())
    assert torch.equal(packed.parts["qzeros"], quantized.words((zeros - 1) % 2**bits, bits))
    assert packed.parts["scales"].dtype == torch.float16 and packed.parts["g_idx"].dtype == torch.int32
    assert torch.equal(packed.dense(), found.numbers())
    assert zeros.min() >= 1  # 0 would be stored as -1, which kernels read in two ways
    if not how.symmetric:
        assert len(np.unique(zeros)) > 1
