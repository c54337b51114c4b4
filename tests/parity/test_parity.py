"""Parity with the reference library, for every family fixture: outputs, loss, gradients, generation, saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import reference as ref

CASES = ref.cases()
MODELS = ref.cases(tasks=False)  # every variant, with the family's first task
ids = str


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_outputs_agree_in_float32(case: ref.Case, checkpoints: Path) -> None:
    """Logits, hidden states of every block, patterns and loss, within 1e-4 of each value's scale."""
    folder = ref.checkpoint(case, checkpoints)
    given = ref.inputs(case)
    asked = {**given, **ref.labels(case, given), "output_hidden_states": True, "output_attentions": True}
    if case.task == "seq2seq-lm":
        asked.pop("decoder_input_ids")  # shifted from the labels, by both
    with torch.no_grad():
        theirs = dict(ref.tensors(ref.reference(case, folder)(**asked)))
        mine = dict(ref.tensors(ref.ours(case, folder)(**asked)))
    assert mine.keys() == theirs.keys()
    apart = {name: d for name in theirs if (d := ref.distance(mine[name], theirs[name])) > 1e-4}
    assert not apart


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_outputs_agree_in_float64(case: ref.Case, checkpoints: Path) -> None:
    """The same to 1e-9, with nothing rounded to float32 on either side: the mathematics is the same."""
    folder = ref.checkpoint(case, checkpoints)
    given = ref.inputs(case)
    with ref.InFloat64(), torch.no_grad():
        theirs = dict(ref.tensors(ref.reference(case, folder, torch.float64)(**given, output_hidden_states=True)))
        mine = dict(ref.tensors(ref.ours(case, folder, torch.float64)(**given, output_hidden_states=True)))
    apart = {name: d for name in theirs if (d := ref.distance(mine[name], theirs[name])) > 1e-9}
    assert not apart


@pytest.mark.parametrize("case", MODELS, ids=ids)
def test_bfloat16_rounds_no_worse_than_the_reference(case: ref.Case, checkpoints: Path) -> None:
    """Both sides round; ours is at most twice as far from float32 as the reference's own bfloat16."""
    folder = ref.checkpoint(case, checkpoints)
    given = ref.inputs(case)
    with torch.no_grad():
        exact = ref.reference(case, folder)(**given).logits
        theirs = ref.reference(case, folder, torch.bfloat16)(**given).logits.float()
        mine = ref.ours(case, folder, torch.bfloat16)(**given).logits.float()
    assert ref.distance(mine, exact) < 2 * ref.distance(theirs, exact)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_gradients_agree(case: ref.Case, checkpoints: Path) -> None:
    """Every parameter's gradient of the loss is finite and the reference's, within 1e-4 of the largest."""
    folder = ref.checkpoint(case, checkpoints)
    given = ref.inputs(case)
    found = []
    for model in (ref.reference(case, folder), ref.ours(case, folder)):
        output = model(**given, **ref.labels(case, given))
        loss = getattr(output, "loss", None)
        (output[0].square().mean() if loss is None else loss).backward()
        found.append(model)
    theirs = {name: p.grad for name, p in found[0].named_parameters() if p.grad is not None}
    mine = gradients_by_file_name(found[1])
    assert theirs.keys() <= mine.keys()
    for name, gradient in theirs.items():
        assert mine[name].isfinite().all(), name
        assert ref.distance(mine[name], gradient) < 1e-4 or gradient.abs().max() < 1e-6, name


def gradients_by_file_name(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for name, place in model.file_places():
        parts = [parameters[slot].grad for slot in place.slots]
        if all(part is not None for part in parts):
            found[name] = place.join(parts)
    return found


@pytest.mark.parametrize("case", [c for c in MODELS if c.task in ("causal-lm", "seq2seq-lm")], ids=ids)
def test_greedy_generation_gives_the_same_ids(case: ref.Case, checkpoints: Path) -> None:
    """Past the sliding window, and until an end token where one comes."""
    folder = ref.checkpoint(case, checkpoints)
    prompt = ref.inputs(case, batch=3, time=7)["input_ids"]
    mask = torch.ones_like(prompt)
    theirs = ref.reference(case, folder).generate(prompt, attention_mask=mask, do_sample=False, max_new_tokens=24)
    mine = ref.ours(case, folder).generate(prompt, attention_mask=mask, do_sample=False, max_new_tokens=24)
    assert mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_saving_gives_the_same_file_back(case: ref.Case, checkpoints: Path, tmp_path: Path) -> None:
    """The same tensors under the same names, bit for bit, and the reference loads the folder and agrees."""
    folder = ref.checkpoint(case, checkpoints)
    ref.ours(case, folder).save_pretrained(tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    given = ref.inputs(case)
    with torch.no_grad():
        first = dict(ref.tensors(ref.reference(case, folder)(**given)))
        again = dict(ref.tensors(ref.reference(case, tmp_path)(**given)))
    assert all(torch.equal(first[name], again[name]) for name in first)


def mutations() -> list[tuple[str, str]]:
    return [(family, key) for family in ref.families() for key in ref.fixture(family)["mutations"]]


@pytest.mark.parametrize(("family", "key"), mutations(), ids=ids)
def test_every_architecture_key_is_loud(family: str, key: str, checkpoints: Path) -> None:
    """Changing one key changes the logits visibly, or (sizes) makes the checkpoint refuse to load.

    Proves that the fixture's weights are loud enough for parity to mean something, and that the key is read.
    """
    from pellucid import PellucidError
    from pellucid.config import Config

    case = next(c for c in MODELS if c.family == family and not c.variant)
    folder = ref.checkpoint(case, checkpoints)
    given = ref.inputs(case)
    plain = ref.ours(case, folder)(**given).logits
    value = ref.fixture(family)["mutations"][key]
    config = ref.ours(case, folder).config
    assert isinstance(config, Config)
    if value is None:  # a size, or whether a tensor exists: the file must not fit any more
        old = config.get(key)
        config.update({key: not old if isinstance(old, bool) else 2 * old})
        if key in ("n_positions", "max_position_embeddings") and family in ("llama", "gemma2"):
            return  # a limit, not part of the arithmetic
        with pytest.raises(PellucidError):
            ref.our_class(case.task).from_pretrained(folder, config=config)
        return
    try:
        changed = ref.our_class(case.task).from_pretrained(folder, **{key: value})(**given).logits
    except PellucidError:
        return  # shapes differ, and loading says so
    assert ref.distance(changed, plain) > 1e-3
