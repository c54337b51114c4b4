"""The reader of .bin files: the same tensors as torch, and nothing in the file is ever run."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.errors import WeightsError
from pellucid.weights.safetensors import page_counts
from pellucid.weights.torch_bin import TorchFile


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).view(4, 6)
    return {
        "a": base,
        "tied": base,
        "transposed": base.T,
        "part": base[1:3],
        "half": torch.ones(3, 5, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "empty": torch.empty(0, 4),
        "eight": torch.ones(3).to(torch.float8_e4m3fn),
    }


class Payload:
    """A pickle that writes a file when it is loaded by `pickle.load`."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def same(ours: TorchFile, theirs: dict[str, torch.Tensor]) -> None:
    assert list(ours.entries) == list(theirs)
    for name, tensor in theirs.items():
        found = ours.tensor(name)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.float(), tensor.float())
        assert ours.entries[name].shape == tensor.shape
        assert ours.entries[name].nbytes == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_what_torch_writes_is_read(zipped, wrap, tensors, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    if not zipped:
        del tensors["eight"]  # the older format does not know it
    state = collections.OrderedDict(tensors)
    torch.save({wrap: state, "epoch": 3} if wrap else state, path, _use_new_zipfile_serialization=zipped)
    same(TorchFile(path), tensors)
    assert TorchFile(path).entries["half"].dtype == "BF16"


def test_parameters_become_plain_tensors(tmp_path):
    torch.save({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "m.pt")
    found = TorchFile(tmp_path / "m.pt").tensor("w")
    assert type(found) is torch.Tensor
    assert not found.requires_grad


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(zipped, tmp_path):
    path, proof = tmp_path / "pytorch_model.bin", tmp_path / "proof"
    torch.save({"a": torch.ones(2), "b": Payload(proof)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError) as caught:
        TorchFile(path)
    assert "wants to import posix.system" in caught.value.what
    assert not proof.exists()
    torch.load(path, weights_only=False)  # the payload is a real one
    assert proof.exists()


def test_a_bare_pickle_is_not_run(tmp_path):
    path, proof = tmp_path / "m.bin", tmp_path / "proof"
    path.write_bytes(pickle.dumps(Payload(proof), protocol=2))
    with pytest.raises(WeightsError):
        TorchFile(path)
    assert not proof.exists()


def compressed(path, tensors) -> None:
    plain = io.BytesIO()
    torch.save(tensors, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))


TWO_DISKS = struct.pack("<4sLQL", b"PK\6\7", 1, 0, 2) + b"PK\5\6" + b"\0" * 18


def script(path) -> None:
    """What `torch.jit.save` leaves: an archive with a constants.pkl."""
    plain = io.BytesIO()
    torch.save({"a": torch.ones(2)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))
        new.writestr("archive/constants.pkl", pickle.dumps(()))


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path: path.write_bytes(b"hello"), "cannot be read"),
    "random": (lambda path: path.write_bytes(bytes(range(256)) * 9), "cannot be read"),
    "zip magic only": (lambda path: path.write_bytes(b"PK\3\4" + b"\0" * 99), "cannot be read"),
    "a zip on two disks": (lambda path: path.write_bytes(TWO_DISKS), "cannot be read"),
    "another zip": (lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "cannot be read"),
    "LFS pointer": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS",
    ),
    "compressed": (lambda path: compressed(path, {"a": torch.ones(9)}), "compressed archive"),
    "a tensor": (lambda path: torch.save(torch.ones(2), path), "holds a Tensor, not a dict"),
    "a list": (lambda path: torch.save([torch.ones(2)], path), "holds a list"),
    "a number": (lambda path: torch.save({"a": torch.ones(2), "b": 3}, path), "entry 'b' is a int"),
    "no name": (lambda path: torch.save({1: torch.ones(2)}, path), "entry '1' is a Tensor"),
    "two wrappers": (
        lambda path: torch.save({"model": {"a": torch.ones(2)}, "optimizer": [{"m": torch.ones(2)}]}, path),
        "under 'model', 'optimizer'",
    ),
    "deep wrapper": (
        lambda path: torch.save({"model": {"a": {"b": torch.ones(2)}}}, path),
        "entry 'a' is a dict",
    ),
    "TorchScript": (script, "a TorchScript program"),
    "numpy": (lambda path: torch.save({"a": np.ones(2)}, path), "wants to import numpy"),
    "a tensor larger than its file": (
        lambda path: torch.save({"a": torch.ones(1).expand(1 << 40)}, path),
        "4398046511104 bytes, in a file of",
    ),
    "sparse": (lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path), "torch.sparse_coo"),
    "meta": (lambda path: torch.save({"a": torch.ones(3, device="meta")}, path), "on meta"),
    "complex of 128 bits": (
        lambda path: torch.save({"a": torch.ones(3, dtype=torch.complex128)}, path),
        "complex128",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(name, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    BROKEN[name][0](path)
    with pytest.raises(WeightsError) as caught:
        TorchFile(path)
    assert BROKEN[name][1] in caught.value.what
    assert str(path) in caught.value.where
    assert caught.value.next


@pytest.mark.parametrize("zipped", [True, False])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 3000), value=st.integers(0, 255), cut=st.integers(0, 3000) | st.none())
def test_a_damaged_file_gives_an_error_or_tensors(zipped, at, value, cut, tmp_path):
    path = tmp_path / "m.bin"
    state = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data[:cut])
    try:
        file = TorchFile(path)
    except WeightsError:
        return
    for name in file.entries:
        file.tensor(name).sum()


@pytest.mark.skipif(page_counts(0, 0) is None, reason="needs /proc/self/pagemap")
def test_pages_are_released_unless_written_to(tmp_path):
    torch.save({"a": torch.ones(2 << 20), "b": torch.ones(2 << 20)}, tmp_path / "m.bin")
    before = (tmp_path / "m.bin").read_bytes()
    file = TorchFile(tmp_path / "m.bin")
    assert file.tensor("a").sum() == 2 << 20
    assert file.release("a") > 7 << 20
    assert file.tensor("a").sum() == 2 << 20
    file.tensor("b")[1 << 20] = 5
    assert (file.dirty("a"), file.dirty("b")) == (False, True)
    assert file.release("b") == 0
    assert file.tensor("b")[1 << 20] == 5
    assert (tmp_path / "m.bin").read_bytes() == before


def test_the_older_format_is_in_memory_and_nothing_is_released(tmp_path):
    torch.save({"a": torch.ones(2 << 20)}, tmp_path / "m.bin", _use_new_zipfile_serialization=False)
    file = TorchFile(tmp_path / "m.bin")
    assert file.release("a") == 0
    assert file.dirty("a") is None
    assert file.tensor("a").sum() == 2 << 20
