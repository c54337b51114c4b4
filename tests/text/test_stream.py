"""`Stream`: the parts together are the whole, no part ends inside a character, and the cost is linear."""

from __future__ import annotations

import functools
import time

import pytest
from folders import TABLE, TEXTS, folder
from hypothesis import given, settings
from hypothesis import strategies as st

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
