"""Listeners of one request: they see and change its own part of a forward, whoever else is in it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from models import tiny
from pellucid.engine.decoding import Guess
from pellucid.engine.engine import Engine, generate
from pellucid.engine.job import Job
from pellucid.engine.request import Request

PROMPTS = [tiny.ids(n, seed=n).tolist() for n in (21, 7, 50, 3)]
NAMES = ("blocks.0.attn.v", "blocks.1.resid_post", "final", "lm_head.logits")


class Always:
    """Guesses the same tokens in every step."""

    def drafter(self, job: Job) -> Always:
        return self

    def guess(self, lines: Sequence[Any], most: Sequence[int]) -> Generator[Any, Any, list[Guess]]:
        yield from ()
        return [Guess([5, 6, 7][:n]) for n in most]

    def judged(self, line: Any, guess: Guess, accepted: int) -> None:
        pass


class Keeper:
    """Notes what a listener is shown."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> None:
        self.seen.append(x.clone())

    @property
    def all(self) -> Tensor:
        return torch.cat(self.seen)


def keepers(*names: str) -> dict[str, Keeper]:
    return {name: Keeper() for name in names}


def run(model: Any, tapped: Request, others: list[Request], **options: Any) -> Job:
    """A request among others; nobody else's tokens change."""
    alone = [outputs[0].ids for outputs in generate(model, others)]
    engine = Engine(model, **options)
    jobs = [engine.add(each) for each in (*others[:1], tapped, *others[1:])]
    while engine.busy:
        engine.step()
        engine.check()
    job = jobs.pop(min(1, len(others)))
    assert [each.result()[0].ids for each in jobs] == alone
    job.result()
    return job


def others_of(model: Any, most: int = 9) -> list[Request]:
    begin = [] if model.encoder is None else [model.spec.decoder_start]
    return [Request(ids=prompt, begin=begin, max_new=most) for prompt in PROMPTS[1:]]


