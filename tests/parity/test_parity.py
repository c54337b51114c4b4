"""Parity with the reference library, for every family fixture: outputs, loss, gradients, generation, saving."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import reference as ref
from pellucid.nn.moe import Router

CASES = ref.cases()
MODELS = ref.sampled(ref.cases(tasks=False))  # the family's main task
WRITERS = [case for case in ref.sampled(CASES) if case.task in ("causal-lm", "seq2seq-lm")]
ids = str


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_outputs_agree_in_float32(
    case: ref.Case, checkpoints: Path, record_property: Callable[[str, object], None]
) -> None:
    """Logits, hidden states of every block, patterns and loss, within 1e-4 of each value's scale."""
    mine, theirs = ref.pair(case, checkpoints)
    asked = {**ref.call(case, ref.inputs(case)), "output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        expected, found = theirs(**asked), mine(**asked)
    record_property(
        "parity", (case.config["model_type"], case.task or "base", ref.distance(ref.first(found), ref.first(expected)))
    )
    agree(found, expected, limit=1e-4, without=ref.without(case))


@pytest.mark.parametrize("case", MODELS, ids=ids)
def test_outputs_agree_in_float64(case: ref.Case, checkpoints: Path) -> None:
    """The same to 1e-9, with nothing rounded to float32 on either side: the mathematics is the same."""
    folder = ref.checkpoint(case, checkpoints)
    asked = {**ref.inputs(case), **ref.options(case), "output_hidden_states": True}
    with ref.InFloat64(), torch.no_grad():
        expected = ref.reference(case, folder, torch.float64)(**asked)
        found = ref.ours(case, folder, torch.float64)(**asked)
    agree(found, expected, limit=1e-9, without=ref.without(case))


def agree(found: Any, expected: Any, limit: float, without: Sequence[str] = ()) -> None:
    """The same values under the same names, without those outputs that the reference means differently."""
    mine, theirs = (
        {name: value for name, value in ref.tensors(output) if name.partition("[")[0] not in without}
        for output in (found, expected)
    )
    assert mine.keys() == theirs.keys()
    apart = {name: ref.distance(mine[name], theirs[name]) for name in theirs}
    assert not {name: d for name, d in apart.items() if not d <= limit}


@pytest.mark.parametrize("case", MODELS, ids=ids)
def test_bfloat16_rounds_no_worse_than_the_reference(case: ref.Case, checkpoints: Path) -> None:
    """Both sides round; ours is at most twice as far from float32 as the reference's own bfloat16.

    A rounded router may choose another expert, on either side and for any token: then the median token counts.
    """
    folder, given = ref.checkpoint(case, checkpoints), ref.inputs(case) | ref.options(case)
    _, exactly = ref.pair(case, checkpoints)
    with torch.no_grad():
        exact = ref.first(exactly(**given))
        theirs = ref.first(ref.reference(case, folder, torch.bfloat16)(**given)).float()
        model = ref.ours(case, folder, torch.bfloat16)
        mine = ref.first(model(**given)).float()
    apart = ref.median_distance if any(isinstance(part, Router) for part in model.modules()) else ref.distance
    assert apart(mine, exact) < 2 * apart(theirs, exact)


@pytest.mark.parametrize("case", MODELS, ids=ids)
def test_gradients_agree(case: ref.Case, checkpoints: Path, tmp_path: Path) -> None:
    """Every parameter's gradient of the loss is the reference's, within 1e-4 of the largest."""
    given = ref.inputs(case)
    asked = {**given, **ref.labels(case, given), **ref.options(case)}
    found = []
    for model in copy.deepcopy(ref.pair(case, checkpoints)):
        output = model(**asked)
        loss = getattr(output, "loss", None)
        (ref.first(output).square().mean() if loss is None else loss).backward()
        found.append(model)
    mine, theirs = gradients_by_file_name(found[0]), as_checkpoint(found[1], tmp_path)
    size = {name: float(gradient.abs().max()) for name, gradient in theirs.items()}
    least = 1e-2 * max(size.values())  # below that, a difference is rounding
    for name, gradient in theirs.items():
        if ref.left_alone(case, name):  # it follows from the config; the reference may train it all the same
            continue
        apart = (mine.get(name, torch.zeros_like(gradient)) - gradient).abs().max()
        assert apart <= 1e-4 * max(size[name], least), name


def as_checkpoint(model: Any, folder: Path) -> dict[str, Tensor]:
    """The reference's gradients under their names in a file: it saves them as if they were its weights."""
    for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
        tensor.data = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def gradients_by_file_name(model: Any) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for name, place in model.file_places():
        parts = [parameters[slot] for slot in place.slots]
        if any(part.grad is not None for part in parts):  # not all: an expert that no token chose has none
            found[name] = place.join([torch.zeros_like(p) if p.grad is None else p.grad for p in parts])
    return found


@pytest.mark.parametrize("case", WRITERS, ids=ids)
def test_greedy_generation_gives_the_same_ids(case: ref.Case, checkpoints: Path) -> None:
    """Past the sliding window, and until an end token where one comes."""
    mine, theirs = ref.pair(case, checkpoints)
    prompts = ref.inputs(case, batch=3, time=7)["input_ids"]
    for prompt in prompts.split(1) if case.fixture.get("batch") == 1 else [prompts]:
        asked = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": 16}
        assert mine.generate(prompt, **asked).tolist() == theirs.generate(prompt, **asked).tolist()


@pytest.mark.parametrize("case", ref.sampled(CASES), ids=ids)
def test_saving_gives_the_same_file_back(case: ref.Case, checkpoints: Path, tmp_path: Path) -> None:
    """The same tensors under the same names, bit for bit, and the reference loads the folder and agrees.

    For heads beside the main one its config says so: the file is the same, and so is what it makes of it.
    """
    mine, theirs = ref.pair(case, checkpoints)
    mine.save_pretrained(tmp_path)
    before = load_file(ref.checkpoint(case, checkpoints) / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    read = type(theirs.config).from_pretrained
    assert facts(read(tmp_path).to_dict()) == facts(read(ref.checkpoint(case, checkpoints)).to_dict())
    if case.task != case.fixture["tasks"][0]:
        return
    again, given = ref.reference(case, tmp_path), ref.inputs(case) | ref.options(case)
    held = again.state_dict()
    assert all(torch.equal(tensor, held[name]) for name, tensor in theirs.state_dict().items())
    with torch.no_grad():
        agree(again(**given), theirs(**given), limit=1e-5)  # where tensors lie decides how the reference rounds


def facts(config: Any) -> Any:
    """A config without what says nothing about the model."""
    if not isinstance(config, dict):
        return config
    return {k: facts(v) for k, v in config.items() if k not in ("_name_or_path", "dtype", "transformers_version")}


def mutations() -> list[Any]:
    """Every key in the full contract; otherwise every third, and which changes from family to family."""
    every = 1 if ref.full() else 3
    return [
        pytest.param(case, key, id=f"{case.family} · {key}")
        for case in MODELS
        if not case.variant
        for key in sorted(case.fixture.get("mutations", ()))[len(case.family) % every :: every]
    ]


@pytest.mark.parametrize(("case", "key"), mutations())
def test_every_architecture_key_is_loud(case: ref.Case, key: str, checkpoints: Path) -> None:
    """Changing one key changes the numbers visibly, or (null: a size, or whether a tensor exists) refuses to load.

    Proves that the fixture's weights are loud enough for parity to mean something, and that the key is read.
    """
    from pellucid import PellucidError

    folder, given = ref.checkpoint(case, checkpoints), ref.inputs(case)
    mine, _ = ref.pair(case, checkpoints)
    value = case.fixture["mutations"][key]
    if value is None:
        old = mine.config.get(key)
        value = not old if isinstance(old, bool) else 2 * old
        if only_a_limit(folder, {key: value}):
            return
        with pytest.raises(PellucidError):
            ref.ours(case, folder, **{key: value})
        return
    try:
        changed = ref.ours(case, folder, **{key: value})
    except PellucidError:
        return  # shapes differ, and loading says so
    with torch.no_grad():
        assert ref.distance(ref.first(changed(**given)), ref.first(mine(**given))) > 1e-3


def only_a_limit(folder: Path, changes: dict[str, Any]) -> bool:
    """Whether keys say how long a text may be, and nothing about the arithmetic."""
    from pellucid import PellucidError, families

    plain, family = families.read_config(folder)
    try:
        changed, _ = family.spec(families.read_config(folder, changes)[0])
    except PellucidError:
        return False
    return replace(changed, context=None) == replace(family.spec(plain)[0], context=None)


def test_measured_distances_are_those_of_families() -> None:
    """What `pellucid families` prints names no family that is gone."""
    from pellucid import families

    file = Path(families.__file__).with_name("parity.json")
    known = {name.replace("-", "_") for name in families.names()}
    assert {name.replace("-", "_") for name in json.loads(file.read_text())} <= known
