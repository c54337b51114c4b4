"""What is wrong with a request fails that request, and no other; the engine goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from models import tiny
from pellucid.engine.asking import request
from pellucid.engine.decoding.beam import BeamSearch
from pellucid.engine.decoding.guidance import Guidance
from pellucid.engine.engine import Engine, generate
from pellucid.engine.job import Job
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Request
from pellucid.engine.rules.rule import Pure
from pellucid.engine.speculation import DraftModel, EarlyExit, Habits
from pellucid.errors import ArgumentError, InputError, PellucidError, Unsupported

PROMPTS = [tiny.ids(n, seed=n).tolist() for n in (5, 17, 40)]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.make("llama", max_position_embeddings=512)


def beside(model: Any, wrong: Request) -> Job:
    """Runs a request between two right ones, which must come to their usual ends; returns it."""
    begin = [] if model.encoder is None else [model.spec.decoder_start]
    right = [Request(ids=prompt, begin=begin, max_new=6) for prompt in PROMPTS[:2]]
    alone = [outputs[0].ids for outputs in generate(model, right)]
    engine = Engine(model)
    jobs = [engine.add(each) for each in (right[0], wrong, right[1])]
    for _ in range(200):
        if not engine.busy:
            break
        engine.step()
        engine.check()
    assert [jobs[0].result()[0].ids, jobs[2].result()[0].ids] == alone
    assert not any(job.seqs for job in jobs)
    assert engine.main.pages.counts()["held"] == 0
    return jobs[1]


class Tampering(Pure):
    """Changes the logits once so many ids are there."""

    def __init__(self, at: int, change: Any) -> None:
        self.at, self.change = at, change

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return self.change(logits_V.clone()) if len(ids) == self.at else logits_V


def put(value: float) -> Any:
    def change(logits_V: Tensor) -> Tensor:
        logits_V[7] = value
        return logits_V

    return change


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"ids": []}, InputError, "empty"),
        ({"ids": [1, 101]}, InputError, "outside the vocabulary of 101"),
        ({"ids": [1, -1]}, InputError, "-1 is outside"),
        ({"ids": [1, 2.5]}, InputError, "2.5 is outside"),
        ({"ids": torch.tensor([1, 2])}, InputError, "ids that are ints"),
        ({"ids": [3] * 512}, InputError, "512 tokens"),
        ({"n": 0}, ArgumentError, "n=0"),
        ({"max_new": -1}, ArgumentError, "max_new=-1"),
        ({"logprobs": -1}, ArgumentError, "logprobs=-1"),
        ({"prompt_logprobs": 1.5}, ArgumentError, "prompt_logprobs=1.5"),
        ({"sample": True, "seed": 2**70}, ArgumentError, "below 2"),
        ({"adapter": "x"}, Unsupported, "no adapters"),
        ({"taps": {"blocks.0.resid_pro": print}}, ArgumentError, "resid_pre"),
        ({"n": 4, "decoding": BeamSearch(beams=3)}, ArgumentError, "4 outputs of 3 beams"),
        ({"speculation": EarlyExit(7)}, ArgumentError, "blocks"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_model_cannot_take(model: Any, wrong: dict[str, Any], kind: type, message: str) -> None:
    job = beside(model, Request(**{"ids": PROMPTS[2], **wrong}))
    assert job.state == "done"
    with pytest.raises(kind, match=message):
        job.result()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([Tampering(42, put(torch.nan))], "NaN after 42 tokens"),
        ([Tampering(41, lambda logits_V: logits_V.fill_(-torch.inf))], "no token is allowed after 41"),
        ([Tampering(40, lambda logits_V: torch.cat([logits_V, torch.full((9,), 1e4)]))], "101 is outside"),
    ],
    ids=["nan", "nothing", "beyond"],
)
@pytest.mark.parametrize("sample", [False, True])
def test_logits_that_say_nothing(model: Any, rules: Sequence[Any], message: str, sample: bool) -> None:
    job = beside(model, Request(ids=PROMPTS[2], rules=rules, sample=sample, seed=1))
    assert job.outputs[0].finish == "error"
    with pytest.raises(Exception, match=message):
        job.result()


def test_an_infinite_logit_is_the_likeliest_and_cannot_be_drawn(model: Any) -> None:
    rules = [Tampering(40, put(torch.inf))]
    assert beside(model, Request(ids=PROMPTS[2], rules=rules)).result()[0].ids[0] == 7
    job = beside(model, Request(ids=PROMPTS[2], rules=rules, sample=True, seed=1))
    with pytest.raises(InputError, match="infinite after 40"):
        job.result()


def test_options_are_refused_before_a_request_is_made(model: Any) -> None:
    with pytest.raises(ArgumentError, match="temperature=-1"):
        request(model, GenerationConfig(temperature=-1.0), PROMPTS[0])
    with pytest.raises(ArgumentError, match="no option 'temprature'"):
        GenerationConfig(temprature=1.0)
    with pytest.raises(TypeError, match="temprature"):
        Request(ids=PROMPTS[0], temprature=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("negative", [[10**6], [3] * 510])
def test_a_negative_prompt_that_the_model_cannot_read(negative: list[int]) -> None:
    model = tiny.make("gpt2", n_positions=512)
    job = beside(model, Request(ids=PROMPTS[2], reading=Guidance(scale=2.0, negative=negative)))
    with pytest.raises(InputError, match="outside the vocabulary|512 positions"):
        job.result()


def test_behind_an_encoder_the_positions_end_a_text() -> None:
    model = tiny.make("bart", "seq2seq-lm", max_position_embeddings=20)
    begin = [model.spec.decoder_start]
    (output,) = beside(model, Request(ids=PROMPTS[0], begin=begin, max_new=40)).result()
    assert (len(output.ids), output.finish) == (19, "length")
    with pytest.raises(InputError, match="20 positions"):
        beside(model, Request(ids=PROMPTS[2], begin=begin)).result()


# ---------------------------------------------------------------------------------------- forwards that fail


def test_a_draft_that_fails_takes_its_own_requests_along(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = tiny.make("llama", num_hidden_layers=1)
    speculation = DraftModel(draft, Habits(adaptive=False))
    engine = Engine(model)
    side = engine.side(draft)
    real, calls = side.forward, []

    def breaking(parts: Any) -> None:
        calls.append(parts)
        if len(calls) == 4:
            raise RuntimeError("the draft is broken")
        real(parts)

    monkeypatch.setattr(side, "forward", breaking)
    jobs = [
        engine.add(Request(ids=prompt, max_new=12, speculation=how))
        for prompt, how in zip(PROMPTS, (speculation, None, speculation))
    ]
    while engine.busy:
        engine.step()
        engine.check()
    for job in (jobs[0], jobs[2]):
        with pytest.raises(RuntimeError, match="draft is broken"):
            job.result()
    plain = [Request(ids=prompt, max_new=12) for prompt in PROMPTS]
    alone = [outputs[0].ids for outputs in generate(model, plain)]
    assert jobs[1].result()[0].ids == alone[1]
    again = engine.generate([Request(ids=prompt, max_new=12, speculation=speculation) for prompt in PROMPTS])
    assert [job.result()[0].ids for job in again] == alone
    assert not any(runner.pages.counts()["held"] for runner in (engine.main, side))


@pytest.mark.parametrize("family", ["llama", "jamba", "t5"])
def test_a_forward_that_fails_ends_what_is_in_it(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks off in the middle, when some layers have written; the engine is as good as new."""
    model = tiny.make(family)
    begin = [] if model.encoder is None else [model.spec.decoder_start]
    requests = [Request(ids=prompt, begin=begin, max_new=6) for prompt in PROMPTS]
    alone = [outputs[0].ids for outputs in generate(model, requests)]
    engine = Engine(model, rows=2)
    jobs = [engine.add(each) for each in requests]

    def breaking(x: Tensor) -> None:
        raise RuntimeError("out of memory")

    with model.taps({"blocks.1.resid_post": breaking}):
        engine.step()
        engine.check()
    assert [job.outputs[0].finish for job in jobs] == ["error", "error", ""]
    assert engine.main.pages.counts()["held"] == 0
    assert [job.result()[0].ids for job in engine.generate(requests)] == alone
    assert jobs[2].result()[0].ids == alone[2]
    for job in jobs[:2]:
        with pytest.raises(RuntimeError, match="out of memory"):
            job.result()


