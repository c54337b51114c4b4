"""What holds for every text: round trips where nothing is lost, offsets that slice it, rows alone and in company."""

from __future__ import annotations

import functools
import json
import unicodedata
from typing import Any

import pytest
from folders import TEXTS, folder
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from pellucid.text import alignment
from pellucid.text.tokenizer import Tokenizer

# One of each pipeline; the other folders of the table differ in special tokens only.
KINDS = (
    "bert-uncased bert-cased bert-accents gpt2 gpt2-prefix gpt2-bos llama2 llama2-legacy llama2-no-prefix stories260K"
    " t5 xlm-roberta unigram"
).split()
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
ANY = st.characters(exclude_categories=["Cs"])
# Plain text, and what tokenizers have rules for: spaces, lines, digits, marks, joiners, wide characters, controls.
HARD = st.sampled_from("aeHt  \n\t\r#(1½é日😀'.,\u0301\u200d\u00a0\u2028\x00\x7f\ufeff")
TEXT = st.text(HARD | ANY, max_size=40)


@functools.cache
def tokenizer(name: str) -> Tokenizer:
    tok = Tokenizer.from_folder(folder(name))
    if tok.pad_token is None:
        tok.pad_token = tok.eos_token or tok.unk_token
    tok.model_max_length = min(tok.model_max_length, 512)
    return tok


