"""Guesses change how soon a text comes, and nothing else: rules of judgement, ends of every kind, pace, families."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import reference as ref
from engine.decoding import begin_of, case_of, prompts_of
from models import tiny
from pellucid.engine import sampling
from pellucid.engine.clock import Clock
from pellucid.engine.decoding import Guess
from pellucid.engine.decoding.beam import BeamSearch
from pellucid.engine.decoding.line import Line, draw
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Output, Request
from pellucid.engine.rules.warpers import Temperature, TopK, TopP
from pellucid.engine.sequence import Feed, Seen
from pellucid.engine.speculation import DraftModel, EarlyExit, Habits, PromptLookup, SuffixLookup
from pellucid.engine.speculation.pace import Pace
from pellucid.errors import InputError, Unsupported

FAMILIES = ["llama", "gemma2", "mixtral", "mamba", "jamba", "lfm2", "t5", "bart"]
ALL = Habits(adaptive=False, threshold=0.0, tokens=4)


@dataclass(frozen=True)
class Told:
    """Guesses what `says` makes of a line's output and the room there is, and notes what became of it."""

    says: Callable[[list[int], int], Sequence[int]]
    judgements: list[tuple[int, int]] = field(default_factory=list)

    def drafter(self, job: Job) -> Told:
        return self

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        yield from ()
        return [Guess(self.says(line.output.ids, n)) for line, n in zip(lines, most)]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        self.judgements.append((len(guess.tokens), accepted))


def knows(answer: list[int], *, wrong: Sequence[int] = (), tokens: int = 4) -> Told:
    """Guesses the known answer, with another token at some places."""
    coming = [(token + 1) % 50 + 3 if i in wrong else token for i, token in enumerate(answer)]
    return Told(lambda output, most: coming[len(output) : len(output) + min(tokens, most)])


def one(model: Any, prompt: Sequence[int], **options: Any) -> Output:
    (job,) = Engine(model).generate([Request(ids=prompt, begin=begin_of(model), **options)])
    return job.result()[0]


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny.make("llama")


# ------------------------------------------------------------------------------------------------ greedy


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_without_speculation(family: str, checkpoints: Path) -> None:
    """Rejected guesses leave nothing behind: in keys, windows, recurrent states, behind an encoder, in a mixture."""
    case = case_of(family)
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    prompts = [[7, 9] * 4, *prompts_of(case)]
    asked = {"begin": begin_of(model), "max_new": 16}
    alone = [Engine(model).generate([Request(ids=p, **asked)])[0].result()[0].ids for p in prompts]
    oracle = knows(alone[2], wrong=(3, 7, 8))
    hows = [PromptLookup(adaptive=False), SuffixLookup(adaptive=False), DraftModel(model, ALL), EarlyExit(1, ALL)]
    for how in hows:
        mixed = [how, None, oracle, how]
        jobs = Engine(model).generate([Request(ids=p, speculation=s, **asked) for p, s in zip(prompts, mixed)])
        assert [job.result()[0].ids for job in jobs] == alone, how
        if how == DraftModel(model, ALL):  # the model agrees with itself, whatever was taken back
            assert all(job.outputs[0].drafted == job.outputs[0].accepted > 8 for job in (jobs[0], jobs[3]))
    assert sum(accepted < guessed for guessed, accepted in oracle.judgements) >= 3 * len(hows)


def test_all_kinds_of_ends(llama: Any) -> None:
    prompt = [5, 6, 7]
    whole = one(llama, prompt, max_new=30).ids
    place = next(i for i in range(5, 30) if whole[i] not in whole[:i])
    for spread in (1, 4, 30):
        guesses = knows(whole, tokens=spread)
        ended = one(llama, prompt, max_new=30, eos=frozenset({whole[place]}), speculation=guesses)
        assert (ended.ids, ended.finish) == (whole[: place + 1], "stop")
        assert sum(accepted for _, accepted in guesses.judgements) == ended.accepted >= place * spread // (spread + 1)
        for most in (1, 2, 3, 7):
            short = one(llama, prompt, max_new=most, speculation=knows(whole, tokens=spread))
            assert (short.ids, short.finish) == (whole[:most], "length")

    class Stop:
        def __call__(self, ids: Sequence[int], logits_V: Any) -> bool:
            return len(ids) == 3 + 6

        def fork(self) -> Stop:
            return self

    assert one(llama, prompt, max_new=30, stops=[Stop()], speculation=knows(whole)).ids == whole[:6]


def test_the_context_ends_a_guess(llama: Any) -> None:
    prompt = [3 + i % 90 for i in range(llama.spec.context - 5)]
    whole = one(llama, prompt, max_new=30)
    for how in (knows(whole.ids), DraftModel(llama, ALL), SuffixLookup(adaptive=False)):
        output = one(llama, prompt, max_new=30, speculation=how)
        assert (output.ids, output.finish) == (whole.ids, "length")
        assert len(output.ids) == 5


