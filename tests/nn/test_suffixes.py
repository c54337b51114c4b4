"""Shape suffixes tell the truth, in every family, with and without a cache, padded and not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import reference as ref
from suffixes import checked


@pytest.mark.parametrize("case", ref.cases(variants=False, tasks=False), ids=str)
def test_names_tell_the_shapes(case: ref.Case, checkpoints: Path) -> None:
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    given = ref.inputs(case, batch=2, time=7)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    with checked("/pellucid/nn/", "/pellucid/ops/") as lies, torch.no_grad():
        model(**given, output_attentions=True)
        model(**given, attention_mask=mask)
        if model.can_generate():
            model.generate(given["input_ids"], attention_mask=mask, max_new_tokens=2, do_sample=False)
    assert not lies


def test_a_lie_is_found() -> None:
    def wrong(x_BT: torch.Tensor) -> torch.Tensor:
        y_T = x_BT.sum(0)
        z_B = y_T
        return z_B + 0

    with checked(__file__) as lies:
        wrong(torch.zeros(2, 3))
    assert lies
    assert "z_B is (3,), but B=2" in lies[0]
