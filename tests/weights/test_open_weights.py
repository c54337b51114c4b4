"""Opening a folder: which files are read, and what an index may say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pellucid.errors import WeightsError
from pellucid.weights.source import open_weights

SHARDS = {
    "model-00001-of-00002.safetensors": {"z": torch.ones(2), "b": torch.zeros(3)},
    "model-00002-of-00002.safetensors": {"a": torch.arange(4)},
}
WEIGHT_MAP = {name: shard for shard, tensors in SHARDS.items() for name in tensors}


def sharded(folder: Path, weight_map=WEIGHT_MAP, shards=SHARDS) -> Path:
    for shard, tensors in shards.items():
        save_file(tensors, folder / shard, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 52}, "weight_map": weight_map})
    )
    return folder


def test_shards_are_one_source(tmp_path):
    weights = open_weights(sharded(tmp_path))
    assert weights.names == ["z", "b", "a"]
    assert weights.nbytes == 8 + 12 + 32
    assert [path.name for path in weights.files] == list(SHARDS)
    assert weights.metadata == {"format": "pt"}
    assert weights.entry("a").dtype == "I64"
    assert weights.file_of("a") == tmp_path / "model-00002-of-00002.safetensors"
    assert weights.tensor("a").tolist() == [0, 1, 2, 3]
    weights.tensor("b")[0] = 1
    assert weights.dirty("b") in (True, None)
    assert weights.dirty("z") in (False, None)
    assert weights.release("a") == 0
    assert open_weights(tmp_path / "model.safetensors.index.json").names == weights.names


def test_a_shard_is_mapped_when_a_tensor_is_asked_for(tmp_path):
    weights = open_weights(sharded(tmp_path))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert weights.tensor("z").sum() == 2
    with pytest.raises(WeightsError):
        weights.tensor("a")


def test_torch_shards_are_one_source(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.zeros(3)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    weights = open_weights(tmp_path)
    assert weights.names == ["a", "b"]
    assert weights.tensor("b").tolist() == [0, 0, 0]
    assert weights.nbytes == 20


def test_which_file_is_read(tmp_path):
    torch.save({"from_bin": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert open_weights(tmp_path).names == ["from_bin"]
    assert open_weights(tmp_path, prefer="safetensors").names == ["from_bin"]
    save_file({"from_safetensors": torch.ones(1)}, tmp_path / "model.safetensors")
    assert open_weights(tmp_path).names == ["from_safetensors"]
    assert open_weights(str(tmp_path), prefer="bin").names == ["from_bin"]
    sharded(tmp_path)
    assert open_weights(tmp_path).names == ["from_safetensors"]
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    assert open_weights(tmp_path / "other.safetensors").names == ["other"]


def test_an_unknown_tensor_is_named(tmp_path):
    with pytest.raises(WeightsError, match="did you mean 'lm_head.weight'"):
        save_file({"lm_head.weight": torch.ones(1)}, tmp_path / "model.safetensors")
        open_weights(tmp_path).tensor("lm_haed.weight")


BAD_INDEX = {
    "not JSON": (b"hello", "JSON cannot be read"),
    "a list": (b"[]", "no weight_map"),
    "no map": (b"{}", "no weight_map"),
    "a list as map": (b'{"weight_map": []}', "no weight_map"),
    "a number as shard": (b'{"weight_map": {"a": 1}}', "no weight_map"),
    "a tensor twice": (b'{"weight_map": {"a": "x", "a": "y"}}', "'a' appears twice"),
    "deep": (b"[" * 100_000, "nests too deeply"),
    "up": (b'{"weight_map": {"a": "../x.safetensors"}}', "outside its folder"),
    "down and up": (b'{"weight_map": {"a": "b/../../x.safetensors"}}', "outside its folder"),
    "absolute": (b'{"weight_map": {"a": "/etc/x.safetensors"}}', "outside its folder"),
    "backslash": (b'{"weight_map": {"a": "..\\\\x.safetensors"}}', "outside its folder"),
    "drive": (b'{"weight_map": {"a": "c:x.safetensors"}}', "outside its folder"),
    "a pickle": (b'{"weight_map": {"a": "x.bin"}}', "not a .safetensors file"),
    "no name": (b'{"weight_map": {"a": ""}}', "not a .safetensors file"),
    "a zero byte": (b'{"weight_map": {"a": "x\\u0000.safetensors"}}', "is missing"),
    "a long name": (b'{"weight_map": {"a": "%s.safetensors"}}' % (b"x" * 5000), "is missing"),
}


@pytest.mark.parametrize("name", BAD_INDEX)
def test_a_bad_index_is_refused(name, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(BAD_INDEX[name][0])
    with pytest.raises(WeightsError) as caught:
        open_weights(tmp_path)
    assert BAD_INDEX[name][1] in caught.value.what
    assert caught.value.where.endswith("index.json")


def test_missing_shards_are_counted(tmp_path):
    sharded(
        tmp_path,
        WEIGHT_MAP | {"c": "model-00003-of-00004.safetensors", "d": "model-00004-of-00004.safetensors"},
    )
    with pytest.raises(WeightsError, match="'model-00003-of-00004.safetensors' and 1 more of 4 is missing"):
        open_weights(tmp_path)


def test_a_tensor_that_its_shard_does_not_hold_is_named(tmp_path):
    sharded(tmp_path, WEIGHT_MAP | {"c": "model-00001-of-00002.safetensors"})
    with pytest.raises(WeightsError, match="puts 'c' into 'model-00001-of-00002.safetensors'"):
        open_weights(tmp_path)


def test_a_tensor_that_the_index_does_not_name_is_named(tmp_path):
    sharded(tmp_path, {name: shard for name, shard in WEIGHT_MAP.items() if name != "b"})
    with pytest.raises(WeightsError, match="holds 'b', which the index does not name"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("held", "what", "advice"),
    [
        ([], "the folder holds nothing", "download the model again"),
        (["config.json"], "holds config.json", "download the model again"),
        (["model-q4.ggml"], ".ggml is llama.cpp weights of the format before GGUF", "convert these"),
        (["tf_model.h5", "flax_model.msgpack"], ".msgpack is Flax weights", "convert these"),
        (["model-00001-of-00002.safetensors"], "holds model-00001-of-00002.safetensors", "missing index"),
        ([f"{i:02}.txt" for i in range(30)], "and 10 more", "download the model again"),
    ],
)
def test_a_folder_without_weights_says_what_it_holds(held, what, advice, tmp_path):
    for name in held:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError) as caught:
        open_weights(tmp_path)
    assert "looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin" in caught.value.what
    assert what in caught.value.what
    assert advice in caught.value.next


def test_a_path_that_is_no_weight_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"")
    for path, what in ((tmp_path / "m.onnx", "an ONNX graph"), (tmp_path / "none", "no such file")):
        with pytest.raises(WeightsError, match=what):
            open_weights(path)
