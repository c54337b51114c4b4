"""What ends a sequence: texts beside the reference's criterion, time, doubt, own criteria."""

from __future__ import annotations

import random
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.generation import stopping_criteria as theirs

import pellucid
from pellucid import AutoTokenizer, GenerationConfig, StoppingCriteriaList, hub
from pellucid.engine.stops import Custom, Doubt, EndTokens, MaxLength, MaxTime, StopTexts, as_stop, stops
from pellucid.errors import ArgumentError
from pellucid.text.tokenizer import Tokenizer

TEXT = 'Once upon a time, there was a lit\u00e9 girl.\n\nShe said: "Hi!" and \U0001f642 went  home.\n'


@lru_cache
def sentencepiece() -> Tokenizer:
    """With bytes for what it has no piece for: line ends are such bytes."""
    return AutoTokenizer.from_pretrained()


@lru_cache
def byte_level() -> Tokenizer:
    return pellucid.train_tokenizer([TEXT, "a time to go home", "go home"] * 9, vocab_size=290)


def first_end(stop: Any, ids: list[int]) -> int | None:
    return next((n for n in range(1, len(ids) + 1) if stop(ids[:n], None)), None)


@settings(max_examples=150, deadline=None)
@given(
    begin=st.integers(0, 60), length=st.integers(1, 9), second=st.integers(0, 60), by_bytes=st.booleans(),
)  # fmt: skip
def test_texts_end_where_they_are_complete(begin: int, length: int, second: int, by_bytes: bool) -> None:
    """By the definition: the first token with which the whole text has a stop string."""
    tokenizer = byte_level() if by_bytes else sentencepiece()
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    wanted_texts = tuple(text for text in (TEXT[begin : begin + length], TEXT[second : second + 1]) if text)
    stop = StopTexts(tokenizer, wanted_texts)
    whole = [tokenizer.rust.decode(ids[:n], skip_special_tokens=False) for n in range(len(ids) + 1)]
    wanted = next((n for n in range(len(ids) + 1) if any(text in whole[n] for text in wanted_texts)), None)
    assert first_end(stop, ids) == wanted


def test_texts_as_the_reference(tmp_path: Path) -> None:
    """Random ids: the same tokens end, a stop string that began in the prompt included."""
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    chance = random.Random(0)
    own = [id for id in range(len(tokenizer)) if tokenizer.decode([id]).isascii()]
    for texts in (["time"], ["e t", "\n"], ["girl.\n\nShe"], ["ho", "home"], [" "], ["e"]):
        stop, wanted = StopTexts(tokenizer, tuple(texts)), theirs.StopStringCriteria(reference, texts)
        for _ in range(60):
            ids = [chance.choice(own) for _ in range(chance.randint(1, 8))]
            ids += tokenizer.encode(chance.choice([*texts, "x"]), add_special_tokens=False)[: chance.randint(1, 9)]
            assert stop(ids, None) == bool(wanted(torch.tensor([ids]), None)[0]), (texts, ids)


def test_a_text_of_the_prompt_does_not_end() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("go home", add_special_tokens=False)
    stop = StopTexts(tokenizer, ("home",))
    assert stop(ids, None) and not stop([*ids, *tokenizer.encode(" a", add_special_tokens=False)[:1]], None)


def test_a_step_decodes_only_the_end() -> None:
    tokenizer, seen = byte_level(), []

    class Rust:
        def decode(self, ids: list[int], **options: Any) -> str:
            seen.append(len(ids))
            return tokenizer.rust.decode(ids, **options)

    class Counting:
        rust = Rust()

    stop = StopTexts(Counting(), ("home",))  # type: ignore[arg-type]
    stop(tokenizer.encode(TEXT * 50, add_special_tokens=False), None)
    assert max(seen) < 20


def test_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    stop = MaxTime(5.0, begun=now)
    monkeypatch.setattr(time, "monotonic", lambda: now + 4.9)
    assert not stop([1], None)
    monkeypatch.setattr(time, "monotonic", lambda: now + 5.1)
    assert stop([1], None)
    assert pellucid.MaxTimeCriteria(5.0)(torch.tensor([[1]]), None).tolist() == [False]
    assert pellucid.MaxTimeCriteria(5.0, time.time() - 6)(torch.tensor([[1]]), None).tolist() == [True]


