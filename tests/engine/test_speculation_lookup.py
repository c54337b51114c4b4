"""Guesses from the text: the reference's prompt lookup, the suffix automaton, earlier outputs, forced tokens."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import tiny
from pellucid import AutoModelForCausalLM, AutoTokenizer
from pellucid.engine.engine import Engine
from pellucid.engine.grammar import grammar_rule
from pellucid.engine.request import Request
from pellucid.engine.speculation import Earlier, FirstOf, ForcedTokens, PromptLookup, SuffixLookup
from pellucid.engine.speculation.lookup import Runs
from pellucid.engine.speculation.suffixes import Match, Suffixes

TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=60)


@given(TEXTS, st.integers(1, 4), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_prompt_lookup_is_the_reference_s(text: list[int], run: int, most: int) -> None:
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    theirs = PromptLookupCandidateGenerator(num_output_tokens=most, max_matching_ngram_size=run, max_length=10_000)
    candidates, _ = theirs.get_candidates(torch.tensor([text]))
    runs = Runs(run)
    for token in text:
        runs.extend([token])
    assert runs.following(most)[0] == candidates[0, len(text) :].tolist()
    fork = runs.copy()
    fork.extend([1])
    assert runs.text == text


def ends(text: list[int], part: list[int]) -> list[int]:
    return [i for i in range(len(part), len(text) + 1) if text[i - len(part) : i] == part]


def longest(text: list[int], other: list[int], *, times: int) -> list[int]:
    """The longest ending of a text that stands in the other so often."""
    endings = (text[i:] for i in range(len(text)))
    return next((each for each in endings if len(ends(other, each)) >= times), [])


def followers(text: list[int], part: list[int]) -> list[int]:
    """The tokens that stand behind a part of a text."""
    return [text[place] for place in ends(text, part) if place < len(text)]


@given(TEXTS)
@settings(max_examples=80, deadline=None)
def test_a_suffix_automaton_knows_every_place(text: list[int]) -> None:
    suffixes = Suffixes()
    for i, token in enumerate(text):
        suffixes.extend([token])
        ending = longest(text[: i + 1], text[: i + 1], times=2)
        state = suffixes.link[suffixes.last]
        assert suffixes.length[state] == len(ending)
        if ending:
            places = ends(text[: i + 1], ending)
            assert (suffixes.count[state], suffixes.latest[state]) == (len(places), places[-1])
    tokens, chances = suffixes.following(5)
    assert bool(tokens) == bool(ending)
    for token, chance in zip(tokens, chances):
        while not (found := followers(text, ending)):
            del ending[0]
        assert found.count(token) == max(map(found.count, found))
        assert chance == pytest.approx(found.count(token) / (len(found) + 1 / len(ending)))
        ending = [*ending, token]


@given(TEXTS, TEXTS, TEXTS)
@settings(max_examples=80, deadline=None)
def test_a_match_in_another_text_that_grows(first: list[int], later: list[int], text: list[int]) -> None:
    other = Suffixes()
    other.extend(first)
    match = Match(other)
    match.extend(text)
    assert match.length == len(longest(text, first, times=1))
    ending = text[len(text) - match.length :]
    other.extend(later)  # states are split
    tokens, _ = match.following(1)
    found = followers(first + later, ending)
    if ending:
        assert not found or found.count(tokens[0]) == max(map(found.count, found))
    else:
        assert not tokens


def test_a_long_text_takes_linear_time() -> None:
    """The steps that the automaton takes, of a text of one token and of one by chance; not the time."""
    for text in ([1] * 20_000, random.Random(0).choices(range(50), k=20_000)):
        suffixes = Suffixes()
        suffixes.extend(text)
        assert len(suffixes.length) <= 2 * len(text)
        tokens, _ = suffixes.following(20)
        assert text[0] != 1 or tokens == [1] * 20


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained()


def test_a_text_that_repeats_itself_is_guessed(model: Any) -> None:
    """Once the story is in the prompt, it is confirmed and not computed."""
    story = Engine(model).generate([Request(ids=[1], max_new=60)])[0].result()[0].ids
    prompt = [1, *story, 1]
    plain = Engine(model)
    expected = plain.generate([Request(ids=prompt, max_new=50)])[0].result()[0]
    for how in (PromptLookup(adaptive=False), SuffixLookup(adaptive=False)):
        engine = Engine(model)
        output = engine.generate([Request(ids=prompt, max_new=50, speculation=how)])[0].result()[0]
        assert output.ids == expected.ids
        assert output.accepted > 15
        assert engine.main.steps < plain.main.steps - 15


def test_behind_an_encoder_its_source_is_looked_through() -> None:
    model = tiny.make("t5")
    first = Engine(model).generate([Request(ids=[5, 6, 7], begin=[0], max_new=12)])[0].result()[0].ids
    source = [5, 6, 7, *first]
    expected, output = (
        Engine(model).generate([Request(ids=source, begin=[0], max_new=12, speculation=how)])[0].result()[0]
        for how in (None, PromptLookup(run=1, adaptive=False))
    )
    assert output.ids == expected.ids
    assert output.drafted > 0


def test_earlier_outputs_are_guessed_again(model: Any) -> None:
    earlier = Earlier()
    engine = Engine(model)
    how = SuffixLookup(earlier=earlier, adaptive=False)
    first, second = (engine.generate([Request(ids=[1], max_new=60, speculation=how)])[0].result()[0] for _ in range(2))
    assert first.ids == second.ids
    assert second.accepted > first.accepted + 30
    tiny_memory = Earlier(most=10)
    for _ in range(3):
        tiny_memory.listen([])
        tiny_memory._running.extend([first])
    tiny_memory.listen([])
    assert len(tiny_memory._suffixes.text) == 61  # begun again each time


def test_what_a_grammar_forces_is_guessed(model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained()
    wanted = {"type": "choice", "choice": ["There was once a little girl who lived in a big house."]}

    def run(how: Any) -> Any:
        rule = grammar_rule(wanted, tokenizer, vocab=model.spec.vocab, eos={2}, begin=1)
        asked = Request(ids=[1], max_new=60, eos=frozenset({2}), rules=[rule], speculation=how)
        return Engine(model).generate([asked])[0].result()[0]

    expected = run(None)
    for how in (ForcedTokens(adaptive=False), FirstOf((ForcedTokens(adaptive=False), PromptLookup()))):
        output = run(how)
        assert output.ids == expected.ids
        assert output.accepted > 5


def test_the_first_that_has_a_guess_makes_it(model: Any) -> None:
    """Every drafter hears of its own guesses alone, though one has none."""
    how = FirstOf((ForcedTokens(), PromptLookup(adaptive=False), SuffixLookup(adaptive=False)))
    plain, output = (
        Engine(model).generate([Request(ids=[1], max_new=80, n=2, sample=True, seed=1, speculation=s)])[0].result()
        for s in (None, how)
    )
    assert [o.ids for o in plain] == [o.ids for o in output]
    assert output[0].drafted > 0
