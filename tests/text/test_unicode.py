"""Every class of Unicode, through every kind of tokenizer: the reference's ids, and the original algorithms'."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT, SPECIAL, TABLE, agreed, folder, source
from hypothesis import given, settings
from hypothesis import strategies as st
from originals import GPT2_SPLIT, Bert, ByteBpe
from test_train import trained
from unicode_texts import CLASSES

from pellucid.errors import InputError
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.training.kinds import KINDS, LLAMA_3

PUBLISHED = ["bert-uncased", "bert-cased", "gpt2", "llama2", "stories260K", "t5", "xlm-roberta"]
TRAINED = [f"trained {kind}" for kind in KINDS]
NAMES = PUBLISHED + TRAINED
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def path_of(name: str) -> Path:
    if name in TABLE:
        return folder(name)
    kind = name.removeprefix("trained ")
    trained(kind).save_pretrained(ROOT / f"trained-{kind}")
    return ROOT / f"trained-{kind}"


@functools.cache
def ours(name: str) -> Tokenizer:
    tok = Tokenizer.from_folder(path_of(name))
    tok.model_max_length = 10**6
    return tok


@functools.cache
def reference(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(path_of(name), model_max_length=10**6)


# ---- the reference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_the_reference(name: str) -> None:
    a, b = ours(name), reference(name)
    wrong = {}
    for kind, texts in CLASSES.items():
        texts = agreed(name, texts) if name in TABLE else texts
        if name == "llama2" or name == "stories260K":
            texts = [text for text in texts if "▁▁" not in text]  # two spaces, as sentencepiece writes them
        wrong[kind] = [text for text in texts if a(text)["input_ids"] != b(text)["input_ids"]]
    assert not {kind: texts for kind, texts in wrong.items() if texts}


@pytest.mark.parametrize("name", NAMES)
def test_offsets_slice_the_text(name: str) -> None:
    """Spans lie in the text, do not go back, and equal the reference's."""
    a, b = ours(name), reference(name)
    for kind, texts in CLASSES.items():
        for text in agreed(name, texts) if name in TABLE else texts:
            spans = a(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
            assert all(0 <= start <= end <= len(text) for start, end in spans), (kind, text)
            starts = [start for start, _ in spans]
            assert starts == sorted(starts), (kind, text)
            if "▁▁" not in text:
                expected = b(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
                assert spans == expected, (kind, text)


@settings(max_examples=60, deadline=None)
@given(text=ANY)
@pytest.mark.parametrize("name", ["bert-uncased", "t5", "trained byte-bpe", "trained unigram-albert"])
def test_any_text_equals_the_reference(name: str, text: str) -> None:
    got, expected = ours(name)(text, text[::-1]), reference(name)(text, text[::-1])
    assert got["input_ids"] == expected["input_ids"]
    assert ours(name).decode(got["input_ids"]) == reference(name).decode(expected["input_ids"])


@pytest.mark.parametrize("name", NAMES)
def test_half_a_character_is_an_error_that_names_it(name: str) -> None:
    """The reference says "TextEncodeInput must be Union[…]"."""
    for text in ("\ud83d", "a\udfffb", "\ude00\ud83d"):
        for inputs in (text, ["good", text]):
            with pytest.raises(InputError, match="surrogate"):
                ours(name)(inputs)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_are_half_a_character_decode_to_a_replacement(name: str) -> None:
    """Every id alone: text that is valid Unicode, and the reference's."""
    a, b = ours(name), reference(name)
    for id in range(0, len(a), max(1, len(a) // 2000)):
        text = a.decode([id])
        text.encode()
        assert text == b.decode([id])


@pytest.mark.parametrize("name", ["llama2", "stories260K", "gpt2", "trained bpe", "trained byte-bpe"])
def test_text_comes_back(name: str) -> None:
    tok = ours(name)
    for texts in CLASSES.values():
        for text in texts:
            if "▁" not in text or "byte" in name or name == "gpt2":  # for sentencepiece it is a space
                assert tok.decode(tok(text, add_special_tokens=False)["input_ids"]) == text


# ---- special tokens in a user's text -----------------------------------------------------------------------


def written_in_text(tok: Tokenizer) -> list[str]:
    tokens = tok.all_special_tokens
    texts = [f"a{token}b" for token in tokens] + [f"say {token} {token}, or" for token in tokens] + tokens
    texts += ["".join(tokens), " ".join(tokens), *(f"{token[:-1]} {token[1:]}" for token in tokens)]
    return texts + SPECIAL


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_in_a_text_are_found(name: str) -> None:
    a, b = ours(name), reference(name)
    for text in written_in_text(a):
        after = name in TABLE and "reference_differs" in TABLE[name] and "> " in text  # spaces after a special token
        if not after:
            assert a(text)["input_ids"] == b(text)["input_ids"], text
    for token, id in zip(a.all_special_tokens, a.all_special_ids):
        assert a.encode(f"a{token}b", add_special_tokens=False).count(id) == 1


@pytest.mark.parametrize("name", [*NAMES, "flan-t5"])
def test_special_tokens_in_a_text_stay_text_when_asked(name: str) -> None:
    a = ours(name)
    special = set(a.all_special_ids) - {a.unk_token_id}
    for text in written_in_text(a):
        ids = a.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert not special & set(ids), (text, a.convert_ids_to_tokens(ids))
        cut = {"max_length": 3, "truncation": True, "split_special_tokens": True}
        assert a.encode(text, add_special_tokens=False, **cut) == ids[:3]
    for text in CLASSES["language deu"]:
        assert a(text, split_special_tokens=True)["input_ids"] == a(text)["input_ids"]


# ---- the original algorithms -------------------------------------------------------------------------------


def byte_bpe(name: str, split: str) -> ByteBpe:
    model = json.loads(ours(name).rust.to_str())["model"]
    return ByteBpe(model["vocab"], [tuple(pair) for pair in model["merges"]], split)


def bert(name: str, lower: bool) -> Bert:
    return Bert(json.loads(ours(name).rust.to_str())["model"]["vocab"], lower=lower)


class Spm:
    """The sentencepiece library; its pieces as our ids."""

    def __init__(self, name: str) -> None:
        sentencepiece = pytest.importorskip("sentencepiece")
        self.judge = sentencepiece.SentencePieceProcessor(model_file=str(source(TABLE[name]["spm"])))

    def encode(self, text: str) -> list[int]:
        return self.judge.encode(text)


ORIGINALS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: byte_bpe("gpt2", GPT2_SPLIT),
    "trained byte-bpe-gpt2": lambda: byte_bpe("trained byte-bpe-gpt2", GPT2_SPLIT),
    "trained byte-bpe": lambda: byte_bpe("trained byte-bpe", LLAMA_3),
    "bert-uncased": lambda: bert("bert-uncased", True),
    "bert-cased": lambda: bert("bert-cased", False),
    "trained wordpiece": lambda: bert("trained wordpiece", True),
    "trained wordpiece-cased": lambda: bert("trained wordpiece-cased", False),
    "llama2": lambda: Spm("llama2"),
    "stories260K": lambda: Spm("stories260K"),
    "t5": lambda: Spm("t5"),
    "unigram": lambda: Spm("unigram"),
}

# Where the Rust library, and so the reference too, departs from the original algorithm; see docs/tokenizers.md.
BERT_LIMITS = {
    "category Co": "private use is dropped; the original keeps it, as [UNK]",
    "private use": "the same",
    "category Cf": "Unicode 8's tables: format characters, marks and punctuation that came later are letters",
    "category Mn": "the same",
    **dict.fromkeys((f"category P{kind}" for kind in "cdefios"), "the same"),
    "cases and compositions": "a word's last Σ becomes σ; Python's lower() makes it ς",
    "long": "words of more than 100 characters are [UNK]; the original says 200",
}
T5_LIMITS = {
    "category Cc": "U+0085, next line, ends a word; for sentencepiece it is an unknown character",
    "controls": "the same",
    "spaces": "the same",
    "marks": "a run of marks is normalised with the letter before it, or not at all",
    "long": "of several segmentations with equal scores another one is taken",
}
LIMITS = {"t5": T5_LIMITS, "unigram": {"marks": T5_LIMITS["marks"], "long": T5_LIMITS["long"]}}


@pytest.mark.parametrize("name", ORIGINALS)
def test_ids_equal_the_original_algorithm(name: str) -> None:
    tok, judge = ours(name), ORIGINALS[name]()
    limits = BERT_LIMITS if isinstance(judge, Bert) else LIMITS.get(name, {})
    wrong = {}
    for kind, texts in CLASSES.items():
        texts = [text for text in texts if "<0x41>" not in text or not isinstance(judge, Spm)]
        differs = [text for text in texts if tok.encode(text, add_special_tokens=False) != judge.encode(text)]
        if differs and kind not in limits:
            wrong[kind] = differs
        if differs and limits:  # whatever the limit is, it is the reference's too
            expected = reference(name) if name != "unigram" else tok
            assert all(tok(text)["input_ids"] == expected(text)["input_ids"] for text in differs)
    assert not wrong


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("aeHth  \n\t#('1½é日😀") | st.characters(exclude_categories=["Cs"]), max_size=50))
@pytest.mark.parametrize("name", ["gpt2", "trained byte-bpe-gpt2", "trained byte-bpe"])
def test_bytes_of_any_text_equal_the_original(name: str, text: str) -> None:
    tok = ours(name)
    if not any(token in text for token in tok.all_special_tokens):
        assert tok.encode(text, add_special_tokens=False) == judge_of(name).encode(text)
        assert tok.decode(tok.encode(text, add_special_tokens=False)) == text


@functools.cache
def judge_of(name: str) -> Any:
    return ORIGINALS[name]()


LETTERS = sorted({char for kind, texts in CLASSES.items() if "language" in kind for text in texts for char in text})


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from(LETTERS) | st.sampled_from("aeiou  ,.-'\n"), max_size=50))
@pytest.mark.parametrize("name", ["bert-uncased", "trained wordpiece-cased"])
def test_words_of_twelve_languages_equal_the_original(name: str, text: str) -> None:
    if "Σ" not in text:
        assert ours(name).encode(text, add_special_tokens=False) == judge_of(name).encode(text)
