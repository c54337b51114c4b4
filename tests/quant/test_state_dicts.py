"""Packed weights through torch.save, and through torch.load that runs no code: every format that is written here."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from pellucid import AutoModelForCausalLM, hub
from pellucid.models.targets import TARGETS, Options
from pellucid.ops.packed import PackedTensor

TWICE = ("gptq-2", "gptq-3", "gptq-8", "fp4")  # of a format that is there with other numbers
NAMES = [name for name, each in TARGETS.items() if each.container == "safetensors" and name not in TWICE] + ["q8_0"]


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_is_the_same_again(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    place = tmp_path / ("m.gguf" if target.container == "gguf" else "m")
    asked = {"double": True, "group_size": 32}  # two kinds of scales; groups that fit into a small model
    options = Options(settings={key: value for key, value in asked.items() if key in target.settings})
    target.run(hub.default_model(), place, options)
    model, fresh = (AutoModelForCausalLM.from_pretrained(place) for _ in range(2))
    held, file = model.state_dict(), io.BytesIO()
    assert any(isinstance(tensor, PackedTensor) for tensor in held.values())
    torch.save(held, file)
    file.seek(0)
    found = torch.load(file, weights_only=True)
    for key, tensor in held.items():
        assert type(found[key]) is type(tensor.detach()) and torch.equal(found[key], tensor)
    fresh.load_state_dict(found)
    ids = torch.tensor([[1, 5, 2, 7]])
    with torch.inference_mode():
        assert torch.equal(fresh(ids).logits, model(ids).logits)
