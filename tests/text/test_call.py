"""Arguments, mistakes, and what is said about them."""

from __future__ import annotations

import contextlib
import json
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from folders import folder, source
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import ArgumentError, InputError, TokenizerError, Unsupported
from pellucid.text.formats import spm
from pellucid.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def bert() -> Tokenizer:
    return Tokenizer.from_folder(folder("bert-uncased"))


@pytest.fixture(scope="module")
def llama() -> Tokenizer:
    return Tokenizer.from_folder(folder("llama2"))


def test_a_misspelt_argument_names_the_right_one(bert: Tokenizer) -> None:
    with pytest.raises(ArgumentError, match="did you mean 'max_length'"):
        bert("x", max_lenght=3)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="did you mean 'skip_special_tokens'"):
        bert.decode([1], skip_special_token=True)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="did you mean 'padding_side'"):
        Tokenizer.from_folder(folder("bert-uncased"), paddingside="left")  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="did you mean 'longest'"):
        bert("x", padding="longes")
    with pytest.raises(ArgumentError, match="did you mean 'pad_token'"):
        bert.add_special_tokens({"padd_token": "x"})
    with pytest.raises(ArgumentError, match="return_tensors='tf'"):
        bert("x", return_tensors="tf")


@pytest.mark.parametrize("value", [None, 3, b"x", ["a", None], [1, 2], {"a": 1}, ["a", ["b", 3]], [["a", "b", "c"]]])
def test_what_is_not_text_is_named(bert: Tokenizer, value: object) -> None:
    with pytest.raises(InputError) as raised:
        bert(value)
    kinds = {"NoneType", "int", "bytes", "dict", "list"}
    assert any(f"({kind})" in raised.value.what for kind in kinds) or "3 of them" in raised.value.what


def test_batches_of_pairs_must_match(bert: Tokenizer) -> None:
    with pytest.raises(InputError, match="a batch of 2 texts with 1"):
        bert(["a", "b"], ["c"])
    with pytest.raises(InputError, match="no batch"):
        bert(["a", "b"], "c")
    with pytest.raises(InputError, match="is_split_into_words=True"):
        bert("a b", is_split_into_words=True)
    assert bert([]) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}


def test_rows_of_different_length_are_no_tensor(bert: Tokenizer) -> None:
    for kind in ("pt", "np"):
        with pytest.raises(InputError, match=r"lengths \[3, 4\]"):
            bert(["a", "a b"], return_tensors=kind)


def test_ids_that_cannot_be_decoded(bert: Tokenizer) -> None:
    for bad in ([-100, 5], [1.5], "x", None, [None]):
        with pytest.raises(InputError):
            bert.decode(bad)
    assert bert.decode([10**6]) == ""


def test_lengths_nobody_knows_are_said_once(llama: Tokenizer) -> None:
    tok = Tokenizer.from_folder(folder("llama2"))
    with pytest.warns(UserWarning, match="truncation='longest_first' does nothing"):
        assert len(tok("a b c", truncation=True)["input_ids"]) == 4
    tok("a b c", truncation=True)
    with pytest.warns(UserWarning, match="padding='max_length' does nothing"):
        tok("a b c", padding="max_length")
    with pytest.raises(ArgumentError, match="max_length=0 has no room for the 1 special"):
        tok("a b c", truncation=True, max_length=0)
    with pytest.raises(ArgumentError, match="does not fit"):
        tok("a b c", truncation=True, max_length=3, stride=2)


def test_padding_without_a_pad_token_uses_eos_and_says_so() -> None:
    tok = Tokenizer.from_folder(folder("llama2"))
    with pytest.warns(UserWarning, match="padding with eos_token"):
        rows = tok(["a", "a b"], padding=True)["input_ids"]
    assert rows[0][-1] == tok.eos_token_id
    tok(["a", "a b"], padding=True)
    tok.eos_token = None
    with pytest.warns(UserWarning, match="padding with unk_token"):
        assert tok(["a", "a b"], padding=True)["input_ids"][0][-1] == 0


