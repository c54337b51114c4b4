"""A model made from a config is written under the names that the reference gives its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import pellucid
import reference as ref
from pellucid import families
from pellucid.models.model import Model
from pellucid.models.sides import table_for


@pytest.mark.parametrize("case", ref.cases() if ref.full() else ref.cases(variants=False, tasks=False), ids=str)
def test_new_checkpoints_have_the_published_names(case: ref.Case, checkpoints: Path) -> None:
    folder = ref.checkpoint(case, checkpoints)
    config = pellucid.AutoConfig.from_pretrained(folder)
    family = families.find(config.model_type)
    task, spec = family.task(case.task), family.spec(config)[0]
    table = table_for(task, family.table(config, task), spec)
    with torch.device("meta"):
        model = Model(spec.of(task), config, table, task)
    with safe_open(folder / "model.safetensors", "pt") as file:  # but for eyes and ears, which a text part is without
        published = {name for name in file.keys() if not ((place := table.find(name)) and place.keep)}  # noqa: SIM118
    assert {name for name, _ in model.file_places()} == published
