"""The step function and the loop: prefill in steps, rows that leave, limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pellucid import AutoModelForCausalLM, AutoTokenizer
from pellucid.engine import runner
from pellucid.engine.runner import Request, generate, run
from pellucid.engine.sampling import Sampling
from pellucid.errors import InputError
from pellucid.tasks.text_generation import generate_text, stream_text

STORY = (Path(__file__).parents[1] / "data" / "expected_greedy.txt").read_text()


@pytest.fixture(scope="module")
def model() -> AutoModelForCausalLM:
    return AutoModelForCausalLM.from_pretrained()


def test_the_published_story(model: AutoModelForCausalLM) -> None:
    """256 greedy tokens after BOS are llama2.c's, to the letter."""
    (ids,) = [model.generate([1], max_new_tokens=256, do_sample=False)]
    assert AutoTokenizer.from_pretrained().decode(ids, skip_special_tokens=True) == STORY.rstrip("\n")


def test_prefill_in_steps_is_prefill_at_once(model: AutoModelForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [list(range(3, 60)), list(range(40, 50)), [7]]
    whole = [Request(ids=p, max_new=9) for p in prompts]
    generate(model, whole)
    for most in (1, 3, 20):
        monkeypatch.setattr(runner, "PREFILL_TOKENS", most)
        pieces = [Request(ids=p, max_new=9) for p in prompts]
        generate(model, pieces)
        assert [r.output for r in pieces] == [r.output for r in whole]


def test_rows_end_on_their_own(model: AutoModelForCausalLM) -> None:
    first = Request(ids=[1], max_new=30)
    generate(model, [first])
    stop = first.output[4]
    requests = [
        Request(ids=[1], max_new=30, eos=frozenset({stop})),
        Request(ids=[1], max_new=3),
        Request(ids=[1], max_new=30, eos=frozenset({stop}), min_new=10),
    ]
    tokens = list(run(model, requests))
    assert requests[0].output == first.output[:5]
    assert requests[0].finish == "stop"
    assert requests[1].output == first.output[:3]
    assert requests[1].finish == "length"
    assert stop not in requests[2].output[:10]
    assert len(tokens) == sum(len(r.output) for r in requests)


def test_the_context_is_a_limit(model: AutoModelForCausalLM) -> None:
    long = Request(ids=[1] * 510, max_new=50)
    generate(model, [long])
    assert (len(long.output), long.finish) == (2, "length")
    with pytest.raises(InputError, match="512"):
        generate(model, [Request(ids=[1] * 512, max_new=1)])


def test_seeds_belong_to_rows(model: AutoModelForCausalLM) -> None:
    def drawn(*seeds: int) -> list[list[int]]:
        requests = [Request(ids=[1], max_new=12, sampling=Sampling(temperature=1.0, seed=s)) for s in seeds]
        generate(model, requests)
        return [r.output for r in requests]

    together = drawn(1, 2, 1)
    assert together[0] == together[2] != together[1]
    assert drawn(2) == [together[1]]


def test_an_interrupted_loop_leaves_the_model_as_it_was(model: AutoModelForCausalLM) -> None:
    before = torch.get_num_threads()
    loop = run(model, [Request(ids=[1], max_new=50)])
    next(loop)
    loop.close()
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("prompt", ["Once upon a time", "héllo 🙂", "a\n", "🙂🙂", " two  spaces "])
def test_a_stream_is_the_continuation_and_nothing_of_the_prompt(model: AutoModelForCausalLM, prompt: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained()
    options = model.generation_config.merged({"max_new_tokens": 14})
    pieces = [piece for piece, _ in stream_text(model, tokenizer, prompt, options)]
    (whole,) = generate_text(model, tokenizer, [prompt], options)
    assert "".join(pieces) == whole.text