def test_a_special_token_must_be_in_the_vocabulary() -> None:
    tok = Tokenizer.from_folder(folder("llama2"))
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        tok.pad_token = "<pad>"
    assert tok.add_special_tokens({"pad_token": "<pad>"}) == 1
    assert (tok.pad_token, tok.pad_token_id, len(tok)) == ("<pad>", 32000, 32001)
    tok.pad_token_id = 2
    assert tok.pad_token == "</s>"
    assert tok.add_tokens(["a", "neologism"]) == 1


def test_a_state_does_not_outlive_a_call(bert: Tokenizer, tmp_path: Path) -> None:
    bert(["a", "b c"], padding=True, truncation=True, max_length=3)
    with pytest.raises(InputError):
        bert([None], padding=True)
    assert len(bert("a b c d e f")["input_ids"]) == 8
    bert.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["truncation"] is None and saved["padding"] is None


def test_options_on_top_of_tokenizer_json(tmp_path: Path) -> None:
    Tokenizer.from_folder(folder("bert-uncased")).save_pretrained(tmp_path)
    assert Tokenizer.from_folder(tmp_path).tokenize("Hi") == ["hi"]
    assert Tokenizer.from_folder(tmp_path, do_lower_case=False).tokenize("Hi") == ["[UNK]"]
    with pytest.raises(ArgumentError, match="acts on a ByteLevel"):
        Tokenizer.from_folder(tmp_path, add_prefix_space=True)
    Tokenizer.from_folder(folder("llama2")).save_pretrained(tmp_path)
    assert Tokenizer.from_folder(tmp_path).encode("Hi") == [1, 6324]
    assert Tokenizer.from_folder(tmp_path, add_bos_token=False, add_eos_token=True).encode("Hi") == [6324, 2]


def test_missing_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        TokenizerError, match=r"accepted: tokenizer.json, vocab.txt; the folder has: config.json, model"
    ):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(TokenizerError, match="vocab.json . merges.txt"):
        Tokenizer.from_folder(tmp_path, tokenizer_class="GPT2TokenizerFast")
    with pytest.raises(TokenizerError, match=r"accepted: tokenizer.json, tokenizer.model, .*vocab.txt; the folder"):
        Tokenizer.from_folder(tmp_path, tokenizer_class="NobodyKnowsTokenizer")
    with pytest.raises(TokenizerError, match="nothing"):
        Tokenizer.from_folder(tmp_path / "absent")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "BPE"}}', "\x00", "[" * 100_000])
