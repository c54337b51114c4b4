"""Beam search and beam sampling: ids, scores and beams are those of the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.decoding import EOS, case_of, counted_forks, generate, pair, prompts_of, run
from models import tiny
from pellucid.engine.decoding.beam import BeamSearch, Finished, Ranking
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Request
from pellucid.engine.rules.penalties import NoRepeatNgram, RepetitionPenalty
from pellucid.engine.rules.warpers import Temperature, TopK
from pellucid.errors import ArgumentError, InputError

FAMILIES = ["llama", "gpt2", "gemma2", "mixtral", "jamba", "falcon_h1", "t5", "bart"]
SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 2},
    {"num_beams": 4, "early_stopping": True, "num_return_sequences": 4},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0, "num_return_sequences": 2},
    {"num_beams": 4, "early_stopping": False, "length_penalty": -1.0, "num_return_sequences": 3},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.0, "num_return_sequences": 3},
    {"num_beams": 3, "early_stopping": True, "max_new_tokens": 1, "num_return_sequences": 3},
]


def ours(model: Any, prompts: list[list[int]], setting: dict[str, Any], **more: Any) -> list[Job]:
    ranking = Ranking(
        length_penalty=setting.get("length_penalty", 1.0), early_stopping=setting.get("early_stopping", False)
    )
    return run(
        model,
        prompts,
        n=setting.get("num_return_sequences", 1),
        max_new=setting.get("max_new_tokens", 12),
        decoding=BeamSearch(beams=setting["num_beams"], ranking=ranking),
        keep=frozenset({"scores", "logits"}),
        **more,
    )


def compare(jobs: list[Job], theirs: Any, prompt: int, beams: int) -> None:
    """Every output against its row; the reference counts the beams of all rows through."""
    rows = zip(theirs.sequences.tolist(), theirs.beam_indices.tolist(), theirs.sequences_scores.tolist())
    for i, job in enumerate(jobs):
        for output in job.result():
            ids, path, score = next(rows)
            assert output.ids == ids[prompt : prompt + len(output.ids)]
            assert [beam + i * beams for beam in output.beams] == path[: len(output.ids)]
            assert set(path[len(output.ids) :]) <= {-1}
            assert output.score == pytest.approx(score, abs=1e-4, rel=1e-6)  # T5 scores are about -600
            assert output.finish == ("stop" if output.ids[-1] in EOS else "length")
    assert next(rows, None) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_beams_are_those_of_the_reference(family: str, checkpoints: Path) -> None:
    """Alone, and three prompts at once, which the reference pads."""
    model, theirs = pair(family, checkpoints)
    prompts = prompts_of(case_of(family))
    for setting in SETTINGS:
        for rows in (prompts[:1], prompts):
            jobs = ours(model, rows, setting)
            found = generate(theirs, rows, **setting)
            compare(jobs, found, 1 if model.encoder else max(map(len, rows)), setting["num_beams"])


def test_what_is_kept_of_the_steps_is_the_references(checkpoints: Path) -> None:
    """Scores after the rules and logits, of all beams; their sum along a beam is its score."""
    model, theirs = pair("llama", checkpoints)
    prompts, setting = prompts_of(case_of("llama"))[:1], SETTINGS[1]
    rules = [RepetitionPenalty(1.3), NoRepeatNgram(2)]
    [job] = ours(model, prompts, setting, rules=rules)
    found = generate(theirs, prompts, **setting, repetition_penalty=1.3, no_repeat_ngram_size=2)
    compare([job], found, len(prompts[0]), 4)
    torch.testing.assert_close(torch.stack(job.beam_scores), torch.stack(found.scores), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.stack(job.beam_logits), torch.stack(found.logits), atol=1e-4, rtol=0)
    for output in job.result():
        steps = zip(job.beam_scores, output.beams, output.ids)
        total = sum(float(scores_BV[beam, token]) for scores_BV, beam, token in steps)
        assert output.score == pytest.approx(total / len(output.ids), abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("seed", range(5))
def test_beam_sampling_draws_what_the_reference_draws(family: str, seed: int, checkpoints: Path) -> None:
    """A request's seed is the reference's `manual_seed`."""
    model, theirs = pair(family, checkpoints)
    prompts = prompts_of(case_of(family))[:1]
    setting = {"num_beams": 3, "num_return_sequences": 3}
    rules = [Temperature(1.7), TopK(20, len(EOS) + 1)]
    jobs = ours(model, prompts, setting, sample=True, seed=seed, rules=rules)
    torch.manual_seed(seed)
    found = generate(theirs, prompts, **setting, do_sample=True, temperature=1.7, top_k=20)
    compare(jobs, found, 1 if model.encoder else len(prompts[0]), 3)


def test_sampled_beams_differ_by_seed_and_not_by_company() -> None:
    model = tiny.make("llama")
    prompt, search = tiny.ids(9).tolist(), BeamSearch(beams=3)
    asked = [
        Request(ids=prompt, max_new=8, sample=True, seed=seed, decoding=search, rules=[Temperature(3.0)])
        for seed in (1, 2, 1)
    ]
    one, other, again = ([o.ids for o in job.result()] for job in Engine(model).generate(asked))
    assert one == again != other
    assert [o.ids for o in Engine(model).generate(asked[1:2])[0].result()] == other


def test_one_beam_is_greedy() -> None:
    model = tiny.make("llama")
    prompts = [tiny.ids(n).tolist() for n in (1, 9)]
    greedy = run(model, prompts, eos=frozenset())
    beams = run(model, prompts, eos=frozenset(), decoding=BeamSearch(beams=1))
    assert [job.result()[0].ids for job in beams] == [job.result()[0].ids for job in greedy]


def test_log_probabilities_are_those_of_a_forward() -> None:
    model = tiny.make("llama")
    prompt = tiny.ids(9).tolist()
    options = {"logprobs": 2, "prompt_logprobs": 0, "decoding": BeamSearch(beams=4), "n": 2}
    [job] = run(model, [prompt], rules=[RepetitionPenalty(1.5)], **options)
    for output in job.result():
        logp_TV = tiny.call(model, torch.tensor([[*prompt, *output.ids]]))[0].log_softmax(-1)
        whole = [float(logp_TV[i, token]) for i, token in enumerate([*prompt[1:], *output.ids])]
        reported = [each.logprob for each in [*job.prompt_logprobs, *output.logprobs]]
        assert reported == pytest.approx(whole, abs=1e-4)
        assert [each.token for each in output.logprobs] == output.ids


@pytest.mark.parametrize("allowed", [1, 2])
def test_fewer_paths_than_beams(allowed: int, checkpoints: Path) -> None:
    """The reference fills the places with copies, whose scores say that they do not count."""
    model, theirs = pair("llama", checkpoints)
    prompts, setting = prompts_of(case_of("llama"))[:1], {"num_beams": 3, "max_new_tokens": 3}
    from pellucid.engine.rules.constraints import AllowedTokens

    def only(row: int, ids: torch.Tensor) -> list[int]:
        return [20, 21][:allowed]

    jobs = ours(model, prompts, setting, rules=[AllowedTokens(only, rescue=False)])
    found = generate(theirs, prompts, **setting, prefix_allowed_tokens_fn=only)
    compare(jobs, found, len(prompts[0]), 3)


def test_a_stop_rule_ends_beams(checkpoints: Path) -> None:
    """As an end token does, in version 5 of the reference."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    from pellucid.engine.stops import EndTokens

    class Ends(StoppingCriteria):
        def __call__(self, ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return torch.isin(ids[:, -1], torch.tensor(range(40, 101, 5)))

    model, theirs = pair("llama", checkpoints)
    prompts, setting = prompts_of(case_of("llama")), {"num_beams": 3, "num_return_sequences": 3}
    for prompt in prompts:
        [job] = ours(model, [prompt], setting, stops=[EndTokens(frozenset(range(40, 101, 5)))])
        found = generate(theirs, [prompt], **setting, stopping_criteria=StoppingCriteriaList([Ends()]))
        for output, ids, score in zip(job.result(), found.sequences.tolist(), found.sequences_scores.tolist()):
            assert output.ids == ids[len(prompt) : len(prompt) + len(output.ids)]
            assert output.score == pytest.approx(score, abs=1e-4, rel=1e-6)  # T5 scores are about -600
            assert output.finish == ("stop" if output.ids[-1] in {*EOS, *range(40, 101, 5)} else "length")


def test_beams_that_go_on_alone_are_not_copied() -> None:
    model = tiny.make("llama")
    with counted_forks() as forks:
        [job] = run(model, [tiny.ids(9).tolist()], eos=frozenset(), decoding=BeamSearch(beams=4), keep=frozenset())
    path = job.result()[0].beams
    assert len(path) == 12
    assert 3 <= forks[0] <= 3 * 11  # the first step makes 4 of 1; each later one copies what branches, and no more
    with counted_forks() as forks:
        run(model, [tiny.ids(9).tolist()], eos=frozenset(), decoding=BeamSearch(beams=1))
    assert forks[0] == 0


def test_nothing_is_left_behind() -> None:
    model = tiny.make("llama")
    engine = Engine(model)
    job = engine.add(Request(ids=tiny.ids(9).tolist(), max_new=9, n=3, decoding=BeamSearch(beams=3)))
    for _ in range(4):
        engine.step()
    assert len(job.seqs) == 3
    engine.cancel(job)
    assert not job.seqs
    assert [output.finish for output in job.outputs] == ["cancelled"] * 3
    [job] = engine.generate([Request(ids=tiny.ids(9).tolist(), max_new=9, decoding=BeamSearch(beams=3))])
    assert not job.seqs
    [other] = run(model, [tiny.ids(9).tolist()], max_new=9, eos=frozenset(), decoding=BeamSearch(beams=3))
    assert job.result()[0].ids == other.result()[0].ids


def test_events_tell_of_the_outputs_at_the_end() -> None:
    engine = Engine(tiny.make("llama"))
    request = Request(ids=tiny.ids(9).tolist(), max_new=5, n=2, decoding=BeamSearch(beams=3))
    events = list(engine.stream(request))
    job = events[0][0]
    assert [[token for _, place, token in events if place == i] for i in (0, 1)] == [o.ids for o in job.outputs]


def test_wrong_requests_fail_alone() -> None:
    model = tiny.make("llama")
    prompt = tiny.ids(9).tolist()
    none = RepetitionPenalty(1.0)

    class Nothing(type(none)):  # type: ignore[misc]
        def __call__(self, ids: Any, logits_V: torch.Tensor) -> torch.Tensor:
            return torch.full_like(logits_V, -torch.inf)

    jobs = Engine(model).generate([
        Request(ids=prompt, max_new=3, n=4, decoding=BeamSearch(beams=3)),
        Request(ids=prompt, max_new=3, rules=[Nothing(1.0)], decoding=BeamSearch(beams=3)),
        Request(ids=prompt, max_new=3, decoding=BeamSearch(beams=3)),
    ])  # fmt: skip
    with pytest.raises(ArgumentError, match="4 outputs of 3 beams"):
        jobs[0].result()
    with pytest.raises(InputError, match="no token is allowed"):
        jobs[1].result()
    assert len(jobs[2].result()[0].ids) == 3


def test_when_a_search_is_over() -> None:
    """Scores are over length ** 1: -4 over 4 tokens is -1."""
    for early, hope, length, over in (
        (True, -0.1, 4, True), (False, -4.1, 4, True), (False, -3.9, 4, False), ("never", -9.0, 4, False),
        ("never", -10.1, 4, True),
    ):  # fmt: skip
        finished = Finished(1, Ranking(early_stopping=early), 10)
        assert not finished.closed(hope, length)
        finished.outputs = [run_output(-1.0)]
        assert finished.closed(hope, length) is over


def run_output(score: float) -> Any:
    from pellucid.engine.request import Output

    return Output(ids=[3], score=score)
