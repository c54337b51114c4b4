"""Vocabularies that are broken, contradict themselves or mean harm: an error with a name, or bounded time; no panic.

And the cache of converted vocabularies: what is in it is used only where it is what was put there.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from folders import source
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import made

from pellucid import hub
from pellucid.errors import PellucidError
from pellucid.text import cache, convert
from pellucid.text.formats import sentencepiece
from pellucid.text.tokenizer import Tokenizer

TEXT = "Once upon a time, 12,345 ½ 日本\n\n  x"


def loads_or_says_so(folder: Path, name: str) -> bool:
    """Whether it loads; then it encodes and decodes too. Anything but a PellucidError fails the test."""
    try:
        tok = Tokenizer.from_folder(folder, tokenizer_class=name)
        tok.decode(tok.encode(TEXT))
    except PellucidError as e:
        assert e.what and "Traceback" not in e.what
        return False
    return True


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


BPE_FILES: dict[str, dict[str, Any]] = {
    "a list": {"vocab.json": [1, 2], "merges.txt": ""},
    "a number": {"vocab.json": 5, "merges.txt": ""},
    "text ids": {"vocab.json": {"a": "0"}, "merges.txt": "#version: 0.2\n"},
    "half ids": {"vocab.json": {"a": 0.5}, "merges.txt": "#version: 0.2\n"},
    "true": {"vocab.json": {"a": True}, "merges.txt": "#version: 0.2\n"},
    "negative ids": {"vocab.json": {"a": 0, "b": -1}, "merges.txt": "#version: 0.2\n"},
    "huge ids": {"vocab.json": {"a": 0, "b": 1 << 40}, "merges.txt": "#version: 0.2\n"},
    "endless ids": {"vocab.json": {"a": 0, "b": 10**400}, "merges.txt": "#version: 0.2\n"},
    "ids twice": {"vocab.json": {"a": 0, "b": 0}, "merges.txt": "#version: 0.2\n"},
    "no tokens": {"vocab.json": {}, "merges.txt": "#version: 0.2\n"},
    "not json": {"vocab.json": "{", "merges.txt": "#version: 0.2\n"},
    "deep": {"vocab.json": "[" * 200_000, "merges.txt": "#version: 0.2\n"},
    "not utf-8": {"vocab.json": b'{"a\xff": 0}', "merges.txt": "#version: 0.2\n"},
    "surrogates": {"vocab.json": b'{"\\ud800": 0}', "merges.txt": "#version: 0.2\n"},
    "merges of nothing": {"vocab.json": {"a": 0, "b": 1}, "merges.txt": "#version: 0.2\na b\n"},
    "merges of strangers": {"vocab.json": {"a": 0, "ab": 1}, "merges.txt": "#version: 0.2\na b\n"},
    "merges in a circle": {"vocab.json": {"a": 0, "aa": 1}, "merges.txt": "#version: 0.2\naa \na aa\n"},
    "long lines": {"vocab.json": {"a": 0}, "merges.txt": "#version: 0.2\n" + "a " * 100 + "\n"},
    "binary merges": {"vocab.json": {"a": 0}, "merges.txt": b"#version\n\xff\xfe \xff\n"},
    "empty": {"vocab.json": "", "merges.txt": ""},
}


@pytest.mark.parametrize("what", BPE_FILES)
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "CLIPTokenizer", "OpenAIGPTTokenizer", "CTRLTokenizer"])
def test_vocabularies_of_pairs(what: str, name: str, tmp_path: Path) -> None:
    loaded = loads_or_says_so(write(tmp_path, BPE_FILES[what]), name)
    allowed = {"merges of nothing", "merges of strangers", "merges in a circle"} if name == "CTRLTokenizer" else set()
    assert not loaded or what in allowed | {"merges in a circle"}


HOLES = {"vocab.json": {"a": 3, "b": 900_000, "ab": 70}, "merges.txt": "#version: 0.2\na b\n"}


def test_holes_between_ids_are_kept(tmp_path: Path) -> None:
    tok = Tokenizer.from_folder(write(tmp_path, HOLES), tokenizer_class="GPT2Tokenizer")
    assert tok.encode("ab") == [70] and tok.encode("b") == [900_000] and tok.convert_ids_to_tokens(4) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"no unknown\ntoken\n", b"\n" * 1000, b"\x00" * 1000, "\ud800".encode("utf-8", "surrogatepass")],
)
@pytest.mark.parametrize("name", ["BertTokenizer", "EsmTokenizer", "ProphetNetTokenizer"])
def test_lists_of_tokens(content: bytes, name: str, tmp_path: Path) -> None:
    file = "prophetnet.tokenizer" if name == "ProphetNetTokenizer" else "vocab.txt"
    assert not loads_or_says_so(write(tmp_path, {file: content}), name)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tokenizer.json", "PreTrainedTokenizerFast"),
        ("vocab.txt", "BertTokenizer"),
        ("vocab.json", "GPT2Tokenizer"),
        ("tokenizer.model", "LlamaTokenizer"),
    ],
)
def test_a_folder_in_the_place_of_a_file(file: str, name: str, tmp_path: Path) -> None:
    (tmp_path / file).mkdir()
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    assert not loads_or_says_so(tmp_path, name)


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"])
@pytest.mark.parametrize("size", [16 << 20, (256 << 20) + 1])
def test_megabytes_of_junk_take_no_time(file: str, size: int, tmp_path: Path) -> None:
    """Sparse files: zeros, as many as they say."""
    with (tmp_path / file).open("wb") as junk:
        junk.truncate(size)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    name = {"vocab.txt": "BertTokenizer", "vocab.json": "GPT2Tokenizer", "tokenizer.model": "LlamaTokenizer"}
    start = time.process_time()
    assert not loads_or_says_so(tmp_path, name.get(file, "PreTrainedTokenizerFast"))
    assert time.process_time() - start < 5


# ---- sentencepiece -----------------------------------------------------------------------------------------

UNIGRAM = made("spm-t5/m.model").read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(UNIGRAM) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_unigram_model(at: int, byte: int, cut: bool, tmp_path: Path) -> None:
    data = UNIGRAM[:at] if cut else UNIGRAM[:at] + bytes([byte]) + UNIGRAM[at + 1 :]
    (tmp_path / "spiece.model").write_bytes(data)
    loads_or_says_so(tmp_path, "T5Tokenizer")


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """One protobuf message: numbers as varints below 128, bytes with their length."""
    out = b""
    for number, value in fields:
        out += bytes([number << 3 | (2 if isinstance(value, bytes) else 0)])
        out += bytes([value]) if isinstance(value, int) else bytes([len(value)]) + value
    return out


def piece(text: str, kind: int) -> tuple[int, bytes]:
    return 1, message((1, text.encode()), (3, kind))


MODELS = {
    "no unknown piece": message(piece("a", 1), piece("b", 1)),
    "two unknown pieces": message(piece("<unk>", 2), piece("<unk2>", 2)),
    "a piece twice": message(piece("<unk>", 2), piece("a", 1), piece("a", 1)),
    "no pieces": message((2, message((3, 1)))),
    "an algorithm nobody knows": message(piece("<unk>", 2), (2, message((3, 9)))),
    "a table that is cut": message(piece("<unk>", 2), piece("a", 1), (3, message((2, b"\xff\xff\xff\x7f")))),
    "fields without a number": b"\x00" * 9000,
    "too many fields": message(piece("<unk>", 2)) + b"\x38\x01" * 9000,
    "a piece too long": b"\x0a\x83\x08\x0a\x80\x08" + b"a" * 1024,
    "a table that is too short": message(piece("<unk>", 2), piece("a", 1), (3, message((2, b"ab")))),
}


@pytest.mark.parametrize("what", MODELS)
@pytest.mark.parametrize("name", ["LlamaTokenizer", "T5Tokenizer", "XLMRobertaTokenizer", "PreTrainedTokenizerFast"])
def test_models_that_contradict_themselves(what: str, name: str, tmp_path: Path) -> None:
    assert not loads_or_says_so(write(tmp_path, {"tokenizer.model": MODELS[what]}), name)


@pytest.mark.parametrize("count", [-1, 10**9, "many", 1.5])
def test_sentinels_without_end(count: Any, tmp_path: Path) -> None:
    write(tmp_path, {"spiece.model": UNIGRAM, "tokenizer_config.json": {"extra_ids": count}})
    assert not loads_or_says_so(tmp_path, "T5Tokenizer")


# ---- tokenizer.json ----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def small_tokenizer_json() -> dict[str, Any]:
    rust = sentencepiece.build(
        [made("spm-t5/m.model")],
        convert.row("T5Tokenizer"),
        {"extra_ids": 2},
        "<unk>",
    )
    found: dict[str, Any] = json.loads(rust.to_str())
    found["model"]["vocab"] = found["model"]["vocab"][:40]
    return found


WHOLE = small_tokenizer_json()


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ()
    return [at, *(path for key, each in inner for path in paths(each, (*at, key)))]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.sampled_from(paths(WHOLE)[1:]), new=JSON)
def test_a_tokenizer_json_with_one_value_changed(at: tuple[Any, ...], new: Any, tmp_path: Path) -> None:
    changed = json.loads(json.dumps(WHOLE))
    inside = changed
    for key in at[:-1]:
        inside = inside[key]
    inside[at[-1]] = new
    loads_or_says_so(write(tmp_path, {"tokenizer.json": changed}), "T5Tokenizer")


# ---- the cache ---------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and everything is worth keeping."""
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST", 1)
    return tmp_path / "cache" / "tokenizers"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(source("stories260K/tokenizer.model").read_bytes())
    return folder


