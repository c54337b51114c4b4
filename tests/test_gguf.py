"""The reader of GGUF: what is written comes back; what is broken is an error, in little time and memory."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_files import ARRAY, NUMBERS, STRING, As, to_bytes, write
from pellucid import gguf
from pellucid.errors import PellucidError, Unsupported, WeightsError

EVERYTHING = {
    "u8": As(0, 200),
    "i8": As(1, -100),
    "u16": As(2, 60_000),
    "i16": As(3, -30_000),
    "u32": As(4, 4_000_000_000),
    "i32": As(5, -2_000_000_000),
    "f32": As(6, 0.5),
    "bool": True,
    "u64": As(10, 1 << 63),
    "i64": As(11, -(1 << 62)),
    "f64": As(12, 0.1),
    "text": "hé 日本 😀",
    "empty text": "",
    "no unicode": b"\xff\x80A",
    "numbers": As(5, [1, -2, 3]),
    "reals": [0.5, -1.25],
    "bytes": As(0, [0, 255]),
    "flags": [True, False],
    "texts": ["a", "", "😀" * 99],
    "none": As(STRING, []),
    "nested": As(ARRAY, [As(5, [1, 2]), ["x", "y"], As(ARRAY, [[0.5]])]),
}
DATA = {"a": ((3, 32), 2, b"\1" * 54), "b": ((), 0, b"\2" * 4), "c": ((5,), 24, b"\3" * 5)}


def plain(value: Any) -> Any:
    """A value as the reader gives it, with arrays as lists."""
    if isinstance(value, As):
        return plain(value.value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [plain(each) for each in value] if isinstance(value, list | array) else value


@pytest.mark.parametrize(("version", "order"), [(1, "<"), (2, "<"), (3, "<"), (3, ">")])
def test_everything_comes_back(tmp_path: Path, version: int, order: str) -> None:
    path = write(tmp_path / "x.gguf", EVERYTHING, tensors=DATA, version=version, order=order)
    found = gguf.read(path)
    assert {key: plain(value) for key, value in found.metadata.items()} == {
        key: plain(value) for key, value in EVERYTHING.items()
    }
    assert (found.version, found.byte_order) == (version, "little" if order == "<" else "big")
    data = path.read_bytes()
    for name, (shape, kind, content) in DATA.items():
        tensor = found.tensors[name]
        assert (tensor.shape, tensor.kind, tensor.nbytes) == (shape, kind, len(content))
        assert data[tensor.start : tensor.start + tensor.nbytes] == content
    assert found.data_offset == found.tensors["a"].start and found.data_offset % 32 == 0


def test_the_alignment_of_the_file_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", {"general.alignment": 256}, tensors=DATA, alignment=256)
    assert {tensor.start % 256 for tensor in gguf.read(path).tensors.values()} == {0}


SCALARS = st.one_of(
    st.booleans(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.floats(width=32, allow_nan=False),
    st.integers(0, (1 << 32) - 1),
)
ARRAYS = st.one_of(
    st.lists(st.text(max_size=9), max_size=9),
    st.lists(st.booleans(), min_size=1),
    st.sampled_from(sorted(set(NUMBERS) - {6, 7, 12})).flatmap(
        lambda kind: st.lists(st.integers(-(1 << 7) if NUMBERS[kind].islower() else 0, (1 << 7) - 1), max_size=9).map(
            lambda items: As(kind, items)
        )
    ),
)


@settings(max_examples=60, deadline=None)
@given(metadata=st.dictionaries(st.text(max_size=9), SCALARS | ARRAYS, max_size=6), version=st.sampled_from([1, 2, 3]))
def test_any_metadata_comes_back(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any], version: int
) -> None:
    metadata.pop("general.alignment", None)
    found = gguf.read(write(tmp_path_factory.mktemp("any") / "x.gguf", metadata, version=version))
    assert {key: plain(value) for key, value in found.metadata.items()} == {
        key: plain(value) for key, value in metadata.items()
    }


def head(tensors: int, entries: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def entry(kind: int, value: bytes) -> bytes:
    return text(b"k") + struct.pack("<I", kind) + value


HOSTILE = {
    "nothing": (b"", "0 bytes"),
    "another file": (b"PK\3\4" + b"\0" * 40, "begins with"),
    "version 0": (b"GGUF" + struct.pack("<IQQ", 0, 0, 0), "version 0"),
    "version 4": (head(0, 0, 4), "version 4"),
    "2^60 entries": (head(0, 1 << 60), "entries"),
    "2^60 tensors": (head(1 << 60, 0), "tensors"),
    "a key of 2^63 bytes": (head(0, 1) + struct.pack("<Q", 1 << 63) + b"x" * 20, "bytes are due"),
    "a type nobody knows": (head(0, 1) + entry(99, b"\0" * 8), "type 99"),
    "an array type nobody knows": (head(0, 1) + entry(9, struct.pack("<IQ", 77, 1) + b"\0" * 20), "type 77"),
    "2^40 numbers": (head(0, 1) + entry(9, struct.pack("<IQ", 10, 1 << 40)), "bytes are due"),
    "2^40 texts": (head(0, 1) + entry(9, struct.pack("<IQ", 8, 1 << 40)), "strings"),
    "2^40 arrays": (head(0, 1) + entry(9, struct.pack("<IQ", 9, 1 << 40)), "arrays"),
    "texts that end": (head(0, 1) + entry(9, struct.pack("<IQ", 8, 3) + text(b"a" * 30)), "missing"),
    "a text beyond the end": (head(0, 1) + entry(9, struct.pack("<IQQ", 8, 1, 1 << 50)), "where 0 are left"),
    "arrays without end": (head(0, 1) + entry(9, struct.pack("<IQ", 9, 1) * 5000), "nest"),
    "a key twice": (head(0, 2) + entry(7, b"\1") * 2 + b"\0" * 20, "twice"),
    "alignment 0": (to_bytes({"general.alignment": 0}), "alignment"),
    "alignment 24": (to_bytes({"general.alignment": 24}), "alignment"),
    "alignment as text": (to_bytes({"general.alignment": "32"}), "alignment"),
    "five dimensions": (to_bytes({}, {"t": ((1, 1, 1, 1, 1), 0, b"\0" * 4)}), "dimensions"),
    "a tensor larger than any machine": (to_bytes({}, {"t": ((1 << 40, 1 << 40), 0, b"")}), "too large"),
    "a tensor larger than the file": (to_bytes({}, {"t": ((1 << 20,), 0, b"\0" * 32)}), "the file at"),
    "half a block": (to_bytes({}, {"t": ((16,), 2, b"\0" * 32)}), "blocks"),
    "tensors that overlap": (
        to_bytes({}, {"a": ((64,), 0, b"\0" * 32), "b": ((8,), 0, b"\0" * 256)}),
        "begins at",
    ),
    "a tensor between": (
        to_bytes({}, {"a": ((4,), 0, b"\0" * 16), "b": ((4,), 0, b"\0" * 16)}, alignment=16),
        "aligned",
    ),
    "two tensors of one name": (
        to_bytes({}, {"a": ((1,), 0, b"\0" * 4), "b": ((1,), 0, b"\0" * 4)}).replace(b"b", b"a"),
        "one name",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(tmp_path: Path, name: str) -> None:
    data, said = HOSTILE[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=said) as caught:
        gguf.read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert str(path) in str(caught.value)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    data = to_bytes(EVERYTHING, DATA)
    path = tmp_path / "x.gguf"
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(WeightsError):
            gguf.read(path)


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_change_is_an_error_or_another_file(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(to_bytes(EVERYTHING, DATA))
    for at, byte in changes:
        data[at % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(data)
    try:
        found = gguf.read(path)
    except PellucidError:
        return
    size = len(data)
    for tensor in found.tensors.values():
        assert tensor.kind not in gguf.TENSOR_TYPES or tensor.start + tensor.nbytes <= size


# ------------------------------------------------------------------------------------------------ pieces


def pieces(folder: Path, count: int = 3, **changes: Any) -> list[Path]:
    """A model of six tensors in several files; `changes` of their metadata, by key and number: `split__no_1`."""
    names, made = "abcdef", []
    for at in range(count):
        said: dict[str, Any] = {"split.no": As(2, at), "split.count": As(2, count), "split.tensors.count": As(5, 6)}
        said = ({"general.name": "x"} if at == 0 else {}) | said
        for key, value in changes.items():
            name, _, number = key.replace("__", ".").rpartition("_")
            if int(number) == at:
                said[name] = value
        share = names[at * 6 // count : (at + 1) * 6 // count]
        tensors = {name: ((2,), 0, struct.pack("<2f", ord(name), at)) for name in share}
        made.append(write(folder / f"m-{at + 1:05d}-of-{count:05d}.gguf", said, tensors=tensors))
    return made


def test_pieces_are_one_model(tmp_path: Path) -> None:
    files = pieces(tmp_path)
    found = gguf.read_whole(files[0])
    assert found.metadata == {"general.name": "x"} and "".join(found.tensors) == "abcdef"
    for name, tensor in found.tensors.items():
        data = tensor.file.read_bytes()[tensor.start : tensor.start + 8]
        assert struct.unpack("<2f", data) == (ord(name), "abcdef".index(name) // 2)
    assert gguf.standing_for(files[1:]) == files[0]
    assert gguf.standing_for([*files, write(tmp_path / "other.gguf", {})]) is None
    assert gguf.read_whole(files[0]).metadata_end == gguf.read(files[0]).metadata_end


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files[1].unlink(), "piece 2 of 3 is missing: m-00002-of-00003.gguf"),
        (lambda files: files[1].write_bytes(files[2].read_bytes()), "it is piece 2 of 3, counted from 0, not 1 of 3"),
        (lambda files: pieces(files[0].parent, split__count_2=As(2, 4)), "piece 2 of 4, counted from 0, not 2 of 3"),
        (
            lambda files: pieces(files[0].parent, split__tensors__count_0=As(5, 7)),
            "6 tensors in 3 pieces, .* says 7",
        ),
        (lambda files: pieces(files[0].parent, split__count_0=As(2, 60000)), "piece 1 of 60000, and called m-00001"),
        (lambda files: pieces(files[0].parent, split__no_0=As(2, 1)), "this is piece 2 of 3"),
    ],
)
def test_broken_pieces(change: Any, says: str, tmp_path: Path) -> None:
    files = pieces(tmp_path)
    change(files)
    with pytest.raises(WeightsError, match=says):
        gguf.read_whole(files[0])


def test_a_later_piece_or_a_tensor_twice(tmp_path: Path) -> None:
    files = pieces(tmp_path)
    with pytest.raises(WeightsError, match="this is piece 2 of 3, and called m-00002") as caught:
        gguf.read_whole(files[1])
    assert "-00001-of-00003.gguf" in caught.value.next
    said = {"split.no": As(2, 1), "split.count": As(2, 3)}
    write(files[1], said, tensors={"a": ((2,), 0, bytes(8))})
    with pytest.raises(WeightsError, match="tensor 'a' is in an earlier piece too"):
        gguf.read_whole(files[0])


def test_a_tensor_type_of_the_future(tmp_path: Path) -> None:
    """The vocabulary of such a file can still be read; only the tensor itself cannot."""
    tensors = {"new": ((7,), 999, b"\0" * 64), "old": ((1,), 0, b"\0" * 4)}
    found = gguf.read(write(tmp_path / "x.gguf", {"a": 1}, tensors=tensors))
    assert found.metadata == {"a": 1} and found.tensors["old"].nbytes == 4
    with pytest.raises(Unsupported, match="type 999"):
        found.tensors["new"].nbytes  # noqa: B018


def test_only_regular_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a regular file"):
        gguf.read(tmp_path)
    with pytest.raises(WeightsError, match="cannot be opened"):
        gguf.read(tmp_path / "none.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(WeightsError, match="not a regular file"):
        gguf.read(tmp_path / "pipe.gguf")


def test_the_header_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of a terabyte costs its writer nothing; it must not cost the reader memory."""
    monkeypatch.setattr(gguf, "MAX_HEADER", 1000)
    path = write(tmp_path / "x.gguf", {"texts": ["x"] * 200})
    with pytest.raises(WeightsError, match="limit|left"):
        gguf.read(path)


def test_sizes_of_types_are_whole_and_names_are_once() -> None:
    names = [each.name for each in gguf.TENSOR_TYPES.values()]
    assert len(set(names)) == len(names)
    bits = {each.name: 8 * each.nbytes / each.block for each in gguf.TENSOR_TYPES.values()}
    for name, expected in {"F32": 32, "BF16": 16, "Q8_0": 8.5, "Q4_0": 4.5, "Q4_K": 4.5, "Q6_K": 6.5625}.items():
        assert math.isclose(bits[name], expected)


def test_it_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, pellucid.gguf; print(sorted({'torch', 'numpy'} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