def test_a_draft_model_with_less_room_or_fewer_tokens_stays_silent(llama: Any) -> None:
    small = tiny.make("llama", max_position_embeddings=12, vocab_size=90)
    for prompt in ([4] * 10, [4] * 40, [4, 95, 6]):
        whole = one(llama, prompt, max_new=20).ids
        assert one(llama, prompt, max_new=20, speculation=DraftModel(small, ALL)).ids == whole


def test_what_goes_wrong_fails_one_request(llama: Any) -> None:
    def broken(output: list[int], most: int) -> list[int]:
        raise ZeroDivisionError("mine")

    prompt = [5, 6, 7]
    whole = one(llama, prompt, max_new=12).ids
    bad = [Told(broken), Told(lambda output, most: [101]), Told(lambda output, most: [-1]),
           Told(lambda output, most: [3] * (most + 1))]  # fmt: skip
    engine = Engine(llama)
    jobs = engine.generate([Request(ids=prompt, max_new=12, speculation=s) for s in (*bad, None, knows(whole))])
    assert isinstance(jobs[0].error, ZeroDivisionError)
    for job, words in zip(jobs[1:4], ("vocabulary", "vocabulary", "room")):
        assert isinstance(job.error, InputError) and words in str(job.error)
    assert [job.result()[0].ids for job in jobs[4:]] == [whole, whole]


# ------------------------------------------------------------------------------------------------ sampling


def surprise(counts: Counter[Any], expected: dict[Any, float], total: int) -> float:
    """Chi-square over its degrees of freedom, in standard deviations above what chance gives."""
    assert not set(counts) - set(expected), "what cannot be was drawn"
    cells = [(counts[cell], share * total) for cell, share in expected.items() if share * total >= 5]
    cells.append((total - sum(c for c, _ in cells), total - sum(e for _, e in cells)))
    found = sum((c - e) ** 2 / e for c, e in cells if e > 1e-6)
    free = len(cells) - 1
    return float((found - free) / (2 * free) ** 0.5)


def test_the_rejection_rule_draws_from_p() -> None:
    """For any q: p inside q, q inside p, apart, equal."""
    chance = torch.Generator().manual_seed(0)
    p = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2])
    for q in ([0.2] * 5, [0.0, 0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.5, 0.1, 0.1, 0.2, 0.1], p.tolist()):
        q_V = torch.tensor(q)
        drawn: Counter[int] = Counter()
        kept = 0
        for _ in range(2000):
            guess = sampling.draw(q_V, chance)
            token = draw(p, chance, guess, q_V)
            drawn[token] += 1
            kept += token == guess
        assert surprise(drawn, dict(enumerate(p.tolist())), 2000) < 3.5
        most = float(torch.minimum(p, q_V).sum())  # as many guesses as can be
        assert kept / 2000 == pytest.approx(most, abs=0.04)


RULES = (Temperature(0.7), TopK(3), TopP(0.95))


