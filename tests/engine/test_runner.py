"""The step function and the loop: prefill in steps, rows that leave, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid import AutoModelForCausalLM, AutoTokenizer
from pellucid.engine.asking import request
from pellucid.engine.engine import LEAST, Engine, generate
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Output, Request
from pellucid.errors import InputError
from pellucid.tasks.text_generation import generate_text, stream_text

STORY = (Path(__file__).parents[1] / "data" / "expected_greedy.txt").read_text()


@pytest.fixture(scope="module")
def model() -> AutoModelForCausalLM:
    return AutoModelForCausalLM.from_pretrained()


def outputs(model: Any, *requests: Request) -> list[Output]:
    return [output for (output,) in generate(model, requests)]


def test_the_published_story(model: AutoModelForCausalLM) -> None:
    """256 greedy tokens after BOS are llama2.c's, to the letter."""
    (ids,) = [model.generate([1], max_new_tokens=256, do_sample=False)]
    assert AutoTokenizer.from_pretrained().decode(ids, skip_special_tokens=True) == STORY.rstrip("\n")


@pytest.mark.parametrize("budget", [1, 3, 20])
def test_prefill_in_steps_is_prefill_at_once(model: AutoModelForCausalLM, budget: int) -> None:
    requests = [Request(ids=ids, max_new=9) for ids in (list(range(3, 60)), list(range(40, 50)), [7])]
    whole = outputs(model, *requests)
    engine = Engine(model, budget=budget)
    assert [job.result()[0].ids for job in engine.generate(requests)] == [output.ids for output in whole]
    assert engine.main.steps > (57 - LEAST) // budget  # the long prompt was read in pieces


def test_rows_end_on_their_own(model: AutoModelForCausalLM) -> None:
    (first,) = outputs(model, Request(ids=[1], max_new=30))
    end = first.ids[4]
    least = request(model, GenerationConfig(max_new_tokens=30, min_new_tokens=10, eos_token_id=end), [1])
    jobs = [Request(ids=[1], max_new=30, eos=frozenset({end})), Request(ids=[1], max_new=3), least]
    engine = Engine(model)
    events = list(engine.stream(jobs))
    held, short, long = outputs(model, *jobs)
    assert held.ids == first.ids[:5]
    assert held.finish == "stop"
    assert short.ids == first.ids[:3]
    assert short.finish == "length"
    assert end not in long.ids[:10]
    assert len(events) == sum(len(output.ids) for output in (held, short, long))
    assert not engine.busy


def test_the_context_is_a_limit(model: AutoModelForCausalLM) -> None:
    (long,) = outputs(model, Request(ids=[1] * 510, max_new=50))
    assert (len(long.ids), long.finish) == (2, "length")
    with pytest.raises(InputError, match="512"):
        generate(model, [Request(ids=[1] * 512, max_new=1)])


def test_seeds_belong_to_rows(model: AutoModelForCausalLM) -> None:
    def drawn(*seeds: int) -> list[list[int]]:
        requests = [Request(ids=[1], max_new=12, sample=True, seed=seed) for seed in seeds]
        return [output.ids for output in outputs(model, *requests)]

    together = drawn(1, 2, 1)
    assert together[0] == together[2] != together[1]
    assert drawn(2) == [together[1]]


def test_an_interrupted_loop_leaves_the_model_as_it_was(model: AutoModelForCausalLM) -> None:
    before = torch.get_num_threads()
    engine = Engine(model)
    loop = engine.stream(Request(ids=[1], max_new=50))
    next(loop)
    loop.close()
    assert not engine.busy
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("prompt", ["Once upon a time", "héllo 🙂", "a\n", "🙂🙂", " two  spaces "])
def test_a_stream_is_the_continuation_and_nothing_of_the_prompt(model: AutoModelForCausalLM, prompt: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained()
    options = model.generation_config.merged({"max_new_tokens": 14})
    pieces = [piece.text for piece in stream_text(model, tokenizer, [prompt], options)]
    (whole,) = generate_text(model, tokenizer, [prompt], options)[0].outputs
    assert "".join(pieces) == whole.text
