"""Every tokenizer class from the files that it publishes: the ids of the reference, and of sentencepiece.

A folder's `differs` says for which texts the reference goes another way than the model's own tokenizer (the reasons
are in docs/tokenizers.md): see `DIFFERS`; and "pair", "keys", "end", "decode", "skip" for what else is not compared.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import CLASS_FOLDERS, SPECIAL, TABLE, TEXTS, folder, source
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import TokenizerError, Unsupported
from pellucid.text import classes, convert
from pellucid.text.formats import spm
from pellucid.text.tokenizer import Tokenizer

DIFFERS: dict[str, Callable[[str], bool]] = {
    "everywhere": lambda text: True,
    "spaces": lambda text: text != " ".join(text.split()),
    "forms": lambda text: unicodedata.normalize("NFKC", text) != text or any(each in text for each in "\u200b\u200d▁"),
    "special": lambda text: "<" in text,
    "mask": lambda text: "[MASK]" in text or "<mask>" in text,
    "unknown": lambda text: not text.isascii() or bool(re.search(r"[\[\]<>{}#\\|~^`$%&*=+@_/🚀]", text)),
}
# Their __call__ wants boxes, tags or entities beside the text.
WITH_BOXES = ("LayoutLMv2Tokenizer", "LayoutLMv3Tokenizer", "MarkupLMTokenizer", "UdopTokenizer")


def differs(name: str, text: str) -> bool:
    return any(DIFFERS[each](text) for each in TABLE[name].get("differs", "").split() if each in DIFFERS)


def marked(mark: str) -> list[str]:
    """The class folders without that mark."""
    return [name for name in CLASS_FOLDERS if mark not in TABLE[name].get("differs", "").split()]


@functools.cache
def ours(name: str) -> Tokenizer:
    return Tokenizer.from_folder(folder(name))


@functools.cache
def reference(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, TABLE[name]["class"]).from_pretrained(str(folder(name)))


def reference_ids(name: str, text: str) -> list[int]:
    b = reference(name)
    ids: list[int] = b.backend_tokenizer.encode(text).ids if name in WITH_BOXES else b(text)["input_ids"]
    return ids


# ---- the table of classes ----------------------------------------------------------------------------------

# Rows without a folder of their own: the same row as the one that is named, or nothing but tokenizer.json.
LIKE = {
    "BertTokenizerLegacy": "BertTokenizer",
    "ConvBertTokenizer": "BertTokenizer",
    "DistilBertTokenizer": "DPRReaderTokenizer",
    "DPRContextEncoderTokenizer": "BertTokenizer",
    "DPRQuestionEncoderTokenizer": "BertTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "LayoutLMTokenizer": "BertTokenizer",
    "LxmertTokenizer": "BertTokenizer",
    "MobileBertTokenizer": "BertTokenizer",
    "RealmTokenizer": "BertTokenizer",
    "RetriBertTokenizer": "DPRReaderTokenizer",
    "RoCBertTokenizer": "BertTokenizer",
    "SqueezeBertTokenizer": "BertTokenizer",
    "LongformerTokenizer": "RobertaTokenizer",
    "LEDTokenizer": "RobertaTokenizer",
    "MvpTokenizer": "RobertaTokenizer",
    "TapexTokenizer": "RobertaTokenizer",
    "LayoutXLMTokenizer": "XLMRobertaTokenizer",
    "MLukeTokenizer": "XLMRobertaTokenizer",
    "MT5Tokenizer": "T5Tokenizer",
    "LasrTokenizer": "T5Tokenizer",
    "Phi3Tokenizer": "LlamaTokenizer",
    "MistralCommonTokenizer": "LlamaTokenizer",
    "MistralCommonBackend": "LlamaTokenizer",
}
OTHERS = {
    "TapasTokenizer": "BERT's with a token for empty cells, which no text holds",
    "VideoPrismTokenizer": "T5's without </s>",
    "Siglip2Tokenizer": "Gemma's in lower case; the reference reads its tokenizer.json only",
}


def test_every_row_is_tested_or_excused() -> None:
    for name, row in classes.CLASSES.items():
        if row is classes.GENERIC or row.needs or not row.vocabulary or name in OTHERS:
            continue
        assert name in CLASS_FOLDERS or name in LIKE, name
        if name in LIKE:
            assert classes.row(LIKE[name]) == row, name


def test_every_model_type_of_the_reference_has_its_class() -> None:
    """Where the reference names a class that we have, our model type has the same row."""
    auto = pytest.importorskip("transformers.models.auto.tokenization_auto")
    wrong = {}
    for model_type, name in auto.TOKENIZER_MAPPING_NAMES.items():
        if name is None or classes.row(name) is classes.GENERIC or model_type not in classes.MODEL_TYPES:
            continue
        if classes.row(name) != classes.row(classes.MODEL_TYPES[model_type]):
            wrong[model_type] = (name, classes.MODEL_TYPES[model_type])
    # Llama's class reads what Mistral published before tekken.json
    assert {each for each in wrong if "mi" not in each} == set(), wrong


@pytest.mark.parametrize("name", [name for name, row in classes.CLASSES.items() if row.needs])
def test_a_class_that_needs_a_dictionary_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="needs"):
        Tokenizer.from_folder(tmp_path, tokenizer_class=name)


# ---- ids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASS_FOLDERS)
def test_the_ids_of_the_reference(name: str) -> None:
    texts = [text for text in TEXTS + SPECIAL if not differs(name, text)]
    if name == "CanineTokenizer":
        pytest.skip("the reference takes 15 s to make its vocabulary; see test_canine_is_code_points")
    if not texts:
        pytest.skip("the reference reads these files wrongly, or not at all: see docs/tokenizers.md")
    if "end" in TABLE[name].get("differs", ""):
        a = [ours(name).encode(text, add_special_tokens=False) for text in texts]
        assert a == [reference(name).encode(text, add_special_tokens=False) for text in texts]
        return
    wrong = [text for text in texts if ours(name)(text)["input_ids"] != reference_ids(name, text)]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in marked("pair") if name not in WITH_BOXES])
def test_pairs_keys_and_masks(name: str) -> None:
    if differs(name, "Hello world") or "end" in TABLE[name].get("differs", ""):
        pytest.skip("the reference reads these files wrongly: see docs/tokenizers.md")
    got, expected = ours(name)("Hello world", "and so on"), reference(name)("Hello world", "and so on")
    assert got["input_ids"] == expected["input_ids"]
    if name in marked("keys"):
        assert dict(got) == dict(expected) and list(got) == list(expected)


@pytest.mark.parametrize("name", [name for name in marked("decode") if name not in WITH_BOXES])
def test_decoding(name: str) -> None:
    for text in TEXTS + SPECIAL:
        if not differs(name, text):
            ids = reference(name)(text)["input_ids"]
            assert ours(name).decode(ids) == reference(name).decode(ids)
            if name in marked("skip"):
                skipped = reference(name).decode(ids, skip_special_tokens=True)
                assert ours(name).decode(ids, skip_special_tokens=True) == skipped


@pytest.mark.parametrize("name", CLASS_FOLDERS)
def test_roles_and_sides(name: str) -> None:
    if TABLE[name].get("differs") == "everywhere":
        pytest.skip("the reference reads these files wrongly: see docs/tokenizers.md")
    a, b = ours(name), reference(name)
    for role in classes.ROLES:
        assert getattr(a, role) == getattr(b, role), role
        assert getattr(a, f"{role}_id") == getattr(b, f"{role}_id"), role
    assert (a.padding_side, a.model_max_length) == (b.padding_side, b.model_max_length)


# What the Rust library's table of characters and Metaspace do differently from sentencepiece's: a ▁ in the text,
# and marks behind a character that the table replaces.
ENGINE = re.compile("[▁\u200b\r]|e\u0301")


@pytest.mark.parametrize(
    "name", [name for name in CLASS_FOLDERS if any("spm-" in file for file in TABLE[name]["files"].values())]
)
def test_the_pieces_of_sentencepiece(name: str) -> None:
    """The truth for these files. Classes that change the text before are compared in lower case without quotes."""
    sentencepiece = pytest.importorskip("sentencepiece")
    file = source(next(each for each in TABLE[name]["files"].values() if "spm-" in each))
    judge = sentencepiece.SentencePieceProcessor(model_file=str(file))
    tok, before = ours(name), classes.row(name).text
    row = classes.row(name)
    for text in TEXTS:
        if ENGINE.search(text) or "<0x41>" in text or (before and not re.fullmatch(r"[a-z .?]*", text)):
            continue
        if before == "siglip":
            text = re.sub("[.?]", "", text)
        expected = [judge.id_to_piece(id) for id in judge.encode(text)]
        got = tok.convert_ids_to_tokens(tok.encode(text, add_special_tokens=False))
        assert got == expected, text
        ids = [id for id in judge.encode(text) if id >= row.layout.drop]
        moved = len(row.layout.first) - row.layout.drop
        inside = [id for id in tok.encode(text, add_special_tokens=False) if id >= len(row.layout.first)]
        if row.layout.first[:4] != classes.FAIRSEQ or judge.unk_id() not in ids:
            assert [id for id in inside if id != tok.unk_token_id] == [id + moved for id in ids if id != judge.unk_id()]


# ---- every character ---------------------------------------------------------------------------------------

RUNS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from([" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\x00"])
    | st.sampled_from(
        ["0123456789", "½", "١٢٣", "e\u0301", "ﬁ", "İ", "ß", "ς", "日本", "한국어", "ไทย", "हिन्दी", "👩‍👧"]
    )
    | st.sampled_from(["'s", "'LL", "don't", "!!!", "...", "</w>", "@@", "##", "Ġ", "<s>", "[MASK]", "<|endoftext|>"]),
    max_size=6,
).map("".join)
# One class for each way to cut a text; where several differ in their special tokens only, the one that all have.
ALGORITHMS = [
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
    "CohereTokenizer",
    "Qwen2Tokenizer",
    "RobertaTokenizer",
    "CLIPTokenizer",
    "OpenAIGPTTokenizer",
    "HerbertTokenizer",
    "CTRLTokenizer",
    "BertTokenizer",
    "XLMRobertaTokenizer",
    "T5Tokenizer",
    "AlbertTokenizer",
    "ByT5Tokenizer",
    "PerceiverTokenizer",
    "CanineTokenizer",
]


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", ALGORITHMS)
@given(text=RUNS)
def test_any_text(name: str, text: str) -> None:
    """Runs of spaces, line ends, digits, marks, joiners, controls, and special tokens inside the text."""
    if differs(name, text) or (name == "RobertaTokenizer" and "<mask>" in text):
        return
    assert ours(name)(text)["input_ids"] == reference_ids(name, text)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "RobertaTokenizer", "ByT5Tokenizer", "CanineTokenizer"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_lossless_classes_give_the_text_back(name: str, text: str) -> None:
    tok = ours(name)
    ids = tok.encode(text, add_special_tokens=False)
    assert tok.decode(ids) == text


# ---- saving ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CLASS_FOLDERS if name != "CanineTokenizer"])
def test_a_saved_class_is_the_same_again(name: str, tmp_path: Path) -> None:
    a = ours(name)
    a.save_pretrained(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert type(again) is type(a)
    for text in TEXTS[::3] + SPECIAL:
        assert dict(again(text, "and a pair")) == dict(a(text, "and a pair"))
        assert again.decode(a.encode(text)) == a.decode(a.encode(text))
    assert again.special_tokens_map == a.special_tokens_map


# ---- files that say nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("like", "assumed"),
    [
        ("GPT2Tokenizer", "GPT2Tokenizer"),
        ("CLIPTokenizer", "CLIPTokenizer"),
        ("OpenAIGPTTokenizer", "OpenAIGPTTokenizer"),
        ("BertTokenizer", "BertTokenizer"),
    ],
)
@pytest.mark.parametrize("name", ["", "PreTrainedTokenizerFast", "SomebodysTokenizer"])
def test_a_class_that_says_nothing_is_read_by_its_files(like: str, assumed: str, name: str, tmp_path: Path) -> None:
    for to, file in TABLE[like]["files"].items():
        (tmp_path / to).write_bytes(source(file).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name} if name else {}))
    with pytest.warns(UserWarning, match=f"read as a {assumed}'s"):
        tok = Tokenizer.from_folder(tmp_path)
    assert tok("Hello, world!") == ours(like)("Hello, world!")


def test_a_character_model_is_read(tmp_path: Path) -> None:
    assert spm.read(source("@spm-char/m.model")).algorithm == spm.CHAR


def test_numbers_with_holes_are_an_error(tmp_path: Path) -> None:
    for to, file in TABLE["M2M100Tokenizer"]["files"].items():
        (tmp_path / to).write_bytes(source(file).read_bytes())
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    vocab["hole"] = len(vocab) + 5
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(TokenizerError, match="the highest id is"):
        Tokenizer.from_folder(tmp_path, tokenizer_class="M2M100Tokenizer")


def test_pieces_that_merging_needs_count_as_unknown(tmp_path: Path) -> None:
    """CTRL's vocabulary holds what remained after merging: a step on the way is no token of it."""
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "abc": 1, "d@@": 2, "a@@": 3, "c": 4}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nab c</w>\n")
    tok = Tokenizer.from_folder(tmp_path, tokenizer_class="CTRLTokenizer")
    assert tok.encode("abc") == [1]
    transformers = pytest.importorskip("transformers")
    there = transformers.CTRLTokenizer.from_pretrained(str(tmp_path))
    for text in ("abc", "ab", "abd", "dabc c", "b"):
        assert tok(text)["input_ids"] == there(text)["input_ids"], text
        assert tok.encode(text) == there.encode(text)


def test_the_order_of_checks_names_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("a b c d\n")
    with pytest.raises(TokenizerError, match=r"merges.txt|empty|line 1"):
        Tokenizer.from_folder(tmp_path, tokenizer_class="GPT2Tokenizer")
    assert convert.read_json(tmp_path / "vocab.json") == {}
