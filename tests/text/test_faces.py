"""Tokenizers with methods of their own: languages around a text, Whisper's prefix and times."""

from __future__ import annotations

import functools
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
from folders import folder

from pellucid.errors import ArgumentError, TokenizerError
from pellucid.text import classes
from pellucid.text.faces import FACES
from pellucid.text.faces.translation import MarianTokenizer, TranslationTokenizer
from pellucid.text.faces.whisper import WhisperTokenizer, language_code
from pellucid.text.tokenizer import Tokenizer


@functools.cache
def reference(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, name).from_pretrained(str(folder(name)))


# ---- languages ---------------------------------------------------------------------------------------------

# Class, two languages as people write them, and whether the reference gives their ids from these files.
SPOKEN = [
    ("MBartTokenizer", "de_DE", "ro_RO", True),
    ("MBart50Tokenizer", "fr_XX", "uk_UA", True),
    ("M2M100Tokenizer", "de", "zu", True),
    ("PLBartTokenizer", "java", "python", True),
    ("NllbTokenizer", "deu_Latn", "fra_Latn", False),
]


@pytest.mark.parametrize(("name", "source", "target", "right"), SPOKEN)
def test_a_language_goes_around_a_text(name: str, source: str, target: str, right: bool) -> None:
    tok = Tokenizer.from_folder(folder(name), src_lang=source, tgt_lang=target)
    assert isinstance(tok, TranslationTokenizer)
    made = tok("Hello world", text_target="Bonjour")
    at = made["input_ids"].index(tok.get_lang_id(source))
    assert at in (0, len(made["input_ids"]) - 1)
    assert made["labels"][at and -1] == tok.get_lang_id(target)
    assert tok(text_target="Bonjour")["input_ids"] == made["labels"]
    assert tok("Hello world")["input_ids"] == made["input_ids"], "a target leaves no trace"
    tok.src_lang = target
    assert tok("Hello world")["input_ids"][at] == tok.get_lang_id(target)
    tok.src_lang = source
    ids = [*tok.prefix_tokens, *tok.encode("Hello world", add_special_tokens=False), *tok.suffix_tokens]
    assert ids == made["input_ids"]
    if right:
        there = reference(name)
        there.src_lang, there.tgt_lang = source, getattr(there, "_convert_lang_code_special_format", str)(target)
        expected = there("Hello world", text_target="Bonjour")
        assert (made["input_ids"], made["labels"]) == (expected["input_ids"], expected["labels"])
        assert (tok.prefix_tokens, tok.suffix_tokens) == (there.prefix_tokens, there.suffix_tokens)


def test_nllb_has_the_languages_behind_the_pieces() -> None:
    """The published ids: 256001 to 256202 for 256,000 pieces, then <mask>; the reference adds <mask> first."""
    tok = Tokenizer.from_folder(folder("NllbTokenizer"))
    assert isinstance(tok, TranslationTokenizer)
    assert tok.get_lang_id("ace_Arab") == len(tok) - 203 and tok.mask_token_id == len(tok) - 1
    assert tok.get_lang_id("zul_Latn") == len(tok) - 2 and len(tok.lang_code_to_id) == 202
    assert tok("Hello")["input_ids"][0] == tok.get_lang_id("eng_Latn")


def test_nllb_of_the_first_release(tmp_path: Path) -> None:
    for file in folder("NllbTokenizer").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = {"tokenizer_class": "NllbTokenizer", "legacy_behaviour": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tok = Tokenizer.from_folder(tmp_path)
    assert isinstance(tok, TranslationTokenizer)
    assert tok("Hello")["input_ids"][-2:] == [tok.eos_token_id, tok.get_lang_id("eng_Latn")]


def test_a_language_nobody_knows_is_named() -> None:
    tok = Tokenizer.from_folder(folder("MBartTokenizer"))
    assert isinstance(tok, TranslationTokenizer)
    with pytest.raises(ArgumentError, match="did you mean 'de_DE'"):
        tok.src_lang = "de_DD"
    assert tok.src_lang == "en_XX"
    with pytest.raises(ArgumentError, match="no language 'xx'"):
        tok.get_lang_id("xx")


def test_m2m100_has_the_methods_that_its_users_call() -> None:
    a, b = Tokenizer.from_folder(folder("M2M100Tokenizer")), reference("M2M100Tokenizer")
    assert isinstance(a, TranslationTokenizer)
    assert a.get_lang_id("fr") == b.get_lang_id("fr") and a.get_lang_token("fr") == b.get_lang_token("fr")
    assert a.lang_code_to_id == b.lang_code_to_id and a.lang_token_to_id == b.lang_token_to_id
    got, expected = (each._build_translation_inputs("Hi", src_lang="en", tgt_lang="fr") for each in (a, b))
    assert dict(got) == dict(expected)


@pytest.mark.parametrize("name", [name for name, *_ in SPOKEN])
def test_a_language_survives_saving_and_pickling(name: str, tmp_path: Path) -> None:
    code = next(source for each, source, *_ in SPOKEN if each == name)
    tok = Tokenizer.from_folder(folder(name), src_lang=code)
    tok.save_pretrained(tmp_path)
    for again in (Tokenizer.from_folder(tmp_path), pickle.loads(pickle.dumps(tok))):
        assert isinstance(again, TranslationTokenizer)
        assert again("Hello")["input_ids"] == tok("Hello")["input_ids"]
        again.src_lang = code
        assert again.lang_code_to_id == tok.lang_code_to_id  # type: ignore[attr-defined]


def test_marian_cuts_targets_with_their_own_file(tmp_path: Path) -> None:
    a, b = Tokenizer.from_folder(folder("MarianTokenizer")), reference("MarianTokenizer")
    assert isinstance(a, MarianTokenizer)
    for text in ("All human beings are born free", ">>fra<< All are equal"):
        got, expected = a(text, text_target=text), b(text, text_target=text)
        assert (got["input_ids"], got["labels"]) == (expected["input_ids"], expected["labels"])
        assert got["labels"] != got["input_ids"]
    assert a.supported_language_codes == b.supported_language_codes == [">>fra<<"]
    a.save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="no target.spm"):
        Tokenizer.from_folder(tmp_path)(text_target="Hello")