def test_an_interrupted_call_leaves_nothing_behind(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model)
    real, steps = engine.main.forward, []

    def interrupted(parts: Any) -> None:
        steps.append(parts)
        if len(steps) == 3:
            raise KeyboardInterrupt
        real(parts)

    monkeypatch.setattr(engine.main, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate([Request(ids=prompt) for prompt in PROMPTS])
    assert not engine.busy
    assert engine.main.pages.counts()["held"] == 0
    alone = generate(model, [Request(ids=PROMPTS[1])])[0][0].ids
    assert engine.generate([Request(ids=PROMPTS[1])])[0].result()[0].ids == alone


def test_a_rule_that_cancels_its_own_request(model: Any) -> None:
    engine = Engine(model)

    def cancelling(logits_V: Tensor) -> Tensor:
        engine.cancel(job)
        return logits_V

    job = engine.add(Request(ids=PROMPTS[1], rules=[Tampering(20, cancelling)]))
    other = engine.add(Request(ids=PROMPTS[0], max_new=6))
    while engine.busy:
        engine.step()
        engine.check()
    assert job.outputs[0].finish == "cancelled"
    assert job.error is None
    assert len(other.result()[0].ids) == 6
    assert engine.main.pages.counts()["held"] == 0


# ---------------------------------------------------------------------------------------- nothing to write


def test_a_prompt_is_scored_without_writing(model: Any) -> None:
    whole = Request(ids=PROMPTS[2], max_new=1, prompt_logprobs=2)
    (expected,) = Engine(model).generate([whole])
    job = beside(model, Request(ids=PROMPTS[2], max_new=0, prompt_logprobs=2))
    assert [(each.token, each.top[0][0]) for each in job.prompt_logprobs] == [
        (each.token, each.top[0][0]) for each in expected.prompt_logprobs
    ]
    assert (job.outputs[0].ids, job.outputs[0].finish) == ([], "length")
    full = Request(ids=[3] * 512, max_new=0, prompt_logprobs=0)
    assert len(Engine(model).generate([full])[0].prompt_logprobs) == 511
    assert beside(model, Request(ids=PROMPTS[0], max_new=0, n=2)).result()[1].finish == "length"


@pytest.mark.parametrize("values", [{"rows": 0}, {"budget": 0}, {"pages": 0}])
def test_an_engine_without_room(model: Any, values: dict[str, Any]) -> None:
    with pytest.raises(PellucidError, match="0"):
        Engine(model, **values)