def exactly(model: Any, prompt: list[int], length: int) -> dict[tuple[int, ...], float]:
    """The probability of every continuation."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        after: dict[tuple[int, ...], float] = {}
        for said, share in found.items():
            with torch.inference_mode():
                scores_V = model(torch.tensor([[*prompt, *said]])).logits[0, -1].float()
            for rule in RULES:
                scores_V = rule([*prompt, *said], scores_V)
            for token in (scores_V > -torch.inf).nonzero().flatten().tolist():
                after[(*said, token)] = share * float(scores_V.softmax(-1)[token])
        found = after
    return found


@pytest.mark.parametrize("how", ["draft", "early", "certain"])
def test_sampled_texts_have_the_distribution_of_the_model(llama: Any, how: str) -> None:
    """Chi-square over all continuations of four tokens, 800 lines of one request."""
    prompt = [5, 6, 5, 6, 5]
    draft = tiny.make("llama", num_hidden_layers=1, vocab_size=97)
    for parameter in draft.parameters():
        parameter.data.mul_(0.9)
    kinds = {
        "draft": DraftModel(draft, ALL), "early": EarlyExit(2, ALL),
        "certain": knows(one(llama, prompt, max_new=4).ids),
    }  # fmt: skip
    asked = {"ids": prompt, "max_new": 4, "sample": True, "seed": 11, "n": 800, "rules": RULES}
    (job,) = Engine(llama).generate([Request(speculation=kinds[how], **asked)])
    outputs = job.result()
    counts = Counter(tuple(output.ids) for output in outputs)
    assert surprise(counts, exactly(llama, prompt, 4), 800) < 3.5
    drafted, accepted = sum(o.drafted for o in outputs), sum(o.accepted for o in outputs)
    assert drafted > 700 and 0 < accepted < drafted


def test_seeds_decide_with_certain_guesses_as_without(llama: Any) -> None:
    """What was not drawn is compared with what the line draws; with `same_draws` a draft is, too."""
    asked = {"ids": [5, 6, 5, 6, 5], "max_new": 20, "sample": True, "seed": 4, "n": 3, "rules": [Temperature(0.5)]}
    (plain,) = Engine(llama).generate([Request(**asked)])
    same = Habits(adaptive=False, threshold=0.0, tokens=4, same_draws=True)
    for how in (PromptLookup(), SuffixLookup(adaptive=False), DraftModel(llama, same), EarlyExit(2, same)):
        (job,) = Engine(llama).generate([Request(speculation=how, **asked)])
        assert [o.ids for o in job.result()] == [o.ids for o in plain.result()]
        if how == DraftModel(llama, same):
            assert all(o.drafted == o.accepted > 10 for o in job.outputs)


def test_drawn_guesses_go_by_the_seed_alone(llama: Any) -> None:
    """How much is guessed is then no matter of the clock, nor of company."""
    asked = {"max_new": 30, "sample": True, "seed": 4, "rules": [Temperature(0.5)], "speculation": EarlyExit(2)}
    (alone,) = Engine(llama).generate([Request(ids=[5, 6, 7], **asked)])
    beside = Engine(llama).generate([Request(ids=[8] * n, **asked) for n in (3, 9)] + [Request(ids=[5, 6, 7], **asked)])
    assert beside[-1].result()[0].ids == alone.result()[0].ids
    assert beside[-1].outputs[0].drafted == alone.outputs[0].drafted


# ------------------------------------------------------------------------------------------------ pace


def speed(right: float, price: float, seed: int, tokens: int = 300) -> float:
    """Tokens for a step's price, at a forced acceptance."""
    chance = torch.Generator().manual_seed(seed)
    pace, made, spent = Pace(), 0, 0.0
    while made < tokens:
        chances = [1.0] * 10
        count = pace.length(chances, price)
        luck = (torch.rand(count, generator=chance) < right).tolist()
        accepted = luck.index(False) if False in luck else count
        if count:
            pace.judged(chances[:count], accepted)
        made += accepted + 1
        spent += 1 + price * count
    return made / spent


@pytest.mark.parametrize("price", [0.01, 0.05, 0.1, 0.2, 0.5, 1.0])
def test_guessing_pays_or_is_left_out(price: float) -> None:
    for right, seed in product((0.0, 0.05, 0.2, 0.5, 0.8, 1.0), range(3)):
        best = max((1 - right ** (k + 1)) / (1 - right) / (1 + price * k) if right < 1 else (k + 1) / (1 + price * k)
                   for k in range(11))  # fmt: skip
        found = speed(right, price, seed)
        assert found > 0.9
        assert found > 0.8 * best, (right, price)


def test_a_pace_comes_back_when_guesses_get_better() -> None:
    pace = Pace()
    for _ in range(50):
        if count := pace.length([1.0] * 10, 0.2):
            pace.judged([1.0] * count, 0)
    assert pace.right / pace.hoped < 0.2
    lengths = []
    for _ in range(300):
        lengths.append(pace.length([1.0] * 10, 0.2))
        if lengths[-1]:
            pace.judged([1.0] * lengths[-1], lengths[-1])
    assert lengths[-1] == 10


def test_a_pace_learns_what_a_drafter_s_chances_are_worth() -> None:
    pace = Pace()
    for _ in range(60):
        count = pace.length([0.5, 0.5], 0.01)
        pace.judged([0.5] * count, count)  # always right: it is too modest
    assert pace.length([0.5] * 8, 0.1) == 8
    assert pace.length([0.01] * 8, 0.1) == 0


def test_the_clock_finds_the_line() -> None:
    clock = Clock()
    assert clock.seconds(1) == 0
    clock.note(1, 2.0)
    assert clock.each == pytest.approx(0.2)  # what is assumed, until there is more to go by
    for i in range(60):
        tokens = (1, 4, 2, 8)[i % 4]
        clock.note(tokens, 1.0 + 0.05 * tokens + (30.0 if i == 50 else 0.0))  # something else ran once
    assert clock.seconds(1) == pytest.approx(1.05, rel=0.15)
    assert clock.each == pytest.approx(0.05, abs=0.05)
    clock.note(100, 0.5)
    assert clock.each >= 0


def test_the_clock_leaves_long_pieces_out(llama: Any) -> None:
    engine = Engine(llama)
    engine.generate([Request(ids=[4] * 80, max_new=3)])
    assert engine.main.steps == 3
    assert engine.main.clock.tokens == 1


def test_other_decodings_take_no_guesses(llama: Any) -> None:
    (job,) = Engine(llama).generate(
        [Request(ids=[5], max_new=3, decoding=BeamSearch(beams=2), speculation=SuffixLookup())]
    )
    assert isinstance(job.error, Unsupported) and "BeamSearch" in str(job.error)