def test_broken_json_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match="tokenizer.json"):
        Tokenizer.from_folder(tmp_path)
    Tokenizer.from_folder(folder("bert-uncased")).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    if content != "{}" and "model" not in content:
        with pytest.raises(TokenizerError, match="tokenizer_config.json"):
            Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokenizer_class": 5},
        {"model_max_length": "long"},
        {"added_tokens_decoder": [1]},
        {"added_tokens_decoder": {"x": {}}},
        {"pad_token": {"text": "[PAD]"}},
        {"extra_special_tokens": 3},
        {"chat_template": [{"name": "default"}]},
        {"do_lower_case": "perhaps"},
    ],
)
def test_a_configuration_of_the_wrong_kind_is_an_error(tmp_path: Path, wrong: dict[str, object]) -> None:
    (tmp_path / "vocab.txt").write_bytes(source("bert-uncased/vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **wrong}))
    with pytest.raises(TokenizerError):
        Tokenizer.from_folder(tmp_path)


def test_added_tokens_must_have_their_ids(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(source("bert-uncased/vocab.txt").read_bytes())
    (tmp_path / "added_tokens.json").write_text('{"[ENT]": 40000}')
    with pytest.raises(TokenizerError, match="is listed with id 40000, and has id 30522"):
        Tokenizer.from_folder(tmp_path, tokenizer_class="BertTokenizer")


# ---- the protobuf reader -----------------------------------------------------------------------------------

SMALL = source("stories260K/tokenizer.model").read_bytes()


def parses_or_says_so(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    try:
        model = spm.read(path)
    except (TokenizerError, Unsupported):
        return
    assert model.pieces


@given(data=st.binary(max_size=200))
def test_random_bytes(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    parses_or_says_so(data, tmp_path_factory.getbasetemp() / "random.model")


@given(cut=st.integers(0, len(SMALL)))
def test_a_file_that_ends_early(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    parses_or_says_so(SMALL[:cut], tmp_path_factory.getbasetemp() / "cut.model")


@given(at=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255))
def test_a_byte_that_flipped(at: int, byte: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is read, the Rust side does not crash: text can be encoded, or there is an error."""
    path = tmp_path_factory.getbasetemp() / "flipped" / "tokenizer.model"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(SMALL[:at] + bytes([byte]) + SMALL[at + 1 :])
    with contextlib.suppress(TokenizerError, Unsupported):
        Tokenizer.from_folder(path.parent, tokenizer_class="LlamaTokenizer").encode("Once upon a time ½")


def test_a_hostile_length_reserves_no_memory() -> None:
    with pytest.raises(ValueError, match="1152921504606846975 bytes"):
        spm.parse(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x0f")
    with pytest.raises(ValueError, match="without an end"):
        spm.parse(b"\x80" * 50)


# ---- the door ----------------------------------------------------------------------------------------------


def test_loading_is_light_and_needs_no_torch() -> None:
    """The whole process, from start to ids, in processor time, which a busy machine does not lengthen."""
    program = (
        "import sys; from pellucid.text.tokenizer import Tokenizer; "
        "Tokenizer.from_folder(sys.argv[1])('x'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'transformers', 'sentencepiece')))"
    )
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, "-c", program, str(folder("bert-uncased"))], check=True)
        took.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    assert min(took) < 1.0, took


def test_a_tokenizer_survives_pickling(bert: Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(bert))
    assert again(["a b", "c"], padding=True) == bert(["a b", "c"], padding=True)
    assert again.special_tokens_map == bert.special_tokens_map


def test_an_encoding_survives_pickling(bert: Tokenizer) -> None:
    made = bert(["a b", "c"], padding=True)
    again = pickle.loads(pickle.dumps(made))
    assert again == made and again.tokens(0) == made.tokens(0)
    assert again.input_ids == again["input_ids"] and again[0].ids == made["input_ids"][0]
    with pytest.raises(AttributeError):
        made.labels  # noqa: B018
    with pytest.raises(InputError, match="tokenizer call"):
        bert.pad({"input_ids": [1]}).tokens()


# ---- the rest of the call ----------------------------------------------------------------------------------


def test_targets_become_labels(bert: Tokenizer) -> None:
    made = bert(["a b", "c"], text_target=["d e f", "g"], padding=True, return_tensors="np")
    assert made["labels"].tolist() == bert(["d e f", "g"], padding=True)["input_ids"]
    assert made["input_ids"].tolist() == bert(["a b", "c"], padding=True)["input_ids"]
    assert bert(text_target="a b") == bert("a b")
    assert bert("a", text_target="b c d", max_target_length=4)["labels"] == bert.encode("b c d", max_length=4)
    with pytest.raises(InputError, match="a text is needed, found None"):
        bert()


def test_whatever_holds_texts(bert: Tokenizer) -> None:
    numpy = pytest.importorskip("numpy")
    expected = bert(["a b", "c"])
    for given_as in (("a b", "c"), numpy.array(["a b", "c"]), iter(["a b", "c"]), (text for text in ("a b", "c"))):
        assert bert(given_as) == expected
    assert bert(numpy.str_("a b")) == bert("a b")
    assert bert(numpy.array(["a", "b"]), is_split_into_words=True) == bert("a b")
    assert bert([["a", "b"], ["c"]], [["d"], ["e", "f"]], is_split_into_words=True) == bert(["a b", "c"], ["d", "e f"])
    assert bert([("a", "b"), ["c", "d"]]) == bert(["a", "c"], ["b", "d"])
    for bad in ({"a": 1}, {"a", "b"}, b"bytes", 3.5):
        with pytest.raises(InputError, match="a text is needed"):
            bert(bad)


@pytest.mark.parametrize("text", ["a\ud800", "\udc00", ["fine", "a \udfff b"], [("x", "y\ud83d\ude00")]])
def test_an_unpaired_surrogate_is_named(bert: Tokenizer, text: object) -> None:
    with pytest.raises(InputError, match=r"text \d has an unpaired surrogate, '\\\\ud.*' at character|surrogate"):
        bert(text)


def test_a_text_longer_than_any_model_reads(bert: Tokenizer) -> None:
    tok = Tokenizer.from_folder(folder("bert-uncased"))
    start = time.perf_counter()
    for text in (" " * 10**9, ["x", " " * (2**24 + 1)], ("x", " " * (2**24 + 1)), [("x", " " * (2**24 + 1))]):
        with pytest.raises(InputError, match=r"text \d has [\d,]* characters, more than 16,777,216"):
            tok(text)
    assert time.perf_counter() - start < 10
    tok.longest_text = 10
    with pytest.raises(InputError, match="text 1 has 11 characters, more than 10"):
        tok(["a", "b" * 11])


def test_a_run_that_regular_expressions_give_up_on() -> None:
    """Onig, the Rust side's expressions, panics at ten million steps back: an error that says so, not a crash."""
    from tokenizers import Regex, models, pre_tokenizers
    from tokenizers import Tokenizer as RustTokenizer

    rust = RustTokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated")
    with pytest.raises(InputError, match="too long for this tokenizer's regular expression"):
        Tokenizer(rust).encode(" " * 12_000_000 + "x")


def test_truncation_without_a_length_says_what_it_cut_to() -> None:
    tok = Tokenizer.from_folder(folder("bert-uncased"))
    assert len(tok.encode("a b c", truncation=True)) == 5
    with pytest.warns(UserWarning, match="rows were cut to 512 tokens, model_max_length"):
        assert len(tok.encode("a " * 600, truncation=True)) == 512
    assert len(tok.encode("a " * 600, truncation=True)) == 512
    with pytest.warns(UserWarning, match="max_length does nothing beside padding=True"):
        tok(["a b c d", "e"], padding=True, max_length=3)


def test_rows_for_a_model_from_ids(bert: Tokenizer) -> None:
    one, two = bert.encode("a b c", add_special_tokens=False), bert.encode("d e", add_special_tokens=False)
    whole = bert("a b c", "d e", return_special_tokens_mask=True)
    assert bert.build_inputs_with_special_tokens(one, two) == whole["input_ids"]
    assert bert.create_token_type_ids_from_sequences(one, two) == whole["token_type_ids"]
    assert bert.get_special_tokens_mask(one, two) == whole["special_tokens_mask"]
    assert bert.get_special_tokens_mask(whole["input_ids"], already_has_special_tokens=True) == [
        1,
        *3 * [0],
        1,
        0,
        0,
        1,
    ]
    padded = {"padding": "max_length", "max_length": 12}
    ways: list[dict[str, Any]] = [{}, {"truncation": True, "max_length": 6}, padded]
    for options in ways:
        assert bert.prepare_for_model(one, two, **options) == bert("a b c", "d e", **options)
    cut = bert.prepare_for_model(one, truncation=True, max_length=4, return_overflowing_tokens=True, stride=1)
    assert (cut["overflowing_tokens"], cut["num_truncated_tokens"]) == (one[1:], 1)
    assert bert.truncate_sequences(one, two, 2) == (one[:2], two[:1], [])
    assert bert.truncate_sequences(one, two, 2, "only_first", stride=1) == (one[:1], two, one)
    with pytest.raises(ArgumentError, match="3 tokens are to go, and text_pair has 2"):
        bert.truncate_sequences(one, two, 3, "only_second")


def test_names_of_version_4(bert: Tokenizer) -> None:
    assert bert.encode_plus("a", "b") == bert("a", "b")
    assert bert.batch_encode_plus([("a", "b")], padding=True) == bert([("a", "b")], padding=True)
    with pytest.raises(ArgumentError, match="did you mean 'max_length'"):
        bert.encode_plus("a", max_lenght=3)
    assert bert.special_tokens_map_extended["mask_token"].content == "[MASK]"
    assert bert.sanitize_special_tokens() == 0
    assert bert.max_len_single_sentence == 510 and bert.max_len_sentences_pair == 509
    assert (bert.add_bos_token, bert.pad_token_type_id, bert.is_fast) == (False, 0, True)
    with pytest.raises(AttributeError, match="pass text_target="):
        bert.as_target_tokenizer  # noqa: B018
    with pytest.raises(TokenizerError, match="go around a text, not bos and eos alone"):
        bert.add_eos_token = True


def test_bos_and_eos_can_be_turned_on() -> None:
    tok = Tokenizer.from_folder(folder("llama2"))
    assert (tok.add_bos_token, tok.add_eos_token, tok.encode("a")) == (True, False, [1, 263])
    tok.add_eos_token = True
    assert tok.encode("a", "b") == [1, 263, 2, 1, 289, 2]
    tok.add_bos_token = False
    assert tok.encode("a") == [263, 2]


def test_enum_values_are_taken(bert: Tokenizer) -> None:
    import enum

    class Padding(enum.Enum):
        LONGEST = "longest"
        NUMPY = "np"

    texts = ["a b", "c"]
    made = bert(texts, padding=Padding.LONGEST, return_tensors=Padding.NUMPY)  # type: ignore[arg-type]
    assert made["input_ids"].tolist() == bert(texts, padding=True)["input_ids"]


def test_empty_batches_have_whole_numbers() -> None:
    tok = Tokenizer.from_folder(folder("gpt2"))
    for kind in ("np", "pt"):
        assert tok([""], return_tensors=kind)["input_ids"].shape == (1, 0)
        assert "int64" in str(tok([], return_tensors=kind)["input_ids"].dtype)
    assert tok("") == {"input_ids": [], "attention_mask": []} and tok.decode([]) == ""


def test_saving_in_other_ways(bert: Tokenizer, tmp_path: Path) -> None:
    assert [Path(path).name for path in bert.save_vocabulary(tmp_path, "x")] == ["x-vocab.txt"]
    assert (tmp_path / "x-vocab.txt").read_bytes() == source("bert-uncased/vocab.txt").read_bytes()
    assert {Path(path).name for path in bert.save_pretrained(tmp_path, filename_prefix="y")} >= {"y-tokenizer.json"}
    with pytest.raises(Unsupported, match="legacy_format"):
        bert.save_pretrained(tmp_path, legacy_format=True)
    with pytest.raises(Unsupported, match="hf upload"):
        bert.save_pretrained(tmp_path, push_to_hub=True)
    with pytest.raises(InputError, match="is a file"):
        bert.save_pretrained(tmp_path / "x-vocab.txt")


def test_class_names_of_the_reference(tmp_path: Path) -> None:
    import pellucid
    from pellucid import AddedToken, BertTokenizer, BertTokenizerFast, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    (tmp_path / "vocab.txt").write_bytes(source("bert-uncased/vocab.txt").read_bytes())
    tok = BertTokenizerFast.from_pretrained(tmp_path)
    assert tok.encode("Hi") == [101, 7632, 102]
    assert BertTokenizer is BertTokenizerFast and isinstance(tok, PreTrainedTokenizerBase)
    assert type(pickle.loads(pickle.dumps(tok))) is BertTokenizer
    file = PreTrainedTokenizerFast(tokenizer_object=tok.backend_tokenizer, mask_token=AddedToken("<m>", lstrip=True))
    assert file.encode("hi  <m>")[-2:] == [30522, 102] and file.mask_token_id == 30522
    with pytest.raises(ArgumentError, match="0 tokenizers are given"):
        PreTrainedTokenizerFast()
    with pytest.raises(TokenizerError):
        PreTrainedTokenizerFast(tokenizer_file=tmp_path / "absent.json")
    with pytest.raises(AttributeError, match="did you mean"):
        pellucid.AutoTokeniser  # noqa: B018


def test_own_special_tokens_can_be_set() -> None:
    tok = Tokenizer.from_folder(folder("bert-image"))
    tok.image_token = "[MASK]"
    assert (tok.image_token, tok.image_token_id, tok.special_tokens_map["image_token"]) == ("[MASK]", 103, "[MASK]")
    tok.image_token_id = 102
    assert tok.image_token == "[SEP]"
    with pytest.raises(TokenizerError, match="is not in the vocabulary"):
        tok.image_token = "<nowhere>"
    with pytest.raises(TokenizerError, match="has no such id"):
        tok.pad_token_id = 10**6