def parts(step: Any, kind: str) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder."""
    state = {} if step is None else json.loads(step.__getstate__())
    return state.get(kind) or ([state] if state else [])


@functools.cache
def lost(name: str) -> frozenset[str] | None:
    """What a text must not contain for decode(encode(text)) to give it back; None if nothing is promised.

    Derived from the pieces of the pipeline, so that it can be wrong about them only in a way that a text shows.
    """
    tok = tokenizer(name)
    vocabulary = tok.get_vocab()
    normalizers = parts(tok.rust.normalizer, "normalizers")
    splitters = parts(tok.rust.pre_tokenizer, "pretokenizers")
    decoders = [each["type"] for each in parts(tok.rust.decoder, "decoders")]
    added = [(id, token) for id, token in tok.added_tokens_decoder.items()]
    if decoders == ["ByteLevel"]:
        whole = not normalizers and all(byte in vocabulary for byte in ALPHABET)
        splits = all(
            each["type"] == "ByteLevel"
            and not each["add_prefix_space"]
            or each["type"] == "Split"
            and each["behavior"] != "Removed"
            for each in splitters
        )
        stray = {t.content for i, t in added if t.lstrip or t.rstrip or tok.decode([i]) != t.content}
        return frozenset(stray) if whole and splits and type(tok.rust.model).__name__ == "BPE" else None
    if decoders[:3] == ["Replace", "ByteFallback", "Fuse"]:
        whole = all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
        prefixed = any(each["type"] == "Prepend" for each in normalizers) or bool(splitters)
        balanced = prefixed == (decoders[3:] == ["Strip"])
        plain = {each["type"] for each in normalizers} <= {"Prepend", "Replace"}
        # ▁ is how a space is written, and beside a special token the reference's rules for spaces lose some
        return frozenset({"▁", *(t.content for _, t in added)}) if whole and balanced and plain else None
    return None


def test_which_tokenizers_lose_nothing() -> None:
    kept = [name for name in KINDS if lost(name) is not None]
    assert kept == ["gpt2", "gpt2-bos", "llama2", "llama2-legacy", "llama2-no-prefix", "stories260K"]


@pytest.mark.parametrize("name", [name for name in KINDS if "bert" not in name])
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_round_trip(name: str, text: str) -> None:
    tok = tokenizer(name)
    strings = lost(name)
    if strings is not None and not any(each in text for each in strings):
        assert tok.decode(tok.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("name", ["gpt2", "llama2"])
def test_round_trip_of_every_character(name: str) -> None:
    """The first plane and a sixteenth of the others, each character beside a letter."""
    tok = tokenizer(name)
    codes = [*range(0x10000), *range(0x10000, 0x110000, 16)]
    chars = [chr(c) for c in codes if not 0xD800 <= c < 0xE000 and chr(c) != "▁"]
    for at in range(0, len(chars), 256):
        text = "a".join(chars[at : at + 256])
        assert tok.decode(tok.encode(text, add_special_tokens=False)) == text


# ---- offsets ---------------------------------------------------------------------------------------------

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def spelled(tok: Tokenizer, token: str, piece: str) -> bool:
    """Whether `token` stands for `piece` of the text, or for a part of its only character."""
    kind = json.loads(tok.rust.decoder.__getstate__())["type"]
    if kind == "ByteLevel":
        written = "".join(part for part, _ in BYTES.pre_tokenize_str(piece))
        return token.replace("Ġ", "") in written.replace("Ġ", "") or token in written
    if token.startswith("<0x") and token.endswith(">") and len(token) == 6:
        return int(token[3:5], 16) in piece.encode() or "▁" in piece or " " in piece
    if token in (tok.unk_token, ""):
        return True
    bare = token.removeprefix("##") if kind == "WordPiece" else token.replace("▁", " ")
    normal = tok.rust.normalizer.normalize_str(piece) if tok.rust.normalizer is not None else piece
    bare, normal = bare.strip(), normal.replace("▁", " ").strip()
    return normal == "" or bare in normal or bare in unicodedata.normalize("NFKC", normal)


def dropped_behind_expanded(text: str) -> bool:
    """Whether a character that is dropped follows one that becomes longer: see pellucid/text/alignment.py."""
    pairs = zip(text, text[1:])
    return any(b in alignment.CANDIDATES and len(unicodedata.normalize("NFKC", a)) > 1 for a, b in pairs)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_offsets_slice_the_text(name: str, text: str) -> None:
    tok = tokenizer(name)
    assume(not dropped_behind_expanded(text))
    made = tok(text, add_special_tokens=False, return_offsets_mapping=True)
    last = (0, 0)
    for token, (start, end) in zip(made.tokens(), made["offset_mapping"]):
        assert 0 <= start <= end <= len(text)
        assert last[0] <= start and last[1] <= end, "offsets go back"
        last = (start, end)
        assert spelled(tok, token, text[start:end]), (token, text[start:end])


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("abcXYZ .,\n123"), max_size=40))
def test_offsets_leave_no_letter_out(name: str, text: str) -> None:
    tok = tokenizer(name)
    made = tok(text, return_offsets_mapping=True)
    covered = {at for start, end in made["offset_mapping"] for at in range(start, end)}
    assert {at for at, char in enumerate(text) if not char.isspace()} <= covered
    for at in covered:
        token = made.char_to_token(at)
        if token is not None:
            start, end = made["offset_mapping"][token]
            assert start <= at < end
            assert made.token_to_chars(token) == (start, end)


# ---- rows ------------------------------------------------------------------------------------------------

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "truncation": st.sampled_from([False, "longest_first"]),
        "max_length": st.integers(4, 30),
        "add_special_tokens": st.booleans(),
        "split_special_tokens": st.booleans(),
        "return_special_tokens_mask": st.just(True),
        "return_token_type_ids": st.just(True),
    },
)


@pytest.mark.parametrize("name", ["bert-uncased", "gpt2", "t5", "llama2"])
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=6), options=OPTIONS, side=st.sampled_from(["left", "right"]))
def test_a_batch_is_its_rows(name: str, texts: list[str], options: dict[str, Any], side: str) -> None:
    """A row of a batch is the row alone, with padding the row and nothing but padding, cut no longer than allowed."""
    tok = tokenizer(name)
    alone = [tok(text, **options) for text in texts]
    batch = tok(texts, **options)
    assert dict(batch) == {key: [row[key] for row in alone] for key in alone[0]}
    options = {"truncation": False} | options
    padded = tok(texts, padding="longest", padding_side=side, verbose=False, **options)
    alone = [tok(text, **options) for text in texts]
    longest = max(map(len, padded["input_ids"]))
    for i, row in enumerate(padded["input_ids"]):
        mask = padded["attention_mask"][i]
        real = [id for id, one in zip(row, mask) if one]
        edge = row[: longest - sum(mask)] if side == "left" else row[sum(mask) :]
        assert len(row) == longest and set(edge) <= {tok.pad_token_id}
        assert mask == sorted(mask, reverse=side == "right")
        assert real == alone[i]["input_ids"]
        if options["truncation"] and "max_length" in options:
            assert longest <= options["max_length"]


@pytest.mark.parametrize("name", ["bert-uncased", "gpt2", "t5"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(HARD, min_size=1, max_size=80), length=st.integers(5, 20), stride=st.integers(0, 2))
def test_windows_together_are_the_text(name: str, text: str, length: int, stride: int) -> None:
    tok = tokenizer(name)
    whole = tok.encode(text, add_special_tokens=False)
    made = tok(text, truncation=True, max_length=length, stride=stride, return_overflowing_tokens=True)
    joined: list[int] = []
    for i, row in enumerate(made["input_ids"]):
        assert len(row) <= length
        body = [id for id, which in zip(row, made.sequence_ids(i)) if which is not None]
        assert not joined or joined[-stride or len(joined) :] == body[:stride]
        joined += body[stride if joined else 0 :]
    assert joined == whole


@pytest.mark.parametrize("name", [*KINDS, "EsmTokenizer"])
def test_special_tokens_in_a_text_are_text_when_asked(name: str) -> None:
    """No special id comes out of a text that spells special tokens; the text survives where nothing is lost."""
    tok = tokenizer(name)
    special = tok.skipped_ids() - {tok.unk_token_id}
    text = "say " + " and ".join(
        sorted(token.content for token in tok.added_tokens_decoder.values() if token.special)[:20]
    )
    ids = tok.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert not special & set(ids)
    if lost(name) is not None:
        assert tok.decode(ids) == text
    around = tok(text, split_special_tokens=True)["input_ids"]
    assert len(around) - len(ids) == tok.num_special_tokens_to_add()
    assert tok.encode(TEXTS[3], split_special_tokens=True) == tok.encode(TEXTS[3])
    assert tok.encode(text, add_special_tokens=False) != ids or not special
