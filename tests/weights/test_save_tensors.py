"""Saving: readable by the library, never half done, and safe over the files it reads from."""

import json
import os
from collections.abc import Mapping

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from random_tensors import bits, some_tensors

from pellucid.errors import ArgumentError, WeightsError
from pellucid.weights.safetensors import page_counts
from pellucid.weights.save import replace_file, save_tensors
from pellucid.weights.source import open_weights


def model(value=1.0, count=4) -> dict[str, torch.Tensor]:
    return {f"layer.{i}": torch.full((8, 4), value + i) for i in range(count)}


def held(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(folder) -> dict[str, torch.Tensor]:
    weights = open_weights(folder)
    return {name: weights.tensor(name) for name in weights.names}


def same(ours, theirs) -> None:
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(ours[name]) == bits(tensor)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=some_tensors())
def test_what_is_saved_is_read_bit_for_bit_by_us_and_by_the_library(tensors, tmp_path):
    (path,) = save_tensors(tensors, tmp_path)
    same(read(tmp_path), tensors)
    theirs = safetensors.torch.load_file(path)
    same({name: theirs[name] for name in tensors}, tensors)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert all(entry.start % 8 == 0 for entry in map(open_weights(path).entry, tensors) if entry.dtype == "F64")


def test_views_and_odd_tensors_are_saved(tmp_path):
    base = torch.arange(24.0).view(4, 6)
    tensors = {
        "transposed": base.T,
        "step": base[::2, ::3],
        "expanded": torch.ones(1).expand(5),
        "tied": base,
        "tied again": base,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "bool": torch.tensor([True, False, True]),
        "conjugate": torch.tensor([1 + 2j], dtype=torch.complex64).conj(),
        "negative": torch.tensor([1 + 2j], dtype=torch.complex64).conj().imag,
        "scalar": torch.tensor(3.5),
        "pairs": torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    save_tensors(tensors, tmp_path / "new" / "folder")
    found = read(tmp_path / "new" / "folder")
    assert list(found) == list(tensors)
    assert bits(found.pop("pairs")) == b"\1\2\3\4"
    for name, tensor in found.items():
        assert torch.equal(tensor, tensors[name].detach()), name


def test_shards_are_named_and_indexed_as_the_reference_does(tmp_path):
    paths = save_tensors(model(), tmp_path, max_shard_size=256)
    assert [path.name for path in paths] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert held(tmp_path) == sorted(path.name for path in paths)
    index = json.loads(paths[-1].read_text())
    assert index["metadata"] == {"total_size": 512}
    assert index["weight_map"]["layer.2"] == "model-00002-of-00002.safetensors"
    same(read(tmp_path), model())
    assert all(os.stat(path).st_mode & 0o777 == 0o666 & ~umask() for path in paths)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_tensor_larger_than_a_shard_is_a_shard(tmp_path):
    assert len(save_tensors(model(), tmp_path, max_shard_size="1B")) == 5
    assert len(save_tensors(model(), tmp_path, max_shard_size="300")) == 3
    same(read(tmp_path), model())


@pytest.mark.parametrize("size", ["5GB", "5 gb", "10MiB", 512, "512", "512B", "1TiB"])
def test_sizes_that_hold_everything(size, tmp_path):
    assert [path.name for path in save_tensors(model(), tmp_path, max_shard_size=size)] == ["model.safetensors"]


@pytest.mark.parametrize("size", [0, -1, "", "GB", "5XB", "0.5GB", "5iB", True, None, "9" * 99])
def test_what_is_no_size_is_refused(size, tmp_path):
    with pytest.raises(ArgumentError, match="max_shard_size"):
        save_tensors(model(), tmp_path, max_shard_size=size)


@pytest.mark.parametrize("first", [64, 256, "5GB"])
@pytest.mark.parametrize("second", [64, 256, "5GB"])
def test_nothing_of_an_older_save_stays(first, second, tmp_path):
    for name in (
        "config.json",
        "model.safetensors.bak",
        "mymodel-00001-of-00009.safetensors",
        "pytorch_model.bin",
    ):
        (tmp_path / name).write_text("{}")
    save_tensors(model(1), tmp_path, max_shard_size=first)
    paths = save_tensors(model(2), tmp_path, max_shard_size=second)
    same(read(tmp_path), model(2))
    assert len(held(tmp_path)) == 4 + len(paths)


@pytest.mark.parametrize("size", [256, "5GB"])
def test_saving_into_the_folder_that_the_tensors_are_mapped_from(size, tmp_path):
    large = {name: tensor.repeat(1000, 1) for name, tensor in model().items()}
    save_tensors(large, tmp_path)
    weights = open_weights(tmp_path)
    tensors = {name: weights.tensor(name) for name in weights.names}
    tensors["layer.1"][0, 0] = -1
    for _ in range(2):
        save_tensors(tensors, tmp_path, max_shard_size=size)
        same(read(tmp_path), tensors)
    assert read(tmp_path)["layer.1"][0, 0] == -1
    assert weights.dirty("layer.0") in (False, None)
    assert weights.dirty("layer.1") in (True, None)


class Breaking(Mapping):
    """Tensors of which the last one fails when it is written."""

    def __init__(self, tensors, error) -> None:
        self.tensors, self.error, self.asked = tensors, error, 0

    def __getitem__(self, name):
        self.asked += 1
        if self.asked == 2 * len(self.tensors):
            raise self.error
        return self.tensors[name]

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)