@pytest.mark.parametrize("options", [{}, {"budget": 8}, {"pages": 5}], ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma2", "jamba"])
def test_reading(family: str, options: dict[str, int]) -> None:
    """Every place once, but for those that were read again after pages ran out, in the order of the text."""
    model = tiny.make(family)
    names = NAMES if family == "llama" else NAMES[1:]
    mine = keepers(*names)
    job = run(model, Request(ids=PROMPTS[0], max_new=9, taps=mine), others_of(model), **options)
    (output,) = generate(model, [Request(ids=PROMPTS[0], max_new=9)])[0]
    assert job.outputs[0].ids == output.ids
    with torch.inference_mode(), model.record(*names) as whole:
        model(torch.tensor([[*PROMPTS[0], *output.ids[:-1]]]), use_cache=False)
    for name, keeper in mine.items():
        expected = whole[name][-9:] if name == "lm_head.logits" else whole[name]
        seen = keeper.all if not job.preempted else keeper.all[-9:]
        assert torch.allclose(seen, expected[-len(seen) :], atol=1e-4), name
        assert job.preempted or len(seen) == len(expected)


def test_logits_beside_rows_that_want_several_or_none() -> None:
    """A speculating row has the logits of several places, a long prompt of none: the request sees its own."""
    model = tiny.make("llama")
    others = [
        Request(ids=PROMPTS[1], max_new=9, speculation=Always()),
        Request(ids=[*PROMPTS[2], *PROMPTS[0]], max_new=3),
    ]
    mine = keepers("lm_head.logits")
    job = run(model, Request(ids=PROMPTS[0], max_new=9, keep=frozenset({"logits"}), taps=mine), others, budget=80)
    assert torch.equal(mine["lm_head.logits"].all.float(), torch.stack(job.outputs[0].logits))


def test_patterns_are_as_large_as_the_request() -> None:
    model = tiny.make("llama")
    alone, beside = keepers("blocks.0.attn.pattern"), keepers("blocks.0.attn.pattern")
    run(model, Request(ids=PROMPTS[0], max_new=4, taps=alone), [])
    run(model, Request(ids=PROMPTS[0], max_new=4, taps=beside), others_of(model))
    pairs = list(zip(alone["blocks.0.attn.pattern"].seen, beside["blocks.0.attn.pattern"].seen, strict=True))
    assert [list(own.shape[2:]) for own, _ in pairs] == [[21, 21], [1, 22], [1, 23], [1, 24]]
    for own, other in pairs:
        assert own.shape == other.shape
        assert torch.allclose(own, other, atol=1e-6)


def test_behind_an_encoder() -> None:
    model = tiny.make("t5")
    begin = [model.spec.decoder_start]
    names = ("encoder.blocks.0.resid_post", "blocks.0.cross.k", "blocks.0.cross.pattern", "blocks.1.resid_post")
    alone, beside = keepers(*names), keepers(*names)
    run(model, Request(ids=PROMPTS[0], begin=begin, max_new=4, taps=alone), [])
    run(model, Request(ids=PROMPTS[0], begin=begin, max_new=4, taps=beside), others_of(model))
    for name in names:
        pairs = list(zip(alone[name].seen, beside[name].seen, strict=True))
        assert len(pairs) == (1 if name.startswith("encoder") or name.endswith("k") else 4)
        for own, other in pairs:
            assert own.shape == other.shape, name
            assert torch.allclose(own, other, atol=1e-5), name


def shifted(by: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x + by * torch.linspace(-1, 1, x.shape[-1])


@pytest.mark.parametrize("name", ["blocks.0.resid_post", "blocks.*.mlp.out", "lm_head.logits"])
def test_replacing(name: str) -> None:
    """The same tokens as with a listener to everything, alone; others go on as they would."""
    model = tiny.make("llama")
    plain = generate(model, [Request(ids=PROMPTS[0], max_new=9)])[0][0].ids
    with model.taps({name: shifted(3.0)}):
        expected = generate(model, [Request(ids=PROMPTS[0], max_new=9)])[0][0].ids
    assert expected != plain
    for options in ({}, {"budget": 8}, {"pages": 5}):
        job = run(model, Request(ids=PROMPTS[0], max_new=9, taps={name: shifted(3.0)}), others_of(model), **options)
        assert job.outputs[0].ids == expected


def test_an_error_in_a_listener_is_the_request_s() -> None:
    model = tiny.make("llama")

    def raising(x: Tensor) -> None:
        if len(x) == 1:
            raise ZeroDivisionError("in the listener")

    for listener, message in ((raising, "in the listener"), (lambda x: x[:, :3], r"in the place of \[21, 42\]")):
        engine = Engine(model)
        others = others_of(model)
        jobs = [engine.add(each) for each in others]
        wrong = engine.add(Request(ids=PROMPTS[0], taps={"blocks.0.resid_pre": listener}))
        while engine.busy:
            engine.step()
            engine.check()
        assert [job.result()[0].ids for job in jobs] == [outputs[0].ids for outputs in generate(model, others)]
        with pytest.raises(Exception, match=message):
            wrong.result()


# ---------------------------------------------------------------------------------------- beside prefixes


def test_what_was_changed_is_nobody_s_beginning() -> None:
    """Neither that of a later request, nor of a talk that goes on without the listener."""
    model = tiny.make("llama")
    prompt = tiny.ids(70).tolist()
    longer = [*prompt, *PROMPTS[1]]
    plain = generate(model, [Request(ids=longer, max_new=5)])[0][0].ids
    engine = Engine(model)
    talk = engine.sequence()
    changing = Request(ids=prompt, max_new=5, taps={"blocks.0.resid_post": shifted(3.0)})
    changed = [token for _, _, token in engine.stream(changing, talk)]
    assert (
        changed == generate(model, [changing])[0][0].ids != generate(model, [Request(ids=prompt, max_new=5)])[0][0].ids
    )
    list(engine.stream(Request(ids=[*talk.tokens, 5], max_new=2), talk))  # reads on, and publishes nothing
    assert engine.generate([Request(ids=longer, max_new=5)])[0].result()[0].ids == plain
    assert talk.taps == {}


def test_a_listener_to_the_model_misses_nothing() -> None:
    """Requests that begin alike are all read, and what was changed is forgotten when nobody listens any more."""
    model = tiny.make("llama")
    prompt = tiny.ids(70).tolist()
    engine = Engine(model)
    requests = [Request(ids=[*prompt, i], max_new=1) for i in range(3)]
    keeper = Keeper()
    with model.taps({"blocks.0.resid_post": keeper}):
        engine.generate(requests)
    assert len(keeper.all) == 3 * 71
    with model.taps({"blocks.0.resid_post": shifted(3.0)}):
        engine.generate(requests)
    assert [job.result()[0].ids for job in engine.generate(requests)] == [o.ids for (o,) in generate(model, requests)]
