"""The safetensors reader: hostile files give a WeightsError, good ones the same tensors as the library."""

import gc
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_tensors import bits, some_tensors

from pellucid.errors import WeightsError
from pellucid.weights.safetensors import DTYPES, PAGE, SafetensorsFile, page_counts, read_header

FAST = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
linux = pytest.mark.skipif(page_counts(0, 0) is None, reason="needs /proc/self/pagemap")


def file_of(header, data=b"", length=None) -> bytes:
    """A file with this header, given as an object or as the bytes themselves."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor_of(dtype="U8", shape=(4,), data_offsets=(0, 4)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(data_offsets)}


FOUR = b"\1\2\3\4"
HOSTILE = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"\0" * 7, "7 bytes"),
    "header beyond the file": (file_of({}, length=999), "claims 999 bytes; the file has 10"),
    "header of 2^64 bytes": (b"\xff" * 8 + b"{}", "limit is 100000000"),
    "header one byte longer than the file": (file_of({}, length=3), "claims 3 bytes"),
    "not JSON": (file_of(b"hello"), "JSON cannot be read"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "JSON cannot be read"),
    "a number": (file_of(b"7"), "not an object"),
    "null": (file_of(b"null"), "not an object"),
    "no header at all": (file_of(b""), "JSON cannot be read"),
    "deep nesting": (file_of(b'{"a":' + b"[" * 200_000), "nests too deeply"),
    "nested to just below the limit": (
        file_of(b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"),
        "not dtype, shape",
    ),
    "a number of many digits": (file_of(b'{"a":' + b"9" * 1_000_000 + b"}"), "1000000 digits"),
    "a repeated tensor": (
        file_of(b'{"a":%b,"a":%b}' % ((json.dumps(tensor_of()).encode(),) * 2), FOUR),
        "'a' appears twice",
    ),
    "a repeated field": (file_of(b'{"a":{"dtype":"U8","dtype":"I8"}}'), "'dtype' appears twice"),
    "half a character as a name": (file_of(b'{"\\ud800":1}'), "surrogates not allowed"),
    "metadata that is a list": (file_of({"__metadata__": []}), "__metadata__ is []"),
    "metadata with a number": (file_of({"__metadata__": {"a": 1}}), "__metadata__ is {'a': 1}"),
    "a tensor that is a list": (file_of({"a": []}), "not dtype, shape"),
    "a tensor without offsets": (file_of({"a": {"dtype": "U8", "shape": [0]}}), "not dtype, shape"),
    "a tensor with more": (file_of({"a": tensor_of() | {"stride": [1]}}, FOUR), "not dtype, shape"),
    "an unknown dtype": (file_of({"a": tensor_of("Q4_K")}, FOUR), "dtype 'Q4_K'"),
    "a dtype that is a list": (file_of({"a": tensor_of([])}, FOUR), "dtype []"),
    "a shape that is a number": (file_of({"a": tensor_of() | {"shape": 4}}, FOUR), "shape 4"),
    "a negative size": (file_of({"a": tensor_of(shape=(-4,))}, FOUR), "shape [-4]"),
    "two negative sizes": (file_of({"a": tensor_of(shape=(-2, -2))}, FOUR), "shape [-2, -2]"),
    "a size that is true": (file_of({"a": tensor_of(shape=(True, 4))}, FOUR), "shape [True, 4]"),
    "a size that is a float": (file_of({"a": tensor_of(shape=(4.0,))}, FOUR), "shape [4.0]"),
    "a size of 2^64": (file_of({"a": tensor_of(shape=(2**64,))}, FOUR), "shape [18446744073709551616]"),
    "a product that overflows": (file_of({"a": tensor_of(shape=(2**32, 2**32))}, FOUR), "too large"),
    "an empty tensor too large": (
        file_of({"a": tensor_of(shape=(0, 2**62, 2**62), data_offsets=(0, 0))}),
        "too large",
    ),
    "65 dimensions": (
        file_of({"a": tensor_of(shape=(1,) * 65, data_offsets=(0, 1))}, b"\0"),
        "has the shape",
    ),
    "a negative offset": (file_of({"a": tensor_of(data_offsets=(-4, 0))}, FOUR), "data_offsets [-4, 0]"),
    "offsets backwards": (file_of({"a": tensor_of(data_offsets=(4, 0))}, FOUR), "data_offsets [4, 0]"),
    "three offsets": (file_of({"a": tensor_of(data_offsets=(0, 2, 4))}, FOUR), "data_offsets [0, 2, 4]"),
    "offsets beyond the file": (file_of({"a": tensor_of(shape=(8,), data_offsets=(0, 8))}, FOUR), "file has"),
    "size and offsets disagree": (file_of({"a": tensor_of("F32")}, FOUR), "takes 16 bytes, its data_offsets"),
    "half a byte": (file_of({"a": tensor_of("F4", (3,), (0, 1))}, b"\0"), "takes 1.5 bytes"),
    "overlap": (file_of({"a": tensor_of(), "b": tensor_of(data_offsets=(2, 6))}, FOUR + b"56"), "overlaps"),
    "the same bytes twice": (file_of({"a": tensor_of(), "b": tensor_of()}, FOUR), "overlaps"),
    "a gap": (file_of({"a": tensor_of(), "b": tensor_of(data_offsets=(5, 9))}, b"123456789"), "gap"),
    "a gap at the start": (file_of({"a": tensor_of(data_offsets=(1, 5))}, b"12345"), "gap after the header"),
    "data cut short": (file_of({"a": tensor_of()}, b"\1\2\3"), "file has"),
    "data left over": (file_of({"a": tensor_of()}, FOUR + b"5"), "file has"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "Git LFS pointer",
    ),
    "a web page": (b"<!DOCTYPE html><html><body>Not found</body></html>", "claims"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_their_values(name, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name][0])
    with pytest.raises(WeightsError) as caught:
        read_header(path)
    assert HOSTILE[name][1] in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.next
    assert len(str(caught.value)) < 1500


def test_what_is_no_file_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", "/dev/zero", "a\0b", "x" * 5000):
        with pytest.raises(WeightsError):
            read_header(path)


def test_a_header_of_many_tensors_is_quick_and_bounded(tmp_path):
    entry = b'"%06d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of(b"{" + b",".join(entry % i for i in range(20_000)) + b"}"))
    assert len(read_header(path).tensors) == 20_000


@FAST
@given(data=st.binary(max_size=200))
def test_any_bytes_give_an_error_or_a_header(data, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of(data[: len(data) // 2], data[len(data) // 2 :]))
    try:
        read_header(path)
    except WeightsError:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(list(DTYPES)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
small = st.integers(0, 5)
near_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F16", "F32", "F4"]) | json_values,
        "shape": st.lists(small, max_size=2) | json_values,
        "data_offsets": st.tuples(small, small) | json_values,
    }
)


@FAST
@given(header=st.dictionaries(st.text(max_size=3), near_entries | json_values, max_size=3), size=small)
def test_any_header_gives_an_error_or_what_the_library_reads(header, size, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of(header, bytes(range(size))))
    try:
        file = SafetensorsFile(path)
        ours = {name: file.tensor(name) for name in file.entries}
    except WeightsError:
        return
    theirs = safetensors.torch.load_file(path) if all(e.nbytes for e in file.entries.values()) else ours
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape
        assert bits(tensor) == bits(theirs[name])


@FAST
@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 400) | st.none())
def test_a_damaged_file_gives_an_error_or_tensors(at, value, cut, tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"a": torch.arange(12.0).view(3, 4), "b": torch.ones(5, dtype=torch.int8)}, path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data[:cut])
    try:
        file = SafetensorsFile(path)
        for name in file.entries:
            file.tensor(name).view(-1).tolist()
    except WeightsError:
        return


@FAST
@given(tensors=some_tensors())
def test_what_the_library_writes_is_read_bit_for_bit(tensors, tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    file = SafetensorsFile(path)
    assert set(file.entries) == set(tensors)
    assert file.metadata == {"format": "pt"}
    for name, tensor in tensors.items():
        assert file.tensor(name).dtype == tensor.dtype
        assert file.tensor(name).shape == tensor.shape
        assert bits(file.tensor(name)) == bits(tensor)


def test_misaligned_tensors_are_copies_and_right(tmp_path):
    path = tmp_path / "m.safetensors"
    header = {
        "a": tensor_of("U8", (1,), (0, 1)),
        "b": tensor_of("F32", (3,), (1, 13)),
        "c": tensor_of("F64", (), (13, 21)),
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(file_of(text, b"\7" + struct.pack("<fffd", 1, 2, 3, 4)))
    file = SafetensorsFile(path)
    assert file.tensor("b").tolist() == [1, 2, 3]
    assert file.tensor("c").item() == 4
    assert file.tensor("b").data_ptr() % 4 == 0
    file.tensor("b").zero_()
    assert file.tensor("b").tolist() == [1, 2, 3]
    assert file.dirty("b") is None
    assert file.dirty("a") in (False, None)


def test_half_byte_types(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of({"a": tensor_of("F4", (2, 4)), "b": tensor_of("F6_E2M3", (4,), (4, 7))}, FOUR + b"abc"))
    file = SafetensorsFile(path)
    assert bits(file.tensor("a")) == FOUR
    assert file.tensor("a").shape == (2, 2)
    with pytest.raises(WeightsError, match="F6_E2M3"):
        file.tensor("b")


@pytest.fixture
def large(tmp_path) -> SafetensorsFile:
    """Two tensors of 8 MiB between two of some bytes."""
    tensors = {
        "a": torch.ones(3),
        "big": torch.arange(2 << 20).float(),
        "c": torch.ones(2 << 20),
        "d": torch.ones(5),
    }
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors")
    return SafetensorsFile(tmp_path / "m.safetensors")


def resident(path) -> int:
    """Bytes of a mapped file in the memory of this process."""
    mappings = Path("/proc/self/smaps").read_text().split(f" {path}\n")[1:]
    return sum(1024 * int(re.search(r"Rss: +(\d+) kB", mapping)[1]) for mapping in mappings)


def test_writing_to_a_tensor_never_changes_the_file(large):
    before = large.path.read_bytes()
    large.tensor("big").zero_()
    assert large.tensor("big").sum() == 0
    assert large.path.read_bytes() == before
    assert SafetensorsFile(large.path).tensor("big")[5] == 5


@linux
def test_release_gives_memory_back_and_the_values_return(large):
    tensor, neighbour = large.tensor("big"), large.tensor("c")
    total = tensor.double().sum()
    before = resident(large.path)
    released = large.release("big")
    assert released >= (8 << 20) - 2 * PAGE
    assert before - resident(large.path) == released
    assert large.release("big") == 0
    assert tensor.double().sum() == total
    assert neighbour.sum() == 2 << 20
    assert large.dirty("big") is False


@linux
def test_a_modified_tensor_is_never_released(large):
    tensor = large.tensor("big")
    tensor[1 << 20] = -1.0
    assert large.dirty("big") is True
    assert large.release("big") == 0
    assert tensor[1 << 20] == -1
    assert large.dirty("c") is False
    assert large.dirty("a") is False
    assert large.tensor("c").sum() == 2 << 20


@linux
def test_a_small_change_is_told_from_a_neighbours(large):
    large.tensor("a")[1] = 2
    assert [large.dirty(name) for name in large.entries] == [name == "a" for name in large.entries]
    large.tensor("d")[0] = 7
    assert [name for name in large.entries if large.dirty(name)] == ["a", "d"]
    large.release("big")
    large.release("a")
    assert large.tensor("a").tolist() == [1, 2, 1]
    assert large.tensor("d")[0] == 7


def test_without_pagemap_nothing_is_released_and_dirty_is_unknown(large, monkeypatch):
    monkeypatch.setattr("pellucid.weights.safetensors.page_counts", lambda address, nbytes: None)
    large.tensor("big").sum()
    assert large.release("big") == 0
    assert large.dirty("big") is None


def test_tensors_outlive_the_file_and_its_reader(large):
    path, tensor = large.path, large.tensor("big")
    path.unlink()
    del large
    gc.collect()
    assert tensor[-1] == (2 << 20) - 1


def test_a_file_that_changed_after_its_header_was_read_is_refused(large):
    large.path.write_bytes(large.path.read_bytes())
    os.utime(large.path, (1, 1))
    with pytest.raises(WeightsError, match="changed"):
        large.tensor("a")


@linux
def test_a_file_larger_than_the_memory_of_the_machine_is_mapped(tmp_path):
    path, size = tmp_path / "m.safetensors", 1 << 42
    path.write_bytes(file_of({"a": tensor_of(shape=(size,), data_offsets=(0, size))}))
    try:
        os.truncate(path, path.stat().st_size + size)
    except OSError:
        pytest.skip("the file system has no sparse files of 4 TiB")
    assert SafetensorsFile(path).tensor("a")[-1] == 0


def test_reading_headers_needs_no_torch(large):
    code = (
        "import sys; from pellucid.weights.source import open_weights; "
        "print(open_weights(sys.argv[1]).nbytes); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(large.path)], capture_output=True, text=True)
    assert done.stdout.strip() == str(2 * (8 << 20) + 32), done.stderr