@pytest.mark.parametrize("old", [256, "5GB"])
@pytest.mark.parametrize("new", [256, "5GB"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x"), OSError(28, "No space left on device")])
def test_an_interrupted_save_leaves_the_old_model(old, new, error, tmp_path):
    save_tensors(model(1), tmp_path, max_shard_size=old)
    before = {name: (tmp_path / name).read_bytes() for name in held(tmp_path)}
    with pytest.raises(WeightsError if isinstance(error, OSError) else type(error)):
        save_tensors(Breaking(model(2), error), tmp_path, max_shard_size=new)
    assert {name: (tmp_path / name).read_bytes() for name in held(tmp_path)} == before


@pytest.mark.parametrize("old", [256, "5GB"])
@pytest.mark.parametrize("new", [256, "5GB"])
def test_a_disk_that_is_full_leaves_the_old_model(old, new, tmp_path, monkeypatch):
    save_tensors(model(1), tmp_path, max_shard_size=old)
    before = held(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match="No space left"):
        save_tensors(model(2), tmp_path, max_shard_size=new)
    assert held(tmp_path) == before
    same(read(tmp_path), model(1))
    with pytest.raises(WeightsError, match="No space left"):
        save_tensors(model(2), tmp_path / "new", max_shard_size=new)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("old", [256, 128, "5GB"])
@pytest.mark.parametrize("new", [256, 128, "5GB"])
@pytest.mark.parametrize("stop", range(5))
def test_a_power_cut_between_two_renames_never_mixes_two_models(old, new, stop, tmp_path, monkeypatch):
    save_tensors(model(1), tmp_path, max_shard_size=old)
    done, rename = [], os.replace

    def cut(part, path):
        if len(done) == stop:
            raise OSError("power")
        done.append(path)
        rename(part, path)

    monkeypatch.setattr(os, "replace", cut)
    try:
        save_tensors(model(2), tmp_path, max_shard_size=new)
    except WeightsError as error:
        assert "power" in error.what
    try:
        found = read(tmp_path)
    except WeightsError as error:
        assert "no weights" in error.what
    else:
        same(found, model(found["layer.0"][0, 0].item()))


def test_tensors_without_a_place_in_the_format_are_refused(tmp_path):
    save_tensors(model(), tmp_path)
    for tensor in (
        torch.eye(3).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2, dtype=torch.complex128),
    ):
        with pytest.raises(WeightsError, match="tensor 'odd'"):
            save_tensors(model() | {"odd": tensor}, tmp_path)
    with pytest.raises(WeightsError, match="__metadata__"):
        save_tensors({"__metadata__": torch.ones(2)}, tmp_path)
    same(read(tmp_path), model())


class Made(Mapping):
    """Tensors of 32 MB that exist only while somebody holds them."""

    def __getitem__(self, name):
        return torch.full((8 << 20,), float(name))

    def __iter__(self):
        return iter(["0", "1", "2", "3", "4", "5"])

    def __len__(self):
        return 6


@pytest.mark.skipif(page_counts(0, 0) is None, reason="needs /proc")
def test_peak_memory_is_one_tensor(tmp_path):
    reset_peak()
    before = peak()
    save_tensors(Made(), tmp_path)
    assert peak() - before < 1.5 * (32 << 20)
    assert open_weights(tmp_path).tensor("5")[7] == 5


def reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak() -> int:
    """Bytes: the most memory that this process had since `reset_peak`."""
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def test_replace_file(tmp_path):
    path = tmp_path / "config.json"
    replace_file(path, "ä")
    assert path.read_bytes() == b"\xc3\xa4"
    replace_file(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert held(tmp_path) == ["config.json"]
    with pytest.raises(TypeError):
        replace_file(path, 3)
    assert path.read_bytes() == b"new"