def ids(folder: Path, **options: Any) -> list[int]:
    found: list[int] = Tokenizer.from_folder(folder, tokenizer_class="LlamaTokenizer", **options).encode(TEXT)
    return found


def test_a_converted_vocabulary_is_kept_and_used(kept: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids(llama)
    assert len(list(kept.iterdir())) == 1 and kept.stat().st_mode & 0o777 == 0o700
    monkeypatch.setitem(convert.BUILDERS, "sentencepiece", lambda *_: pytest.fail("was built again"))
    assert ids(llama) == first


def test_other_files_options_or_code_are_other_entries(
    kept: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ids(llama)
    assert ids(llama, legacy=True, add_prefix_space=False) != first
    (llama / "tokenizer.model").write_bytes(made("spm-llama/m.model").read_bytes())
    assert ids(llama) != first
    monkeypatch.setattr(cache, "_converter", lambda: b"another version")
    ids(llama)
    assert len(list(kept.iterdir())) == 4


def test_no_entry_is_trusted_over_the_files(kept: Path, llama: Path, tmp_path: Path) -> None:
    first = ids(llama)
    (entry,) = kept.iterdir()
    whole = entry.read_bytes()
    head, _, body = whole.partition(b"\n")
    other = body.replace(b'"unk_token":"<unk>"', b'"unk_token":null')
    for damaged in (b"", whole[:-1], whole[1:], head, body, head + b"\n" + other, b"\x00" * 99, head + b"\n{}"):
        entry.write_bytes(damaged)
        assert ids(llama) == first
        assert entry.read_bytes() == whole, "and it is repaired"
    entry.rename(entry.with_name("0" * 64))
    assert ids(llama) == first
    (kept / ("0" * 64)).rename(tmp_path / "elsewhere")
    entry.unlink()
    entry.symlink_to(tmp_path / "elsewhere")
    assert ids(llama) == first and not entry.is_symlink()
    entry.unlink()
    entry.mkdir()
    assert ids(llama) == first


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_an_entry_that_others_could_have_written_is_not_used(
    kept: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ids(llama)
    (entry,) = kept.iterdir()
    assert cache.load(entry.name) is not None
    for path, mode in ((entry, 0o666), (kept, 0o777)):
        before = path.stat().st_mode
        path.chmod(mode)
        assert cache.load(entry.name) is None
        assert ids(llama) == first
        path.chmod(before)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert cache.load(entry.name) is None


def test_a_cache_that_cannot_be_written_is_no_error(
    kept: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for where in (str(tmp_path / "file"), "/proc/nothing", ""):
        monkeypatch.setenv("PELLUCID_CACHE", where)
        assert ids(llama)
    assert not kept.exists()
    monkeypatch.delenv("PELLUCID_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub.tokenizer_cache() == tmp_path / "xdg" / "pellucid" / "tokenizers"


def test_a_vocabulary_with_holes_is_not_kept(kept: Path, tmp_path: Path) -> None:
    """The engine renumbers nothing when it writes, but says so on standard output."""
    tok = Tokenizer.from_folder(write(tmp_path, HOLES), tokenizer_class="GPT2Tokenizer")
    cache.store("0" * 64, tok.rust)
    assert not kept.exists()
