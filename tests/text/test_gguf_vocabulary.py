"""Vocabularies inside GGUF files: the ids of the same vocabulary in its other forms, and what else the file says."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import vocabularies
from folders import SHARED, TEXTS, folder, golden, source
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from gguf_files import As, to_bytes, write
from pellucid.errors import PellucidError, TokenizerError, Unsupported, WeightsError
from pellucid.text.formats.splits import ARCHITECTURES, SPLITS
from pellucid.text.tokenizer import Tokenizer

SPLIT_FACTS = json.loads((Path(__file__).parents[1] / "data" / "gguf" / "splits.json").read_text(encoding="utf-8"))


def load(path: Path, metadata: dict[str, Any], **arguments: Any) -> Tokenizer:
    return Tokenizer.from_folder(write(path / "x.gguf", metadata), **arguments)


# ---- the ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "made"),
    [("gpt-2", vocabularies.gpt2), ("bert-bge", vocabularies.bert), ("llama-spm", vocabularies.llama2)],
)
def test_llama_cpp(cases: str, made: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    tok = load(tmp_path, made())
    assert not [text for text, ids in golden(cases) if tok.encode(text, add_special_tokens=False) != ids]


def test_the_published_file() -> None:
    path = SHARED / "gguf" / "vocab-llama-spm.gguf"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    tok = Tokenizer.from_folder(path)
    assert not [text for text, ids in golden("llama-spm") if tok.encode(text, add_special_tokens=False) != ids]
    assert (tok.bos_token, tok.eos_token, tok.unk_token, tok.encode("Hi")[0]) == ("<s>", "</s>", "<unk>", 1)


def test_unigram_is_sentencepiece(tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece")
    judge = library.SentencePieceProcessor(model_file=str(source("t5/spiece.model")))
    tok = load(tmp_path, vocabularies.t5())
    assert tok("Hi there")["input_ids"] == [*judge.encode("Hi there"), 1]
    for text in TEXTS:
        if "\u200b" not in text and "▁" not in text:  # the Rust library's own limits: see formats/sentencepiece.py
            assert tok.encode(text, add_special_tokens=False) == judge.encode(text), text


@pytest.mark.parametrize(
    ("made", "name"),
    [(vocabularies.gpt2, "gpt2"), (vocabularies.bert, "bert-uncased"), (vocabularies.llama2, "llama2")],
)
def test_another_form_of_the_same_vocabulary(made: Callable[[], dict[str, Any]], name: str, tmp_path: Path) -> None:
    """Ids, special tokens around them, pairs, and the way back."""
    tok, other = load(tmp_path, made()), Tokenizer.from_folder(folder(name))
    for text in TEXTS:
        ids = other(text)["input_ids"]
        assert tok(text)["input_ids"] == ids, text
        assert tok.decode(ids) == other.decode(ids)
    assert tok("a", "b")["input_ids"] == other("a", "b")["input_ids"]


# ---- how a text is split ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLIT_FACTS["lengths"])
def test_splits_are_llama_cpps(name: str) -> None:
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[name].patterns]
    split = pre_tokenizers.Sequence(steps)
    for text, lengths in zip(SPLIT_FACTS["texts"], SPLIT_FACTS["lengths"][name], strict=True):
        if lengths is not None:
            assert [len(piece) for piece, _ in split.pre_tokenize_str(text)] == lengths, text


def test_every_kind_is_covered() -> None:
    covered = {SPLITS[name] for name in SPLIT_FACTS["lengths"]}
    assert {split for split in SPLITS.values() if not split.plain} == covered
    assert set(ARCHITECTURES.values()) <= SPLITS.keys()


@pytest.mark.parametrize("name", SPLITS)
def test_every_kind_loads_and_loses_nothing(name: str, tmp_path: Path) -> None:
    tok = load(tmp_path, vocabularies.small(pre=name))
    if not SPLITS[name].plain:
        for text in [*TEXTS, "123456 Ab\u0301c\n\n  \t x"]:
            assert tok.decode(tok.encode(text, add_special_tokens=False)) == text
    assert (tok.encode("")[:1] == [261]) == SPLITS[name].bos


def test_a_whole_word_comes_before_merges(tmp_path: Path) -> None:
    """`hello` is a token that no merge makes here: Llama 3 finds it, GPT-2 does not."""
    merges = ["h e", "l l", "he ll"]
    found = {pre: load(tmp_path, vocabularies.small(pre=pre, merges=merges)) for pre in ("gpt-2", "llama-bpe")}
    assert found["gpt-2"].tokenize("hello") == ["hell", "o"]
    assert found["llama-bpe"].tokenize("hello") == ["hello"]


def test_a_file_without_the_key(tmp_path: Path) -> None:
    metadata = vocabularies.small()
    del metadata["tokenizer.ggml.pre"]
    with pytest.warns(UserWarning, match="does not say how texts are split"):
        load(tmp_path, metadata)
    metadata["general.architecture"] = "gptneox"  # its models have one way only
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path, metadata)


# ---- other algorithms ------------------------------------------------------------------------------------

GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
GEMMA += ["▁", "a", "b", "\n", "▁a", "ab", "\n\n", "▁ab"]
GEMMA_KINDS = [3, 3, 3, 2, *[6] * 256, *[1] * 8]
GEMMA_KEYS = {"bos_token_id": 2, "eos_token_id": 1, "unknown_token_id": 3, "padding_token_id": 0}


def test_gemma4_is_bpe_of_text_with_bytes_for_the_rest(tmp_path: Path) -> None:
    merges = ["▁ a", "a b", "\n \n", "▁ ab", "▁a b"]
    tok = load(tmp_path, vocabularies.ggml("gemma4", GEMMA, GEMMA_KINDS, merges=merges, **GEMMA_KEYS))
    assert tok.tokenize(" ab\n\nab a") == ["▁ab", "\n\n", "ab", "▁a"]
    assert tok.tokenize("é") == ["<0xC3>", "<0xA9>"]
    assert tok.decode(tok.encode(" ab\n\né a", add_special_tokens=False)) == " ab\n\né a"
    assert tok.encode("a")[0] == 2


def test_whitespace_is_bpe_of_words(tmp_path: Path) -> None:
    keys = {"merges": ["a b"], "normalizer.lowercase": True} | GEMMA_KEYS
    tok = load(tmp_path, vocabularies.ggml("whitespace", GEMMA, GEMMA_KINDS, **keys))
    assert tok.tokenize(" AB  a\tb") == ["ab", "a", "b"]


@pytest.mark.parametrize("name", ["rwkv", "plamo2", "hybriddna"])
def test_what_the_engine_lacks(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=name):
        load(tmp_path, vocabularies.small() | {"tokenizer.ggml.model": name})


def test_kimis_merges_are_its_ids(tmp_path: Path) -> None:
    metadata = vocabularies.small(pre="kimi-k2")
    del metadata["tokenizer.ggml.merges"]
    assert load(tmp_path, metadata).tokenize("hello") == ["hello"]


# ---- what else the file says -----------------------------------------------------------------------------


def test_roles_flags_and_templates(tmp_path: Path) -> None:
    metadata = vocabularies.small(add_bos_token=True, add_eos_token=True, padding_token_id=265) | {
        "llama.context_length": 77,
        "tokenizer.chat_template": "A",
        "tokenizer.chat_template.tool_use": "B",
    }
    tok = load(tmp_path, metadata)
    assert tok.encode("hello") == [261, 259, 262] and tok.model_max_length == 77
    assert (tok.bos_token, tok.eos_token, tok.pad_token, tok.eot_token) == ("<s>", "</s>", "[PAD]", "<|im_end|>")
    assert tok.chat_template == {"default": "A", "tool_use": "B"}
    assert load(tmp_path, metadata, add_bos_token=False, eos_token="<|im_end|>").encode("hello") == [259, 264]
    del metadata["tokenizer.chat_template.tool_use"]
    assert load(tmp_path, metadata).chat_template == "A"


def test_special_tokens_in_a_text(tmp_path: Path) -> None:
    tok = load(tmp_path, vocabularies.small())
    assert tok.tokenize("hello<|im_end|>  w") == ["hello", "<|im_end|>", "  ", "w"]
    assert tok.decode([259, 264, 263]) == "hello<|im_end|>  "
    assert tok.decode([259, 264, 263], skip_special_tokens=True) == "hello  "  # user-defined tokens are text


def test_spaces_that_a_special_token_takes(tmp_path: Path) -> None:
    metadata = vocabularies.small() | {"general.name": "Phi-3 mini"}
    assert load(tmp_path, metadata).encode("<|im_end|> \n w<s> w") == [264, 86, 261, 260]


def test_an_id_beyond_the_vocabulary_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="bos_token_id is 999"):
        assert load(tmp_path, vocabularies.small(bos_token_id=999)).bos_token is None


def test_a_tokenizer_json_inside(tmp_path: Path) -> None:
    inside = load(tmp_path, vocabularies.small()).backend_tokenizer.to_str()
    metadata = vocabularies.small(merges=["h e"]) | {"tokenizer.huggingface.json": inside}
    assert load(tmp_path, metadata).tokenize("hello") == ["hello"]


# ---- which file ------------------------------------------------------------------------------------------


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", vocabularies.small())
    write(tmp_path / "mmproj-model.gguf", {})
    write(tmp_path / "model-00002-of-00003.gguf", {})
    assert Tokenizer.from_folder(tmp_path).tokenize("hello") == ["hello"]
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    assert Tokenizer.from_folder(tmp_path).eos_token == "<|im_end|>"


def test_a_folder_with_two(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", vocabularies.small())
    write(tmp_path / "b.gguf", vocabularies.small(merges=["h e"]))
    with pytest.raises(TokenizerError, match=r"2 vocabularies: a.gguf, b.gguf(.|\n)*gguf_file='a.gguf'"):
        Tokenizer.from_folder(tmp_path)
    assert Tokenizer.from_folder(tmp_path, gguf_file="b.gguf").tokenize("hello") == ["he", "l", "l", "o"]
    with pytest.raises(TokenizerError, match="not a GGUF file"):
        Tokenizer.from_folder(tmp_path, gguf_file="c.gguf")


def test_other_tokenizer_files_come_first(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", vocabularies.small(merges=["h e"]))
    Tokenizer.from_folder(write(tmp_path / "b.gguf", vocabularies.small())).save_pretrained(tmp_path)
    assert Tokenizer.from_folder(tmp_path).tokenize("hello") == ["hello"]
    assert Tokenizer.from_folder(tmp_path, gguf_file="a.gguf", check_fingerprint=False).tokenize("hello")[0] == "he"


def test_it_saves_and_reloads(tmp_path: Path) -> None:
    tok = load(tmp_path, vocabularies.small(add_bos_token=True) | {"tokenizer.chat_template": "A"})
    tok.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_folder(tmp_path / "saved")
    assert again("hello  <|im_end|>")["input_ids"] == tok("hello  <|im_end|>")["input_ids"]
    assert again.special_tokens_map == tok.special_tokens_map and again.chat_template == "A"


# ---- broken and hostile ----------------------------------------------------------------------------------

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no vocabulary": ({"tokenizer.ggml.model": "none"}, "has no vocabulary"),
    "an unknown algorithm": ({"tokenizer.ggml.model": "magic"}, "'magic'"),
    "an unknown split": ({"tokenizer.ggml.pre": "magic"}, "'magic'"),
    "tokens as numbers": ({"tokenizer.ggml.tokens": As(5, [1, 2])}, "not an array of strings"),
    "no tokens": ({"tokenizer.ggml.tokens": As(8, [])}, "not an array of strings"),
    "a token twice": ({"tokenizer.ggml.tokens": ["a", "b", "a"]}, "twice 'a'"),
    "a token that is no text": ({"tokenizer.ggml.tokens": ["a", b"\xff"]}, "not Unicode"),
    "too few types": ({"tokenizer.ggml.token_type": As(5, [1])}, "not an array of 266"),
    "types as text": ({"tokenizer.ggml.token_type": ["1"] * 266}, "not an array of 266"),
    "scores that are no numbers": ({"tokenizer.ggml.scores": [float("nan")] * 266}, "not a number"),
    "a flag as text": ({"tokenizer.ggml.add_bos_token": "yes"}, "true or false"),
    "merges as a number": ({"tokenizer.ggml.merges": 5}, "not an array of strings"),
    "a merge of one": ({"tokenizer.ggml.merges": ["he"]}, "the merge 'he'"),
    "a merge of nothing known": ({"tokenizer.ggml.merges": ["he xyz"]}, "the merge 'he xyz'"),
    "a template as a number": ({"tokenizer.chat_template": 5}, "not a text"),
    "a broken tokenizer.json": ({"tokenizer.huggingface.json": "{"}, "broken"),
    "bert without its unknown token": (
        {"tokenizer.ggml.model": "bert", "tokenizer.ggml.unknown_token_id": 9999},
        "unknown token",
    ),
    "unigram without its unknown token": (
        {"tokenizer.ggml.model": "t5", "tokenizer.ggml.unknown_token_id": 9999},
        "unknown",
    ),
    "a broken table of characters": (
        {"tokenizer.ggml.model": "t5", "tokenizer.ggml.precompiled_charsmap": As(0, [255] * 9)},
        "table|charsmap",
    ),
}


@pytest.mark.filterwarnings("ignore:tokenizer.ggml")
@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str, tmp_path: Path) -> None:
    changes, said = BROKEN[name]
    with pytest.raises((TokenizerError, Unsupported), match=said) as caught:
        load(tmp_path, vocabularies.small() | changes)
    assert "x.gguf" in str(caught.value)


def test_not_gguf(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF and so on, but not really")
    with pytest.raises(WeightsError):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"something else")
    with pytest.raises(PellucidError):
        Tokenizer.from_folder(tmp_path / "x.gguf")


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), model=st.sampled_from(["gpt2", "llama", "t5", "bert", "gemma4"]))
def test_any_change_is_an_error_or_a_tokenizer(tmp_path_factory: pytest.TempPathFactory, seed: int, model: str) -> None:
    """Bytes that change anywhere; what still loads can be used."""
    chance = random.Random(seed)
    metadata = vocabularies.small() | {"tokenizer.ggml.model": model, "tokenizer.ggml.unknown_token_id": 0}
    metadata["tokenizer.ggml.scores"] = [-float(i) for i in range(266)]
    data = bytearray(to_bytes(metadata))
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(len(data))] = chance.choice([0, 1, 9, 255, chance.randrange(256)])
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
    try:
        tok = Tokenizer.from_folder(path)
    except PellucidError:
        return
    ids = tok("hello w <s> 日本")["input_ids"]
    assert isinstance(tok.decode(ids), str)


def test_auto_tokenizer_takes_the_path_and_the_name(tmp_path: Path) -> None:
    from pellucid import AutoTokenizer

    path = write(tmp_path / "x.gguf", vocabularies.small())
    for tok in (AutoTokenizer.from_pretrained(path), AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")):
        assert tok.tokenize("hello") == ["hello"]
