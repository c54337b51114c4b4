"""Who runs when: budgets, priorities, prefixes that are waited for, pages that run out, forks and streams."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import pytest
import torch
from torch import Tensor

from models import tiny
from pellucid.engine.decoding.beam import BeamSearch
from pellucid.engine.decoding.plain import Plain
from pellucid.engine.engine import Engine, generate
from pellucid.engine.job import Job
from pellucid.engine.request import Request
from pellucid.engine.rules.rule import NEVER
from pellucid.engine.speculation import PromptLookup
from pellucid.errors import InputError

LONG = tiny.ids(200, seed=9).tolist()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.make("llama", max_position_embeddings=512)


def ids_alone(model: Any, *requests: Request) -> list[list[int]]:
    return [outputs[0].ids for request in requests for outputs in generate(model, [request])]


def finish(engine: Engine, steps: int = 2000) -> None:
    for _ in range(steps):
        if not engine.busy:
            return
        engine.step()
        engine.check()
    raise AssertionError(f"not done after {steps} steps")


def watched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each forward."""
    counts, real = [], engine.main.forward

    def forward(parts: Any) -> None:
        counts.append(sum(min(part.count, part.task.seq.behind) for part in parts))
        real(parts)

    monkeypatch.setattr(engine.main, "forward", forward)
    return counts


