"""Rotary positions that depend on a row's length: in one pass, in a prompt's pieces, and while a row grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import reference as ref
from pellucid.engine.engine import Engine
from pellucid.engine.request import Request

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
def test_a_prompt_in_steps_goes_by_its_whole_length(case: ref.Case, checkpoints: Path) -> None:
    """A prompt beyond the original context that has no room in one step: factors go by all of it."""
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    prompts = ref.inputs(case, batch=2, time=40)["input_ids"].tolist()
    whole = model.generate(prompts, do_sample=False, max_new_tokens=9, eos_token_id=[])
    engine = Engine(model, budget=8)
    jobs = engine.generate([Request(ids=ids, max_new=9) for ids in prompts])
    assert [[*job.request.ids, *job.result()[0].ids] for job in jobs] == whole
    assert engine.main.steps > 9  # the second waits while the first is read


def test_a_row_that_outgrows_its_factors_is_read_again_once(checkpoints: Path) -> None:
    """LongRoPE with 17 positions: of 15 + 9 tokens, the step that makes the 18th reads all of them."""
    (case,) = LONGROPE
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    prompt = ref.inputs(case, batch=1, time=15)["input_ids"].tolist()[0]
    engine = Engine(model)
    job, read = engine.add(Request(ids=prompt, max_new=9)), []
    while engine.busy:
        before = engine.main.computed
        engine.step()
        read.append(engine.main.computed - before)
    assert read == [15, 1, 1, 18, 1, 1, 1, 1, 1]
    written = [*prompt, *job.result()[0].ids]
    with torch.no_grad():  # from there on, every token follows from one pass over all before it
        for end in range(18, len(written)):
            assert int(model(torch.tensor([written[:end]])).logits[0, -1].argmax()) == written[end]
