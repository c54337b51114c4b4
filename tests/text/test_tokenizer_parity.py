"""The same folder in Pellucid and in the reference library: ids, masks, keys, offsets, special tokens."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import pytest
from folders import PUBLISHED, RIGHT, SPECIAL, TEXTS, agreed, folder

from pellucid.text.tokenizer import GONE, Tokenizer

transformers = pytest.importorskip("transformers")


@functools.cache
def ours(name: str) -> Tokenizer:
    return Tokenizer.from_folder(folder(name))


@functools.cache
def reference(name: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder(name))


def texts_of(name: str) -> list[str]:
    return agreed(name, TEXTS + SPECIAL)


def same(got: Any, expected: Any) -> None:
    """Equal, the order of the keys too."""
    assert list(got) == list(expected)
    for key in expected:
        assert got[key] == expected[key], key


@pytest.mark.parametrize("name", RIGHT)
def test_every_text_alone(name: str) -> None:
    ask = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_length": True}
    for text in texts_of(name):
        got, expected = ours(name)(text, **ask), reference(name)(text, **ask)
        same(got, expected)
        assert got.tokens() == expected.tokens()
        assert got.word_ids() == expected.word_ids()
        assert got.sequence_ids() == expected.sequence_ids()
        assert ours(name).encode(text, add_special_tokens=False) == reference(name).encode(
            text, add_special_tokens=False
        )
        assert ours(name).tokenize(text) == reference(name).tokenize(text)


@pytest.mark.parametrize("name", RIGHT)
def test_pairs_and_batches(name: str) -> None:
    a, b = ours(name), reference(name)
    texts = [text for text in texts_of(name) if text]
    others = list(reversed(texts))
    same(a(texts[3], texts[7]), b(texts[3], texts[7]))
    same(a(texts), b(texts))
    same(a(texts, others), b(texts, others))
    same(a(list(zip(texts, others))), b(list(zip(texts, others))))
    same(a(texts[3], ""), b(texts[3], ""))
    words = [text.split() for text in texts if "▁" not in text]
    split = {"is_split_into_words": True}
    same(a(words, **split), b(words, **split))
    same(a(words[2], words[3], **split), b(words[2], words[3], **split))
    assert a(words, **split).word_ids(5) == b(words, **split).word_ids(5)


CUTS = [
    dict(zip(("padding", "truncation", "max_length", "pad_to_multiple_of", "padding_side"), values))
    for values in itertools.product(
        (True, "max_length"), (True, False, "only_first"), (12, 64), (None, 4), (None, "left")
    )
    if values[1] or values[0] == "max_length"
]


@pytest.mark.parametrize("name", [name for name in RIGHT if "llama2" not in name or name == "llama2-eos"])
def test_padding_and_truncation(name: str) -> None:
    a, b = ours(name), reference(name)
    if b.pad_token is None:
        a, b = Tokenizer.from_folder(folder(name)), transformers.AutoTokenizer.from_pretrained(folder(name))
        a.pad_token, b.pad_token = a.eos_token, b.eos_token
    texts = [text for text in texts_of(name) if text][::4] + [" ".join(TEXTS[-9:-7] * 3)]
    for cut in CUTS:
        same(a(texts, **cut), b(texts, **cut))
    for overflow in ({"stride": 3, "max_length": 16}, {"stride": 0, "max_length": 9}):
        ask = dict(truncation=True, return_overflowing_tokens=True, return_offsets_mapping=True, **overflow)
        same(a(texts, **ask), b(texts, **ask))
        same(a(texts[-1], **ask), b(texts[-1], **ask))
    long = texts[-1]
    for strategy in ("only_first", "only_second", "longest_first"):
        ask = {
            "truncation": strategy,
            "max_length": len(b(long)["input_ids"]) + 12,
            "stride": 2,
            "return_overflowing_tokens": True,
        }
        same(a([long], [long], **ask), b([long], [long], **ask))
    a.truncation_side = b.truncation_side = "left"
    same(a(texts, truncation=True, max_length=7), b(texts, truncation=True, max_length=7))
    same(a(long, max_length=7), b(long, max_length=7))
    a.truncation_side = b.truncation_side = "right"


@pytest.mark.parametrize("name", RIGHT)
def test_decoding(name: str) -> None:
    a, b = ours(name), reference(name)
    for text in TEXTS + SPECIAL:
        ids = b(text)["input_ids"]
        for skip, clean in itertools.product((False, True), (None, False)):
            ask = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
            assert a.decode(ids, **ask) == b.decode(ids, **ask)
        tokens = b.convert_ids_to_tokens(ids)
        assert a.convert_ids_to_tokens(ids) == tokens
        assert a.convert_tokens_to_ids(tokens) == b.convert_tokens_to_ids(tokens)
        assert a.convert_tokens_to_string(tokens) == b.convert_tokens_to_string(tokens)
    rows = [b(text)["input_ids"] for text in TEXTS[:5]]
    assert a.batch_decode(rows, skip_special_tokens=True) == b.batch_decode(rows, skip_special_tokens=True)
    every = range(0, len(b), 97)
    assert [a.decode([id]) for id in every] == [b.decode([id]) for id in every]


@pytest.mark.parametrize("name", RIGHT)
def test_vocabulary_and_special_tokens(name: str) -> None:
    a, b = ours(name), reference(name)
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(a, f"{role}_token") == getattr(b, f"{role}_token")
        assert getattr(a, f"{role}_token_id") == getattr(b, f"{role}_token_id")
    for same_in_both in (
        "vocab_size",
        "model_max_length",
        "padding_side",
        "truncation_side",
        "model_input_names",
    ):
        assert getattr(a, same_in_both) == getattr(b, same_in_both), same_in_both
    assert len(a) == len(b)
    assert a.get_vocab() == b.get_vocab()
    assert a.get_added_vocab() == b.get_added_vocab()
    assert a.special_tokens_map == b.special_tokens_map
    assert set(a.all_special_tokens) == set(b.all_special_tokens)
    assert set(a.all_special_ids) == set(b.all_special_ids)
    assert a.num_special_tokens_to_add(pair=True) == b.num_special_tokens_to_add(pair=True)
    assert {id: str(token) for id, token in a.added_tokens_decoder.items()} == {
        id: str(token) for id, token in b.added_tokens_decoder.items()
    }


def test_a_special_token_of_the_models_own() -> None:
    a, b = ours("bert-image"), reference("bert-image")
    assert (a.image_token, a.image_token_id) == (b.image_token, b.image_token_id) == ("[IMG]", 30522)
    assert a.encode("an [IMG]") == b.encode("an [IMG]")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_saved_folder_is_the_same_tokenizer_in_both(name: str, tmp_path: Any) -> None:
    a = Tokenizer.from_folder(folder(name))
    a.add_tokens(["qwertz", "asdf"])
    a.add_special_tokens({"extra_special_tokens": ["[THING]"]}, replace_extra_special_tokens=False)
    a.chat_template = "{{ messages }}"
    a.save_pretrained(tmp_path)
    again, there = Tokenizer.from_folder(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, *SPECIAL, "a qwertz b [THING] asdf"]
    for text in texts:
        expected = a(text, "and a pair")
        same(again(text, "and a pair"), expected)
        same(there(text, "and a pair"), expected)
        ids = a.encode(text)
        assert again.decode(ids) == there.decode(ids) == a.decode(ids)
        skipped = a.decode(ids, skip_special_tokens=True)
        assert again.decode(ids, skip_special_tokens=True) == there.decode(ids, skip_special_tokens=True) == skipped
    for each in (
        "special_tokens_map",
        "padding_side",
        "model_max_length",
        "chat_template",
        "model_input_names",
    ):
        assert getattr(again, each) == getattr(there, each) == getattr(a, each), each
    assert again.get_vocab() == there.get_vocab() == a.get_vocab()
    assert set(again.all_special_tokens) == set(there.all_special_tokens) == set(a.all_special_tokens)


@pytest.mark.parametrize("name", RIGHT)
def test_a_folder_that_the_reference_saved(name: str, tmp_path: Any) -> None:
    there = reference(name)
    there.save_pretrained(tmp_path)
    here = Tokenizer.from_folder(tmp_path)
    for text in TEXTS + SPECIAL:
        same(here(text, "and a pair"), there(text, "and a pair"))
        ids = there.encode(text)
        assert here.decode(ids, skip_special_tokens=True) == there.decode(ids, skip_special_tokens=True)
    assert here.special_tokens_map == there.special_tokens_map
    assert (here.padding_side, here.model_max_length) == (there.padding_side, there.model_max_length)


@pytest.mark.parametrize("name", ["bert-uncased", "t5", "gpt2"])
def test_tensors_and_pad(name: str) -> None:
    a, b = Tokenizer.from_folder(folder(name)), transformers.AutoTokenizer.from_pretrained(folder(name))
    if a.pad_token is None:
        a.pad_token, b.pad_token = a.eos_token, b.eos_token
    texts = TEXTS[-9:-4]
    for kind in ("pt", "np"):
        for got, expected in (
            (a(texts, padding=True, return_tensors=kind), b(texts, padding=True, return_tensors=kind)),
            (a(texts[0], return_tensors=kind), b(texts[0], return_tensors=kind)),
        ):
            assert list(got) == list(expected)
            for key in expected:
                assert got[key].dtype == expected[key].dtype and got[key].tolist() == expected[key].tolist()
    rows = [dict(b(text)) for text in texts]
    for ask in (
        {},
        {"padding": "max_length", "max_length": 330},
        {"pad_to_multiple_of": 8, "padding_side": "left"},
    ):
        same(a.pad(rows, **ask), b.pad(rows, **ask))
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        same(a.pad(columns, **ask), b.pad({key: list(value) for key, value in columns.items()}, **ask))
    got, expected = a.pad(rows, return_tensors="pt"), b.pad(rows, return_tensors="pt")
    assert {key: value.tolist() for key, value in got.items()} == {
        key: value.tolist() for key, value in expected.items()
    }
    assert a.pad({"input_ids": [1, 2]}, padding="max_length", max_length=4) == dict(
        b.pad({"input_ids": [1, 2]}, padding="max_length", max_length=4)
    )
    assert got.to("cpu") is got


@pytest.mark.parametrize("name", ["bert-uncased", "t5"])
def test_between_characters_words_and_tokens(name: str) -> None:
    texts, pairs = ["The doesn't matter", "uncharacteristically so"], ["a second one", "here"]
    got, expected = ours(name)(texts, pairs), reference(name)(texts, pairs)
    assert got.n_sequences == expected.n_sequences == 2
    for row in range(2):
        for token in range(len(expected["input_ids"][row])):
            assert got.token_to_chars(row, token) == expected.token_to_chars(row, token)
            assert got.token_to_sequence(row, token) == expected.token_to_sequence(row, token)
        for char in range(len(texts[row])):
            assert got.char_to_token(row, char) == expected.char_to_token(row, char)
            assert got.char_to_word(row, char) == expected.char_to_word(row, char)
    assert got.word_to_tokens(0, 1, 1) == expected.word_to_tokens(0, 1, 1)
    assert got.word_to_chars(0, 1, 1) == expected.word_to_chars(0, 1, 1)
    assert got.char_to_token(1) == expected.char_to_token(1)
    assert got.token_to_word(2) == expected.token_to_word(2)


def test_every_public_name_is_there_or_has_advice() -> None:
    tok = ours("gpt2")
    for name in dir(transformers.PreTrainedTokenizerFast):
        if not name.startswith("_") and name not in GONE:
            assert hasattr(tok, name), name
    for name in GONE:
        assert not hasattr(tok, name), name
    for name in dir(transformers.BatchEncoding):
        assert name.startswith("_") or hasattr(tok("x"), name), name


def test_calls_at_random() -> None:
    """400 calls with options drawn from all that a call has: the same keys and values in both libraries."""
    draw = random.Random(0)
    words = "the cat doesn't 日本 🤗 naïve 12,345 \t \n x uncharacteristically ... é [SEP] </s>".split(" ")
    names = ["bert-uncased", "gpt2", "t5", "xlm-roberta"]
    pairs = {
        name: (
            Tokenizer.from_folder(folder(name), model_max_length=512),
            transformers.AutoTokenizer.from_pretrained(folder(name), model_max_length=512),
        )
        for name in names
    }
    for pair in pairs.values():
        for tok in pair:
            tok.pad_token = tok.pad_token or tok.eos_token
    for _ in range(400):
        a, b = pairs[draw.choice(names)]
        split = draw.random() < 0.3

        def text(split: bool = split) -> Any:
            some = [draw.choice(words) for _ in range(draw.randint(2, 14))]
            return some if split else " ".join(some)

        batch = [text() for _ in range(draw.randint(1, 4))]
        texts = draw.choice([(text(),), (text(), text()), (batch,), (batch, batch[::-1]), (list(zip(batch, batch)),)])
        ask = {name: draw.choice(values) for name, values in CHOICES.items() if draw.random() < 0.4}
        if ask.get("padding") is True and not ask.get("truncation"):
            ask.pop("max_length", None)  # said by both: it does nothing
        a.truncation_side = b.truncation_side = draw.choice(["left", "right"])
        asked = ask | {"is_split_into_words": split}
        if draw.random() < 0.1:
            asked["text_target"] = texts[0]
        try:
            expected = b(*texts, **asked)
        except BaseException:  # a panic of the Rust side among them
            continue
        same(a(*texts, verbose=False, **asked), expected)


CHOICES: dict[str, list[Any]] = {
    "padding": [True, False, "longest", "max_length", "do_not_pad"],
    "truncation": [True, False, "only_first", "longest_first", "do_not_truncate"],
    "max_length": [12, 16, 64],
    "stride": [0, 1, 2],
    "return_overflowing_tokens": [True],
    "pad_to_multiple_of": [4, 8],
    "padding_side": ["left", "right"],
    "add_special_tokens": [False],
    "split_special_tokens": [False],
    "return_token_type_ids": [True, False],
    "return_attention_mask": [True, False],
    "return_special_tokens_mask": [True],
    "return_offsets_mapping": [True],
    "return_length": [True],
}
