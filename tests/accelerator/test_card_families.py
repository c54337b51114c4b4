"""Every family's fixture on the accelerator: the processor's numbers, and no more rounding than the reference's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import reference as ref
from pellucid.nn.moe import Router

MODELS = ref.sampled(ref.cases(tasks=False))
WRITERS = [case for case in MODELS if case.task in ("causal-lm", "seq2seq-lm")]
NEAR = 1e-4  # of the largest number, in float32: sums in another order
WORSE = 2  # times the distance that the reference has
LEAST = {torch.bfloat16: 2**-9, torch.float16: 2**-12}  # below half a step, a ratio says nothing
NEW = 16
Record = Callable[[str, object], None]


def on(device: str, values: Any) -> Any:
    """Tensors, and what is made of them, on a device."""
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, dict):
        return {name: on(device, value) for name, value in values.items()}
    return values


def given(case: ref.Case, *, batch: int | None = None) -> dict[str, Any]:
    return ref.inputs(case, batch=batch or case.fixture.get("batch")) | ref.options(case)


def outputs(model: Any, asked: dict[str, Any]) -> dict[str, Tensor]:
    with torch.no_grad():
        found = model(**asked, output_hidden_states=True)
    return {name: value.cpu() for name, value in ref.tensors(found)}


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_float32_is_that_of_the_processor(
    case: ref.Case, device: str, checkpoints: Path, record_property: Record
) -> None:
    """Hidden states and logits of an odd batch; and with some tokens of a row left out."""
    mine = ref.ours(case, ref.checkpoint(case, checkpoints))
    there = ref.ours(case, ref.checkpoint(case, checkpoints)).to(device)
    whole = given(case, batch=None if case.fixture.get("batch") == 1 else 3)
    cases = [whole]
    if "attention_mask" not in whole and whole["input_ids"].dim() == 2 and case.fixture.get("batch") != 1:
        mask = torch.ones_like(whole["input_ids"])
        mask[1, -5:] = 0
        cases.append({**whole, "attention_mask": mask})
    for asked in cases:
        wanted, found = outputs(mine, asked), outputs(there, on(device, asked))
        assert found.keys() == wanted.keys()
        apart = {name: ref.distance(found[name], wanted[name]) for name in wanted if wanted[name].is_floating_point()}
        record_property("float32", max(apart.values()))
        assert not {name: d for name, d in apart.items() if not d <= NEAR}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", MODELS, ids=str)
def test_16_bits_round_no_worse_than_the_reference(
    case: ref.Case, dtype: torch.dtype, device: str, checkpoints: Path, record_property: Record
) -> None:
    """Both on the accelerator, both beside the reference in float32 on the processor.

    A rounded router may choose another expert, on either side and for any token: then the median token counts.
    """
    folder, asked = ref.checkpoint(case, checkpoints), given(case)
    with torch.no_grad():
        exact = ref.first(ref.pair(case, checkpoints)[1](**asked))
        mine = ref.ours(case, folder, dtype, device=device)
        found = ref.first(mine(**on(device, asked))).float().cpu()
        try:
            theirs = ref.first(ref.reference(case, folder, dtype).to(device)(**on(device, asked))).float().cpu()
        except Exception as error:  # its own limits on this device
            record_property("reference", f"{type(error).__name__}: {error}"[:200])
            theirs = None
    apart = ref.median_distance if any(isinstance(part, Router) for part in mine.modules()) else ref.distance
    own = apart(found, exact)
    other = None if theirs is None else apart(theirs, exact)
    record_property(str(dtype).removeprefix("torch."), [own, other])
    assert own == own, "NaN"
    if other is None or other != other:
        pytest.skip("the reference does not run it here")
    assert own <= max(WORSE * other, LEAST[dtype])


@pytest.mark.parametrize("case", WRITERS, ids=str)
def test_greedy_ids_are_those_of_the_processor(case: ref.Case, device: str, checkpoints: Path) -> None:
    """Prompts of three lengths, the shorter ones behind pads; past a sliding window."""
    mine = ref.ours(case, ref.checkpoint(case, checkpoints))
    there = ref.ours(case, ref.checkpoint(case, checkpoints), device=device)
    prompts = ref.inputs(case, batch=3, time=7)["input_ids"]
    mask = torch.ones_like(prompts)
    if case.fixture.get("batch") != 1:
        mask[1, :2], mask[2, :4] = 0, 0
    asked = {"attention_mask": mask, "do_sample": False, "max_new_tokens": NEW}
    if case.fixture.get("batch") == 1:
        prompts, asked["attention_mask"] = prompts[:1], mask[:1]
    wanted = mine.generate(prompts, **asked).tolist()
    assert there.generate(prompts.to(device), **on(device, asked)).tolist() == wanted


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_gradients_are_those_of_the_processor(case: ref.Case, device: str, checkpoints: Path) -> None:
    """Of the loss, by every parameter; within rounding of the largest."""
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    asked = {**given(case), **ref.labels(case, given(case))}
    found = []
    there = copy.deepcopy(model).to(device)
    there.tie_weights()  # on paper they are other parameters
    for one, values in ((model, asked), (there, on(device, asked))):
        output = one(**values)
        loss = getattr(output, "loss", None)
        (ref.first(output).square().mean() if loss is None else loss).backward()
        found.append({name: p.grad.cpu() for name, p in one.named_parameters() if p.grad is not None})
    mine, other = found
    assert mine.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in mine.values())
    for name, gradient in mine.items():
        size = max(float(gradient.abs().max()), 1e-2 * largest)
        assert float((other[name] - gradient).abs().max()) <= 1e-3 * size, name
