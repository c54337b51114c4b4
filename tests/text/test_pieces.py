"""The bytes of tokens: put together, they are the text that `decode` gives; for every kind of decoder."""

from __future__ import annotations

from functools import cache

import pytest
from folders import folder
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import Unsupported
from pellucid.text.pieces import Pieces, pieces_of
from pellucid.text.tokenizer import Tokenizer

# With a text for those that know few characters, or no capitals.
KINDS = {
    "stories260K": "Once 12, ü 日本 😀\n\n  x",
    "llama2": "Once 12, ü 日本 😀\n\n  x",
    "mistral": "Once 12, ü 日本 😀\n\n  x",
    "GemmaTokenizer": "Once 12, ü 日本 😀\n\n  x",
    "GPT2Tokenizer": "Once 12, ü 日本 😀\n\n  x",
    "RobertaTokenizer": "Once 12, ü 日本 😀\n\n  x",
    "ByT5Tokenizer": "Once 12, ü 日本 😀\n\n  x",
    "WhisperTokenizer": "Once 12, ü 日本 😀\n\n  x",
    "CLIPTokenizer": "the end of the day",
    "OpenAIGPTTokenizer": "the end of the day",
    "HerbertTokenizer": "the end of the day",
    "T5Tokenizer": "the end of the day",
    "M2M100Tokenizer": "the end of the day",
    "xlm-roberta": "the end of the day",
}


@cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer.from_folder(folder(name))


@pytest.mark.parametrize("name", KINDS)
def test_together_they_are_the_text(name: str) -> None:
    tok, text = tokenizer(name), KINDS[name]
    ids = tok.encode(text, add_special_tokens=False)
    found = Pieces(tok).join(ids).decode()
    assert found.strip(" ") == tok.decode(ids).strip(" ") == text
    assert Pieces(tok).join([*tok.all_special_ids, len(tok) + 7]) == b""


@pytest.mark.parametrize("name", ["stories260K", "mistral", "GPT2Tokenizer", "RobertaTokenizer"])
@settings(max_examples=30, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20),
    below=st.sampled_from([300, 10**9]),
)
def test_ids_of_a_text_that_goes_on(name: str, text: str, below: int) -> None:
    pieces = pieces_of(tokenizer(name))
    ids = pieces.ids(text, below)
    assert max(ids, default=0) < below
    assert pieces.join(ids) == text.encode()


def test_ids_are_the_tokenizers_own_without_a_space_in_front() -> None:
    pieces = pieces_of(tokenizer("llama2"))
    for text, tokens in (("hello", ["hello"]), (" hello", ["▁hello"]), ('{"name', ['{"', "name"])):
        assert tokenizer("llama2").convert_ids_to_tokens(pieces.ids(text, 32000)) == tokens


def test_a_normaliser_that_changes_the_text_leaves_the_longest_tokens() -> None:
    pieces = pieces_of(tokenizer("CLIPTokenizer"))
    assert pieces.join(pieces.ids("the end", 10**9)) == b"the end"
    few = pieces_of(tokenizer("xlm-roberta"))
    assert few.join(few.ids("a日b", 10**9)) == b"a"  # as far as there are tokens


def test_tokens_that_begin_with_bytes() -> None:
    pieces = pieces_of(tokenizer("stories260K"))
    for prefix in (b" th", b"z", b"\xe6", b" ", b"no such token"):
        assert sorted(pieces.beginning(prefix)) == [
            i for i, each in enumerate(pieces.of) if (each or b"").startswith(prefix)
        ]


def test_they_are_kept_until_tokens_change() -> None:
    tok = Tokenizer.from_folder(folder("stories260K"))
    first = pieces_of(tok)
    assert pieces_of(tok) is first
    tok.add_tokens(["<tool>"])
    assert pieces_of(tok).of[-1] == b"<tool>"
    tok.add_special_tokens({"extra_special_tokens": ["<tool>"]})
    assert pieces_of(tok).of[-1] is None and pieces_of(tok).special[512] == "<tool>"


@pytest.mark.parametrize("name", ["bert-uncased", "EsmTokenizer"])
def test_a_text_that_depends_on_the_neighbours(name: str) -> None:
    with pytest.raises(Unsupported, match="depends on their neighbours"):
        pieces_of(tokenizer(name))
