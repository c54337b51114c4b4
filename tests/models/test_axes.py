"""Positions on three axes, as an image between words gives them, against the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pellucid
import reference as ref

FAMILIES = ["cohere_compass_text"]


@pytest.mark.parametrize("family", FAMILIES)
def test_three_axes_agree_with_the_reference(family: str, checkpoints: Path) -> None:
    mine, theirs = ref.pair(ref.case(family, "", "causal-lm"), checkpoints)
    ids = torch.randint(3, 101, (2, 13), generator=torch.Generator().manual_seed(0))
    line = torch.arange(13).clamp_max(5)  # five words, then an image of 2 rows and 4 columns
    patch = torch.arange(13) - 5
    axes = torch.stack(
        [line, torch.where(patch < 0, line, 5 + patch // 4), torch.where(patch < 0, line, 5 + patch % 4)]
    )
    axes = axes[:, None].expand(3, 2, 13)
    with torch.no_grad():
        found = mine(ids, position_ids=axes).logits
        assert ref.distance(found, theirs(ids, position_ids=axes).logits) < 1e-4
        assert ref.distance(found, mine(ids).logits) > 1e-2


def test_axes_of_another_shape_are_refused(checkpoints: Path) -> None:
    mine, _ = ref.pair(ref.case(FAMILIES[0], "", "causal-lm"), checkpoints)
    with pytest.raises(pellucid.PellucidError, match="position_ids"):
        mine(torch.full((2, 5), 7), position_ids=torch.zeros(4, 2, 5, dtype=torch.long))