def test_length_ends_and_doubt() -> None:
    logits = torch.tensor([2.0, 0.0])
    share = float(logits.softmax(0)[1])
    assert Doubt(share + 0.01)([0, 1], logits) and not Doubt(share - 0.01)([0, 1], logits) and not Doubt(1.0)([1], None)
    assert MaxLength(2)([1, 1], None) and not MaxLength(2)([1], None)
    assert EndTokens(frozenset({3}))([1, 3], None) and not EndTokens(frozenset({3}))([3, 1], None)


def test_classes_as_the_reference() -> None:
    chance = torch.Generator().manual_seed(0)
    for _ in range(20):
        ids = torch.randint(5, (3, 6), generator=chance)
        scores = (torch.randn(3, 5, generator=chance),)
        for name, arguments in (
            ("MaxLengthCriteria", (6,)), ("MaxLengthCriteria", (7,)), ("EosTokenCriteria", (2,)),
            ("EosTokenCriteria", ([2, 3],)), ("EosTokenCriteria", (torch.tensor([1]),)),
        ):  # fmt: skip
            found = getattr(pellucid, name)(*arguments)(ids, scores)
            assert torch.equal(found, getattr(theirs, name)(*arguments)(ids, scores)), name
        found = pellucid.ConfidenceCriteria(0.3)(ids[:1], tuple(s[:1] for s in scores))
        assert bool(found) == theirs.ConfidenceCriteria(0.3)(ids[:1], tuple(s[:1] for s in scores))
    both = StoppingCriteriaList([pellucid.MaxLengthCriteria(9), pellucid.EosTokenCriteria(2)])
    assert both.max_length == 9 and StoppingCriteriaList().max_length is None
    assert both(torch.tensor([[1, 2], [2, 1]]), None).tolist() == [True, False]
    assert StoppingCriteriaList()(torch.tensor([[1, 2]]), None).tolist() == [False]


def test_own_criteria() -> None:
    seen: list[tuple[list[int], Any]] = []

    class Mine(pellucid.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            seen.append((input_ids.shape, scores))
            return input_ids[:, -1] == 4

    stop = as_stop(Mine())
    assert isinstance(stop, Custom) and stop.fork() == stop
    assert not stop([4, 1], None) and stop([1, 4], torch.zeros(5)) and stop.fork()([9, 4], None)
    assert seen[0] == ((1, 2), None) and seen[1][1][-1].shape == (1, 5)
    assert as_stop(lambda ids, scores: True)([1], None) is True
    assert as_stop(pellucid.MaxLengthCriteria(3)) == MaxLength(3)
    assert as_stop(MaxLength(3)) == MaxLength(3)
    with pytest.raises(ArgumentError, match="int"):
        as_stop(5)
    with pytest.raises(NotImplementedError):
        pellucid.StoppingCriteria()(torch.tensor([[1]]), None)


def test_stops_of_options() -> None:
    tokenizer = sentencepiece()
    options = GenerationConfig(max_time=3.0, stop_strings="x", is_assistant=True, eos_token_id=2)
    found = stops(options, tokenizer=tokenizer, criteria=[MaxLength(9)])
    assert [type(stop).__name__ for stop in found] == ["MaxTime", "StopTexts", "Doubt", "MaxLength"]
    assert stops(GenerationConfig(stop_strings=[])) == [] and stops(GenerationConfig()) == []
    with pytest.raises(ArgumentError, match="tokenizer"):
        stops(options)


@pytest.mark.parametrize("make, says", [
    (lambda: pellucid.MaxLengthCriteria(-1), "max_length"), (lambda: pellucid.MaxTimeCriteria(-1.0), "max_time"),
    (lambda: pellucid.EosTokenCriteria("x"), "eos_token_id"), (lambda: pellucid.ConfidenceCriteria(2.0), "at most 1"),
    (lambda: pellucid.StopStringCriteria(sentencepiece(), [""]), "stop_strings"),
])  # fmt: skip
def test_arguments_out_of_range(make: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        make()


def test_generation_ends_at_a_text() -> None:
    """In `generate`: the ids stay, and the text ends with the stop string."""
    model, tokenizer = pellucid.AutoModelForCausalLM.from_pretrained(hub.default_model()), sentencepiece()
    prompt = tokenizer.encode("Once upon a time")
    options = {"max_new_tokens": 60, "do_sample": False}
    ended = model.generate(prompt, stop_strings=["girl", "zebra"], tokenizer=tokenizer, **options)
    free = model.generate(prompt, **options)
    assert ended == free[: len(ended)] and len(ended) < len(free)
    assert tokenizer.decode(ended).endswith("girl") and "girl" not in tokenizer.decode(ended[:-1])
