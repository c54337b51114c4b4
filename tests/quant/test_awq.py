"""AWQ: checkpoints written number by number in AutoAWQ's layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import quantized
from pellucid import AutoModelForCausalLM
from pellucid.errors import Unsupported, WeightsError
from pellucid.ops.packed import PackedTensor
from pellucid.quant._columns import Awq

OPTIONS = {
    "quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True,
    "modules_to_not_convert": ["gate"],
}  # fmt: skip


def words(numbers: np.ndarray) -> torch.Tensor:
    """[n, m] -> int32 [n, m / 8]: of each eight, those numbered 0 2 4 6 1 3 5 7 one above the other."""
    order = [8 * first + at for first in range(numbers.shape[1] // 8) for at in (0, 2, 4, 6, 1, 3, 5, 7)]
    return quantized.words(numbers[:, order], 4)


def layout(group_size: int = 32) -> quantized.Layout:
    def write(name, shape, chance):
        outputs, inputs = shape
        size = inputs if group_size == -1 else group_size
        q, zeros = chance.integers(0, 16, (inputs, outputs)), chance.integers(0, 16, (inputs // size, outputs))
        scales = quantized.scales(chance, zeros.shape, inputs, 16)
        numbers = (q - zeros.repeat(size, 0)).astype(np.float32) * scales.astype(np.float32).repeat(size, 0)
        module = name.removesuffix("weight")
        parts = {"qweight": words(q), "qzeros": words(zeros), "scales": torch.from_numpy(scales)}
        return {module + part: tensor for part, tensor in parts.items()}, torch.from_numpy(numbers.T)

    return write


@pytest.mark.parametrize(("family", "group_size"), [("llama", 32), ("llama", -1), ("mixtral", 16)])
def test_a_checkpoint(family, group_size, tmp_path):
    packed, dense = quantized.models(family, tmp_path, layout(group_size), {**OPTIONS, "group_size": group_size})
    assert {p.kind for p in packed.parameters() if isinstance(p, PackedTensor)} == {"AWQ 4-bit"}
    quantized.assert_same(packed, dense)
    quantized.assert_saved_again(packed, tmp_path / f"{family} packed", tmp_path)


def test_rows_stay_packed_wherever_they_are_cut():
    parts, numbers = layout(16)("weight", (72, 64), np.random.default_rng(1))
    whole = Awq(parts, None, (72, 64))
    for sizes in ([8, 32, 32], [5, 33, 34]):
        pieces = whole.split(sizes)
        assert all(isinstance(piece, Awq) for piece in pieces)
        assert torch.equal(torch.cat([piece.dense() for piece in pieces]), numbers)
        assert torch.cat(pieces).same(whole)
    mixed = whole.view(2, 36, 64).transpose(0, 1).flatten(0, 1)
    assert isinstance(mixed, Awq) and torch.equal(mixed.dense(), numbers.view(2, 36, 64).transpose(0, 1).flatten(0, 1))
    assert torch.equal(whole.lookup(torch.tensor([3, 71])), numbers[[3, 71]])
    assert torch.equal(whole.dense(3, 13), numbers[3:13])


@pytest.mark.parametrize(("key", "value"), [("version", "gemv"), ("bits", 3), ("zero_point", False)])
def test_a_variant_that_is_not_read_is_named(key, value, tmp_path):
    folder, _ = quantized.write("llama", tmp_path, layout(), {**OPTIONS, key: value})
    with pytest.raises(Unsupported, match=f"{key}={value!r}"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_a_config_that_groups_otherwise(tmp_path):
    folder, _ = quantized.write("llama", tmp_path, layout(32), {**OPTIONS, "group_size": 16})
    with pytest.raises(WeightsError, match="group_size is 16"):
        AutoModelForCausalLM.from_pretrained(folder)
