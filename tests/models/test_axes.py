"""Positions on three axes, as a caller gives them for text among images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import reference as ref


@pytest.mark.parametrize("family", ["qwen2_vl_text", "qwen3_vl_text"])
def test_three_axes_turn_as_in_the_reference(family: str, checkpoints: Path) -> None:
    case = ref.case(family, "", None)
    mine, theirs = ref.pair(case, checkpoints)
    given = ref.inputs(case)
    axes = torch.randint(0, 40, (3, 2, 13), generator=torch.Generator().manual_seed(5)).sort(-1).values
    with torch.no_grad():
        expected = theirs(**given, position_ids=axes).last_hidden_state
        found = mine(**given, position_ids=axes).last_hidden_state
        plain = mine(**given).last_hidden_state
    assert ref.distance(found, expected) < 1e-4
    assert ref.distance(plain, expected) > 1e-2
