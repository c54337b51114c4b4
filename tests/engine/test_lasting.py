"""The engine that a model's calls share on an accelerator, with steps that are recorded in name only."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from pellucid import AutoModelForCausalLM
from pellucid.engine import captured, lasting, runner
from pellucid.engine.captured import Captured
from pellucid.engine.engine import Engine
from pellucid.engine.request import Request

IDS = torch.tensor([[1, 5, 9, 12]])


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As if it were on an accelerator."""
    monkeypatch.setattr(lasting, "_records", lambda model: True)
    monkeypatch.setattr(captured, "free_bytes", lambda device: 2**28)
    monkeypatch.setattr(captured, "steps_of", lambda made: Captured(made) if made.pages.total else None)
    assert runner.captured is captured
    return AutoModelForCausalLM.from_pretrained()


def left(model: Any) -> Engine | None:
    return model.__dict__["_left"].engine


def write(model: Any, **options: Any) -> list[list[int]]:
    found: list[list[int]] = model.generate(IDS, do_sample=False, **{"max_new_tokens": 20, **options}).tolist()
    return found


def test_the_next_call_takes_it(model: Any) -> None:
    first = write(model)
    engine = left(model)
    assert engine is not None and engine.main.pages.total == lasting.LEAST
    recorded, computed = engine.main.captured.captures, engine.main.computed
    assert write(model) == first and left(model) is engine
    assert engine.main.captured.captures == recorded
    assert engine.main.computed == 2 * computed  # what was read is read again
    assert engine.main.pages.counts()["free"] == lasting.LEAST
    engine.check()


def test_more_tokens_want_more_pages(model: Any) -> None:
    write(model)
    engine = left(model)
    model.generate([[3 + i] * 400 for i in range(8)], max_new_tokens=20)
    assert left(model) is not engine and left(model).main.pages.total == 256
    assert write(model, max_new_tokens=5) and left(model).main.pages.total == 256


def test_a_model_that_changed_is_recorded_anew(model: Any) -> None:
    """Modules and parameters that are others; values that changed in place are read where they are."""
    first, engine = write(model), None
    for change in ("weight", "module", "hook", "values"):
        engine = left(model)
        if change == "weight":
            model.blocks[0].attn.q.weight = torch.nn.Parameter(model.blocks[0].attn.q.weight * 2)
        elif change == "module":
            model.blocks[1].mlp = copy.deepcopy(model.blocks[1].mlp)
        elif change == "hook":
            assert heard_by_a_hook(model) == 20
        else:
            with torch.no_grad():
                model.blocks[0].mlp.down.weight.mul_(-2)
        found = write(model)
        assert left(model) is engine
        assert found[0][4:] == plainly(model)
    assert write(model) != first


def plainly(model: Any) -> list[int]:
    """What the model writes with nothing recorded."""
    engine = Engine(model)
    engine.main.captured = None
    (job,) = engine.generate([Request(ids=IDS[0].tolist(), max_new=20)])
    found: list[int] = job.result()[0].ids
    return found


def heard_by_a_hook(model: Any) -> int:
    """How often a module that is hooked ran."""
    heard: list[int] = []
    hook = model.blocks[2].register_forward_hook(lambda module, args, out: heard.append(len(out)))
    write(model)
    hook.remove()
    return len(heard)


def test_what_keeps_its_pages_has_an_engine_of_its_own(model: Any) -> None:
    write(model)
    engine = left(model)
    for options in ({"num_beams": 3}, {"return_dict_in_generate": True}, {"prompt_lookup_num_tokens": 3}):
        model.generate(IDS, max_new_tokens=5, do_sample=False, **options)
    assert left(model) is engine


def test_copies_and_files_have_none(model: Any) -> None:
    write(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.__dict__["_left"].engine is None
        assert write(other) == write(model)


def test_an_error_leaves_none_behind(model: Any) -> None:
    write(model)

    def broken(module: Any, args: Any) -> None:
        raise KeyError("mine")

    hook = model.blocks[0].register_forward_pre_hook(broken)
    with pytest.raises(KeyError):
        write(model)
    hook.remove()
    assert left(model) is None
    assert write(model) and left(model) is not None
