"""`Stream`: the parts together are the whole, no part ends inside a character, and the cost is linear."""

from __future__ import annotations

import functools
import time

import pytest
from folders import TABLE, TEXTS, folder
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import ArgumentError
from pellucid.text.stream import Stream
from pellucid.text.tokenizer import Tokenizer

NAMES = ["bert-cleans-up", "bert-uncased", "gpt2", "llama2", "stories260K", "t5", "unigram", "xlm-roberta"]


@functools.cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer.from_folder(folder(name))


def parts(tok: Tokenizer, ids: list[int], skip: bool = False) -> list[str]:
    stream = Stream(tok, skip_special_tokens=skip)
    return [*map(stream.add, ids), stream.end()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip", [False, True])
def test_texts(name: str, skip: bool) -> None:
    assert name in TABLE
    tok = tokenizer(name)
    for text in TEXTS:
        ids = tok.encode(text)
        got = parts(tok, ids, skip)
        assert "".join(got) == tok.decode(ids, skip_special_tokens=skip)
        if "\ufffd" not in tok.decode(ids):
            assert not any("\ufffd" in part for part in got)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_ids(name: str, data: st.DataObject) -> None:
    """Random ids are the hard case: half characters, byte runs that are wrong, special tokens everywhere."""
    tok = tokenizer(name)
    low = st.integers(0, 300)  # where sentencepiece and byte-level keep their bytes
    ids = data.draw(st.lists(low | st.integers(0, len(tok) + 5), max_size=40))
    skip = data.draw(st.booleans())
    assert "".join(parts(tok, ids, skip)) == tok.decode(ids, skip_special_tokens=skip)


def test_a_character_comes_whole() -> None:
    tok = tokenizer("gpt2")
    ids = tok.encode("😀é")
    assert len(ids) == 3
    assert [part for part in parts(tok, ids) if part] == ["😀", "é"]


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_byte_level_gives_every_text_back(text: str) -> None:
    tok = tokenizer("gpt2")
    assert tok.decode(tok.encode(text)) == text


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text up to the stop string that is complete first, the longest of those that end there; written out."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize("name", ["bert-cleans-up", "gpt2", "llama2", "t5"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_stops_in_any_ids(name: str, data: st.DataObject) -> None:
    """Stop strings cut out of the text itself (across tokens, overlapping, inside each other) and foreign ones."""
    tok = tokenizer(name)
    ids = data.draw(st.lists(st.integers(0, 300) | st.integers(0, len(tok) - 1), max_size=30))
    skip = data.draw(st.booleans())
    text = tok.decode(ids, skip_special_tokens=skip)
    cut = st.tuples(st.integers(0, len(text)), st.integers(1, 6)).map(lambda at: text[at[0] : at[0] + at[1]])
    stops = data.draw(st.lists((cut | st.text("ab \n<é", max_size=3)).filter(bool), max_size=4))
    stream = Stream(tok, stop=stops, skip_special_tokens=skip)
    got = ""
    expected, why = first_stop(text, stops)
    for id in ids:
        got += stream.add(id)
        assert expected.startswith(got), "given out too much"
    got += stream.end()
    assert (got, stream.stopped) == (expected, why)
    assert stream.end() == ""


@pytest.mark.parametrize("name", ["gpt2", "llama2", "bert-uncased"])
@pytest.mark.parametrize(
    ("text", "stops", "expected", "why"),
    [
        ("one two three", ["two"], "one ", "two"),
        ("one two three", ["e two", "two th"], "on", "e two"),
        ("one two three", ["two three four"], "one two three", None),
        ("aaaaab", ["aaab"], "aa", "aaab"),
        ("ab abc abcd", ["abcd", "bcd", "cd"], "ab abc ", "abcd"),
        ("user says users: hi", ["users", "\n"], "user says ", "users"),
    ],
)
def test_stops_across_tokens(name: str, text: str, stops: list[str], expected: str, why: str | None) -> None:
    tok = tokenizer(name)
    stream = Stream(tok, stop=stops, skip_special_tokens=True)
    got = ""
    for i, id in enumerate(tok.encode(text)):
        got += stream.add(id)
        if stream.stopped:
            assert tok.decode(tok.encode(text)[:i], skip_special_tokens=True).find(stream.stopped) < 0, "noticed late"
            break
    assert (got + stream.end(), stream.stopped) == (expected, why)


def test_what_cannot_be_a_stop_string() -> None:
    for bad in ("", [""], ["a", ""], [None], [3]):
        with pytest.raises(ArgumentError, match="stop="):
            Stream(tokenizer("gpt2"), stop=bad)  # type: ignore[arg-type]


def test_text_is_held_back_no_longer_than_needed() -> None:
    tok = tokenizer("gpt2")
    stream = Stream(tok, stop="###")
    (hash_sign,) = tok.encode("#")
    assert [stream.add(id) for id in [*tok.encode("a#b"), hash_sign, hash_sign]] == ["a", "", "#b", "", ""]
    assert stream.end() == "##" and stream.stopped is None


def test_a_stream_that_stopped_begins_again() -> None:
    tok = tokenizer("gpt2")
    stream = Stream(tok, stop="b")
    assert [stream.add(id) for id in tok.encode("a b c")] == ["a", " ", ""]
    assert (stream.end(), stream.stopped) == ("", "b")
    assert "".join([*map(stream.add, tok.encode("x y")), stream.end()]) == "x y"
    assert stream.stopped is None


def test_a_stream_can_be_used_again() -> None:
    tok = tokenizer("llama2")
    stream = Stream(tok)
    for text in ("Hello world", "Hello again"):
        ids = tok.encode(text, add_special_tokens=False)
        assert "".join([*map(stream.add, ids), stream.end()]) == text


@pytest.mark.parametrize("name", ["gpt2", "llama2", "bert-cleans-up"])
def test_the_cost_is_linear(name: str) -> None:
    """Ten times the ids in far less than a hundred times the time, wrong bytes included."""
    tok = tokenizer(name)
    ids = tok.encode("one two three 😀 ", add_special_tokens=False) + [130, 140, 150]
    took = []
    for times in (200, 2000):
        start = time.perf_counter()
        parts(tok, ids * times)
        took.append(time.perf_counter() - start)
    assert took[1] < 40 * took[0]
