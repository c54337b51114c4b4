"""Rotary positions that depend on a row's length: in one pass, in a prompt's pieces, and while a row grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import reference as ref
from pellucid.engine import runner

LONGROPE = [ref.case("phi3", "longrope, crossing while it writes", "causal-lm")]
SHORT = {"max_position_embeddings": 11, "rope_scaling": {"rope_type": "dynamic", "factor": 8.0}}
LLAMA = ref.case("llama", "", "causal-lm")
DYNAMIC = replace(LLAMA, variant="dynamic", config=LLAMA.config | SHORT)


@pytest.mark.parametrize("time", [9, 13, 40])
def test_a_dynamic_base_goes_by_the_length(time: int, checkpoints: Path) -> None:
    """One pass, within the original context and beyond it; the reference is fresh: it remembers its longest row."""
    folder = ref.checkpoint(DYNAMIC, checkpoints)
    given = ref.inputs(DYNAMIC, time=time)
    with torch.no_grad():
        theirs = ref.reference(DYNAMIC, folder)(**given).logits
        mine = ref.ours(DYNAMIC, folder)(**given).logits
    assert ref.distance(mine, theirs) < 1e-4


def test_a_dynamic_base_grows_with_what_is_written(checkpoints: Path) -> None:
    folder = ref.checkpoint(DYNAMIC, checkpoints)
    prompt = ref.inputs(DYNAMIC, batch=1, time=7)["input_ids"]
    asked = {"do_sample": False, "max_new_tokens": 24}
    theirs = ref.reference(DYNAMIC, folder).generate(prompt, attention_mask=torch.ones_like(prompt), **asked)
    assert ref.ours(DYNAMIC, folder).generate(prompt, **asked).tolist() == theirs.tolist()


@pytest.mark.parametrize("case", [*LONGROPE, DYNAMIC], ids=str)
def test_a_prompt_in_steps_goes_by_its_whole_length(
    case: ref.Case, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt beyond the original context whose first step ends within it."""
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    prompt = ref.inputs(case, batch=2, time=30)["input_ids"].tolist()
    whole = model.generate(prompt, do_sample=False, max_new_tokens=9)
    monkeypatch.setattr(runner, "PREFILL_TOKENS", 8)
    assert model.generate(prompt, do_sample=False, max_new_tokens=9) == whole


def test_a_row_that_outgrows_its_factors_is_read_again_once(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LongRoPE with 17 positions: of 15 + 9 tokens, the step that makes the 18th reads all of them."""
    (case,) = LONGROPE
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    prompt = ref.inputs(case, batch=1, time=15)["input_ids"].tolist()
    read: list[int] = []
    step = runner.step

    def counted(model, cache, rows, pieces, *rest):  # type: ignore[no-untyped-def]  # as step
        read.append(len(pieces[0]))
        return step(model, cache, rows, pieces, *rest)

    monkeypatch.setattr(runner, "step", counted)
    (written,) = model.generate(prompt, do_sample=False, max_new_tokens=9, eos_token_id=None)
    assert read == [15, 1, 1, 18, 1, 1, 1, 1, 1]
    with torch.no_grad():  # from there on, every token follows from one pass over all before it
        for end in range(18, len(written)):
            assert int(model(torch.tensor([written[:end]])).logits[0, -1].argmax()) == written[end]