# ---------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("budget", [1, 5, 24, 40, 100])
def test_a_step_keeps_to_its_budget(model: Any, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more rows than it has room for, with guesses, and with a long prompt."""
    guesses = PromptLookup(6, adaptive=False)
    requests = [Request(ids=LONG[i : i + 9] * 3, max_new=6, speculation=guesses if i % 2 else None) for i in range(8)]
    requests.append(Request(ids=LONG, max_new=3))
    engine = Engine(model, budget=budget)
    counts = watched(engine, monkeypatch)
    jobs = [engine.add(request) for request in requests]
    finish(engine)
    assert max(counts) <= budget
    assert [job.result()[0].ids for job in jobs] == ids_alone(model, *requests)


@pytest.mark.parametrize("budget", [24, 40, 64])
def test_a_long_prompt_does_not_wait_for_ever(model: Any, budget: int) -> None:
    """However many short requests keep coming."""
    engine = Engine(model, budget=budget)
    long = engine.add(Request(ids=LONG, max_new=1))
    live: list[Job] = []
    for step in range(80):
        live = [job for job in live if job.state != "done"]
        live += [engine.add(Request(ids=[3 + step % 90, i], max_new=9)) for i in range(budget - len(live))]
        engine.step()
        if long.state == "done":
            break
    assert step < 60
    for job in live:
        engine.cancel(job)


def test_drafts_keep_to_the_budget_too(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pellucid.engine.speculation import DraftModel, Habits

    draft = tiny.make("llama", num_hidden_layers=1, max_position_embeddings=512)
    engine = Engine(model, budget=30)
    real, counts = engine.side(draft).forward, []

    def forward(parts: Any) -> None:
        counts.append(sum(part.count for part in parts))
        real(parts)

    monkeypatch.setattr(engine.side(draft), "forward", forward)
    requests = [
        Request(ids=LONG[i:], max_new=4, speculation=DraftModel(draft, Habits(adaptive=False))) for i in (0, 70)
    ]
    jobs = engine.generate(requests)
    assert max(counts) <= 30
    assert [job.result()[0].ids for job in jobs] == ids_alone(
        model, *(Request(ids=request.ids, max_new=4) for request in requests)
    )


# ---------------------------------------------------------------------------------------- priority


def test_the_smaller_priority_begins_first(model: Any) -> None:
    engine = Engine(model, rows=1)
    jobs = [engine.add(Request(ids=[i], max_new=2, priority=p)) for i, p in enumerate((5, 0, -1, 0, 5), 3)]
    order = []
    while engine.busy:
        order += [job.order for job, _, _ in engine.step()]
    assert order == [2, 2, 1, 1, 3, 3, 0, 0, 4, 4]
    assert all(job.outputs[0].finish == "length" for job in jobs)


def test_the_larger_priority_gives_its_pages_back(model: Any) -> None:
    """Although it came first."""
    engine = Engine(model, pages=5)
    requests = [Request(ids=LONG[:40], max_new=60, priority=1), Request(ids=LONG[50:90], max_new=60)]
    jobs = [engine.add(request) for request in requests]
    finish(engine)
    assert [job.preempted > 0 for job in jobs] == [True, False]
    assert [job.result()[0].ids for job in jobs] == ids_alone(model, *requests)


# ---------------------------------------------------------------------------------------- prefixes


@pytest.mark.parametrize("family", ["llama", "gemma2", "jamba"])
@pytest.mark.parametrize("budget", [8, 33, 70, 4096])
def test_beginnings_that_are_waited_for_come(family: str, budget: int) -> None:
    """Also when whoever is about to fill them waits for room itself, is cancelled, or begins with them twice."""
    model = tiny.make(family, max_position_embeddings=512)
    requests = [Request(ids=[*LONG[:80], i], max_new=4) for i in range(5)]
    expected = ids_alone(model, *requests)
    engine = Engine(model, budget=budget)
    busy = [engine.add(Request(ids=[i], max_new=30)) for i in range(3, 9)]
    jobs = [engine.add(request) for request in requests]
    first = engine.add(Request(ids=[*LONG[:80], 50], max_new=4, priority=-1))
    engine.step()
    engine.cancel(first)
    finish(engine)
    assert [job.result()[0].ids for job in jobs] == expected
    assert all(len(job.result()[0].ids) == 30 for job in busy)


def test_log_probabilities_of_a_prompt_that_is_known(model: Any) -> None:
    """All of it is looked at, and nothing is computed less for it."""
    request = Request(ids=LONG[:100], max_new=3, prompt_logprobs=1)
    (alone,) = Engine(model).generate([request])
    engine = Engine(model)
    engine.generate([Request(ids=LONG[:110], max_new=1)])
    jobs = engine.generate([request, Request(ids=LONG[:100], max_new=3), request])
    for job in (jobs[0], jobs[2]):
        assert [each.token for each in job.prompt_logprobs] == LONG[1:100]
        theirs, mine = ([each.logprob for each in one.prompt_logprobs] for one in (alone, job))
        assert torch.allclose(torch.tensor(mine), torch.tensor(theirs), atol=1e-5)
    assert len({tuple(job.result()[0].ids) for job in (alone, *jobs)}) == 1


# ---------------------------------------------------------------------------------------- several outputs


def test_the_best_beams_of_a_search(model: Any) -> None:
    """Fewer outputs are the first of more, the best first; in company and with few pages, too."""
    every = Request(ids=LONG[:20], max_new=8, n=4, decoding=BeamSearch(beams=4))
    (whole,) = generate(model, [every])
    scores = [output.score for output in whole]
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert len({tuple(output.ids) for output in whole}) == 4
    engine = Engine(model, pages=8)
    jobs = [engine.add(Request(ids=LONG[:20], max_new=8, n=n, decoding=BeamSearch(beams=4))) for n in (1, 2, 3, 4)]
    finish(engine)
    for n, job in enumerate(jobs, 1):
        assert [output.ids for output in job.result()] == [output.ids for output in whole[:n]]


def test_more_outputs_than_there_are_pages_for(model: Any) -> None:
    engine = Engine(model, pages=4)
    job = engine.add(Request(ids=LONG[:40], max_new=9, n=8, sample=True, seed=1))
    other = engine.add(Request(ids=LONG[:5], max_new=9))
    finish(engine)
    with pytest.raises(InputError, match="8 sequences"):
        job.result()
    assert len(other.result()[0].ids) == 9


# ---------------------------------------------------------------------------------------- LongRoPE


def test_rows_that_are_turned_anew_while_pages_are_short() -> None:
    """Outputs share the pages of their prompt, also when these are read anew at a length of 70."""
    factors = {"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [2.0, 3.0, 5.0, 7.0]}
    model = tiny.make("phi3", original_max_position_embeddings=70, rope_scaling=factors)
    requests = [Request(ids=LONG[:66], max_new=9, n=3, sample=True, seed=3), Request(ids=LONG[:68], max_new=9)]
    expected = [[output.ids for output in outputs] for outputs in generate(model, requests)]
    assert Engine(model).main.points == {70}
    for pages, budget in ((9, 4096), (9, 8), (5, 4096), (4, 4096)):
        engine = Engine(model, pages=pages, budget=budget)
        jobs = [engine.add(request) for request in requests]
        finish(engine)
        if pages > 4:
            assert [[output.ids for output in job.result()] for job in jobs] == expected
        else:  # three last pages, and one that is left: too many, and the other request does not mind
            with pytest.raises(InputError, match="3 sequences"):
                jobs[0].result()
            assert [jobs[1].result()[0].ids] == expected[1]


# ---------------------------------------------------------------------------------------- forks


class OnlyOnce:
    """Forbids what it has heard of: a rule whose state is what was chosen."""

    def __init__(self, heard: Sequence[int] = ()) -> None:
        self.heard = list(heard)

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return logits_V.index_fill(0, torch.tensor(self.heard, dtype=torch.long), NEVER)

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        self.heard.append(token)

    def fork(self) -> OnlyOnce:
        return OnlyOnce(self.heard)


@pytest.mark.parametrize("family", ["llama", "jamba"])
@pytest.mark.parametrize("guesses", [None, PromptLookup(6, adaptive=False)], ids=["plain", "guesses"])
def test_a_fork_goes_on_as_the_original_does(family: str, guesses: Any) -> None:
    """Its rules know what was chosen; its states, also those to go back to, are its own."""
    model = tiny.make(family, max_position_embeddings=512)
    for rules in ([], [OnlyOnce()]):
        request = Request(ids=LONG[:6] * 3, max_new=24, rules=rules, speculation=guesses)
        expected = generate(model, [request])[0][0].ids
        engine = Engine(model)
        job, copies = engine.add(request), []
        while engine.busy:
            engine.step()
            engine.check()
            if len(copies) < 6 and job.outputs[0].ids and job.state != "done":
                copies.append(engine.fork(job))
        assert job.result()[0].ids == expected
        assert [copy.result()[0].ids for copy in copies] == [expected] * len(copies)
        assert len(copies) > 3


def test_a_fork_of_a_kept_row(model: Any) -> None:
    engine = Engine(model)
    talk = engine.sequence()
    job = engine.add(Request(ids=LONG[:20], max_new=9), talk)
    for _ in range(4):
        engine.step()
    copy = engine.fork(job)
    finish(engine)
    assert copy.result()[0].ids == job.result()[0].ids
    assert talk.row.length == 28


# ---------------------------------------------------------------------------------------- rows that are kept


@pytest.mark.parametrize("family", ["llama", "jamba"])
def test_a_kept_row_that_holds_something_else(family: str) -> None:
    """All of the prompt, more than it, or another text: what it has in common is not read again."""
    model = tiny.make(family, max_position_embeddings=512)
    engine = Engine(model)
    talk = engine.sequence()
    for ids in (LONG[:60], LONG[:60], LONG[:40], [*LONG[:45], *LONG[:9]], LONG[100:130], [7]):
        for decoding in (None, BeamSearch(beams=2)):
            request = Request(ids=ids, max_new=5, decoding=decoding, speculation=None if decoding else PromptLookup(4))
            job = engine.add(request, talk)
            finish(engine)
            assert job.result()[0].ids == ids_alone(model, Request(ids=ids, max_new=5, decoding=decoding))[0]


def test_a_kept_row_of_another_engine(model: Any) -> None:
    job = Engine(model).add(Request(ids=[3]), Engine(model).sequence())
    with pytest.raises(InputError, match="another engine"):
        job.result()


def test_a_kept_row_gives_way(model: Any) -> None:
    """Its pages are taken when others come first, and read again."""
    engine = Engine(model, pages=5)
    talk = engine.sequence()
    requests = [Request(ids=LONG[:40], max_new=60), Request(ids=LONG[50:90], max_new=60, priority=1)]
    jobs = [engine.add(requests[0]), engine.add(requests[1], talk)]
    finish(engine)
    assert jobs[1].preempted > 0
    assert [job.result()[0].ids for job in jobs] == ids_alone(model, *requests)


# ---------------------------------------------------------------------------------------- streams


def test_streams_beside_each_other_miss_nothing(model: Any) -> None:
    requests = [Request(ids=LONG[:n], max_new=m, decoding=Plain()) for n, m in ((5, 9), (30, 4), (7, 12))]
    engine = Engine(model)
    found: list[list[int]] = [[] for _ in requests]
    for events in zip_longest(*(engine.stream(request) for request in requests)):
        for own, event in zip(found, events):
            own += [] if event is None else [event[2]]
    assert found == ids_alone(model, *requests)


def test_a_stream_that_is_left_ends_its_requests(model: Any) -> None:
    engine = Engine(model)
    other = engine.add(Request(ids=[5], max_new=20))
    stream = engine.stream([Request(ids=LONG[:9], max_new=90), Request(ids=LONG[:40], max_new=90)])
    for _ in range(5):
        job, _, _ = next(stream)
    stream.close()
    assert job.outputs[0].finish == "cancelled"
    finish(engine)
    assert len(other.result()[0].ids) == 20
    assert engine.main.pages.counts()["held"] == 0