# ---- Whisper -----------------------------------------------------------------------------------------------


@pytest.fixture
def whisper() -> tuple[WhisperTokenizer, Any]:
    tok = Tokenizer.from_folder(folder("WhisperTokenizer"))
    assert isinstance(tok, WhisperTokenizer)
    transformers = pytest.importorskip("transformers")
    return tok, transformers.WhisperTokenizer.from_pretrained(str(folder("WhisperTokenizer")))


ASKED: list[dict[str, Any]] = [
    {},
    {"language": "german"},
    {"language": "de", "task": "translate"},
    {"task": "transcribe", "predict_timestamps": True},
    {"language": "Haitian Creole", "task": "transcribe", "predict_timestamps": False},
    {"language": "mandarin"},
    {"language": "yue", "task": "transcribe"},
]


@pytest.mark.parametrize("ask", ASKED, ids=str)
def test_the_prefix(whisper: tuple[WhisperTokenizer, Any], ask: dict[str, Any]) -> None:
    a, b = whisper
    for each in (a, b):
        each.set_prefix_tokens(**ask)
    assert a.prefix_tokens == b.prefix_tokens
    assert a("Hello", "there") == dict(b("Hello", "there"))
    loaded = Tokenizer.from_folder(folder("WhisperTokenizer"), **ask)
    assert loaded("Hello") == a("Hello")
    prompt = {key: value for key, value in ask.items() if key != "predict_timestamps"}
    assert a.get_decoder_prompt_ids(**prompt) == b.get_decoder_prompt_ids(**prompt)
    assert a.get_prompt_ids("a prompt").tolist() == b.get_prompt_ids("a prompt").tolist()


def test_mistakes_in_the_prefix_are_named(whisper: tuple[WhisperTokenizer, Any]) -> None:
    tok, _ = whisper
    with pytest.raises(ArgumentError, match="did you mean 'german'"):
        tok.set_prefix_tokens(language="germn")
    with pytest.raises(ArgumentError, match="did you mean 'translate'"):
        tok.set_prefix_tokens(task="translat")
    assert tok.language is None and tok.task is None
    with pytest.raises(ArgumentError, match="special token <.transcribe.>"):
        tok.get_prompt_ids("a <|transcribe|> b")
    assert language_code("ENGLISH") == "en"


def test_times_come_back(whisper: tuple[WhisperTokenizer, Any]) -> None:
    a, b = whisper
    first = a.timestamp_begin
    words = [a.encode(text, add_special_tokens=False) for text in (" Hello there.", " And then?", " Again.")]
    streams = [
        [first, *words[0], first + 70, first + 70, *words[1], first + 120],
        [first, *words[0], first + 1400, first + 1400, *words[1], first + 1500, first, *words[2], first + 50],
        [*a.prefix_tokens, first + 10, *words[0], first + 60, a.eos_token_id],
        [*words[0]],
        [first + 3, *words[0]],
    ]
    assert a.timestamp_ids() == b.timestamp_ids()
    for ids in streams:
        for ask in ({}, {"output_offsets": True}, {"decode_with_timestamps": True}):
            assert a.decode(ids, **ask) == decoded(b, ids, ask), (ids, ask)
    assert a.batch_decode(streams[:2]) == b.batch_decode(streams[:2])
    prompt = [*a.get_prompt_ids("said before", return_tensors=None), *a.prefix_tokens, *words[1]]
    assert a.decode(prompt, skip_special_tokens=True) == " And then?"


def decoded(there: Any, ids: list[int], ask: dict[str, Any]) -> Any:
    """The reference's answer. It counts times from the last special token it knows of, which here is wrong."""
    there.add_special_tokens({"additional_special_tokens": ["<|notimestamps|>"]})
    return there.decode(ids, **ask)


@pytest.mark.parametrize("name", ["WhisperTokenizer", "NllbTokenizer", "MarianTokenizer", "M2M100TokenizerFast"])
def test_a_named_class_has_the_methods(name: str) -> None:
    import pellucid

    named = getattr(pellucid, name)
    tok = named.from_pretrained(str(folder(name.removesuffix("Fast"))))
    assert isinstance(tok, named) and isinstance(tok, FACES[classes.row(name).face])
    assert pickle.loads(pickle.dumps(tok))("Hello") == tok("Hello")


def test_the_table_of_faces() -> None:
    assert FACES.keys() == {row.face for row in classes.CLASSES.values()} - {""}
