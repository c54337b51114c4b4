"""A folder of weights, read as one: a single file, or shards with an index, in either format.

Opening reads and checks the headers and the index. Safetensors shards are mapped when a tensor of theirs is
asked for, and nothing here needs torch before that; a `.bin` file has no header, so opening it needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from pellucid import gguf
from pellucid.errors import WeightsError, nearest
from pellucid.weights.pieces import opened
from pellucid.weights.safetensors import AGAIN, MAX_HEADER, Entry, SafetensorsFile, open_regular, parse_json
from pellucid.weights.torch_bin import TorchFile

if TYPE_CHECKING:
    from torch import Tensor

# In the order in which a folder that holds several is read.
NAMES = {
    "safetensors": ("model.safetensors", "model.safetensors.index.json"),
    "bin": ("pytorch_model.bin", "pytorch_model.bin.index.json"),
}
FOREIGN = {
    ".ggml": "llama.cpp weights of the format before GGUF",
    ".h5": "TensorFlow weights",
    ".msgpack": "Flax weights",
    ".ckpt": "a training checkpoint of TensorFlow or Lightning",
    ".onnx": "an ONNX graph",
    ".npz": "NumPy arrays",
}

WeightFile = SafetensorsFile | TorchFile


class Weights:
    """Tensors by their file names, over one or several files.

    Args:
        files: every file, in the order of their names.
        owner: tensor name -> its file, in the order in which `names` lists them.
    """

    def __init__(self, files: list[WeightFile], owner: Mapping[str, WeightFile]) -> None:
        self._files, self._owner = files, owner

    @property
    def names(self) -> list[str]:
        return list(self._owner)

    @property
    def files(self) -> list[Path]:
        return [file.path for file in self._files]

    @property
    def metadata(self) -> dict[str, str]:
        """What the files say about themselves; of two that disagree, the first."""
        return {key: value for file in reversed(self._files) for key, value in file.metadata.items()}

    @property
    def only_file(self) -> object:
        """The file, where there is one; None for shards."""
        return self._files[0] if len(self._files) == 1 else None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self.entry(name).nbytes for name in self._owner)

    def entry(self, name: str) -> Entry:
        """Dtype and shape, without reading the tensor."""
        return self._of(name).entries[name]

    def packed(self, name: str) -> bool:
        """Whether a tensor stays packed in memory (`quant/`)."""
        return False

    def tensor(self, name: str) -> Tensor:
        """The tensor, in the memory of the mapped file where that is possible."""
        return self._of(name).tensor(name)

    def file_of(self, name: str) -> Path:
        return self._of(name).path

    def release(self, name: str) -> int:
        """Drop a tensor's resident pages from this process, unless it was written to; bytes given back."""
        return self._of(name).release(name)

    def dirty(self, name: str) -> bool | None:
        """Whether somebody wrote to the tensor since it was opened; None where that cannot be known."""
        return self._of(name).dirty(name)

    def _of(self, name: str) -> WeightFile:
        if name not in self._owner:
            raise WeightsError(
                f"no tensor {name!r} among {len(self._owner)}",
                where=self.files[0].parent if self._files else "",
                next=nearest(name, self._owner) or "list them with `.names`",
            )
        return self._owner[name]


class Behind(Weights):
    """Other weights, changed: what a subclass says nothing of is theirs."""

    def __init__(self, of: Weights) -> None:
        self._of_files = of

    @property
    def names(self) -> list[str]:
        return self._of_files.names

    @property
    def files(self) -> list[Path]:
        return self._of_files.files

    @property
    def metadata(self) -> dict[str, str]:
        return self._of_files.metadata

    @property
    def only_file(self) -> object:
        return self._of_files.only_file

    @property
    def nbytes(self) -> int:
        return self._of_files.nbytes

    def entry(self, name: str) -> Entry:
        return self._of_files.entry(name)

    def packed(self, name: str) -> bool:
        return self._of_files.packed(name)

    def tensor(self, name: str) -> Tensor:
        return self._of_files.tensor(name)

    def file_of(self, name: str) -> Path:
        return self._of_files.file_of(name)

    def release(self, name: str) -> int:
        return self._of_files.release(name)

    def dirty(self, name: str) -> bool | None:
        return self._of_files.dirty(name)


def open_weights(folder: str | Path, *, prefer: Literal["safetensors", "bin"] | None = None) -> Weights:
    """The weights of a model folder, or of one file given by its path.

    Args:
        prefer: the format to read where a folder holds both; safetensors if not said. A folder that holds
            only the other is read all the same.

    Raises:
        WeightsError: if there are none, if a file is broken, or if the index and the shards disagree.
    """
    path = Path(folder)
    if _is(path, "file"):
        return _open_index(path) if path.name.endswith(".index.json") else _one(_open_file(path))
    for kind in sorted(NAMES, key=lambda kind: kind != prefer):
        single, index = (path / name for name in NAMES[kind])
        if _is(single, "file"):
            return _one(_open_file(single))
        if _is(index, "file"):
            return _open_index(index)
    if found := [child for child in path.glob("*.gguf") if _is(child, "file")] if _is(path, "dir") else []:
        if (one := gguf.standing_for(sorted(found))) is not None:
            return _one(_open_file(one))
        names = ", ".join(sorted(child.name for child in found))
        raise WeightsError(f"several GGUF files: {names}", where=path, next="say which: gguf_file='…'")
    raise _nothing(path)


def _one(file: WeightFile) -> Weights:
    return Weights([file], dict.fromkeys(file.entries, file))


def _open_file(path: Path) -> WeightFile:
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix in (".bin", ".pt", ".pth"):
        return TorchFile(path)
    if path.suffix == ".gguf":
        return opened(path)
    kind = FOREIGN.get(path.suffix, f"of an unknown kind ({path.suffix or 'no suffix'})")
    raise WeightsError(f"this file is {kind}", where=path, next="give a .safetensors, .gguf, .bin, .pt or .pth file")


def _open_index(path: Path) -> Weights:
    """Shards, where each tensor that the index names is in its shard, and no shard holds another."""
    shard_of = _weight_map(path)
    shards = sorted(set(shard_of.values()))
    missing = [shard for shard in shards if not _is(path.parent / shard, "file")]
    if missing:
        raise WeightsError(
            f"the shard {missing[0]!r}{_and(missing)} of {len(shards)} is missing",
            where=path,
            next="download it again",
        )
    files = {shard: _open_file(path.parent / shard) for shard in shards}
    for name, shard in shard_of.items():
        if name not in files[shard].entries:
            raise WeightsError(
                f"the index puts {name!r} into {shard!r}, which does not hold it", where=path, next=AGAIN
            )
    for shard, file in files.items():
        unnamed = [name for name in file.entries if name not in shard_of]
        if unnamed:
            raise WeightsError(
                f"holds {unnamed[0]!r}{_and(unnamed)}, which the index does not name",
                where=path.parent / shard,
                next="download the shards and the index again: they are of two different models",
            )
    return Weights(list(files.values()), {name: files[shard] for name, shard in shard_of.items()})


def _and(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if names[1:] else ""


def _weight_map(path: Path) -> dict[str, str]:
    """Tensor name -> shard. A shard lies in the index's folder or below, and is of the index's format."""
    with open_regular(path) as file:
        data = file.read(MAX_HEADER + 1)
    if len(data) > MAX_HEADER:
        raise WeightsError(f"an index of more than {MAX_HEADER} bytes", where=path, next=AGAIN)
    index: Any = parse_json(data, path)
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise WeightsError("no weight_map from tensor names to shards", where=path, next=AGAIN)
    suffix = Path(path.name.removesuffix(".index.json")).suffix
    for shard in set(shard_of.values()):
        parts = PurePosixPath(shard)
        if parts.is_absolute() or ".." in parts.parts or "\\" in shard or ":" in shard:
            raise WeightsError(
                f"the index names the shard {shard!r}, outside its folder",
                where=path,
                next="do not trust this model",
            )
        if parts.suffix != suffix:
            raise WeightsError(f"the index names the shard {shard!r}, not a {suffix} file", where=path, next=AGAIN)
    return shard_of


def _nothing(path: Path) -> WeightsError:
    """What was looked for, and what is there instead."""
    looked = ", ".join(name for names in NAMES.values() for name in names)
    if not _is(path, "dir"):
        return WeightsError("no such file or folder", where=path, next="check the path")
    held = sorted(child.name for child in path.iterdir())
    foreign = sorted({(suffix, FOREIGN[suffix]) for name in held if (suffix := Path(name).suffix) in FOREIGN})
    files = [name for name in held if Path(name).suffix in (".safetensors", ".bin", ".pt", ".pth")]
    what = f"no weights: looked for {looked}; the folder holds {', '.join(held[:20]) or 'nothing'}"
    if len(held) > 20:
        what += f" and {len(held) - 20} more"
    for suffix, kind in foreign:
        what += f"; {suffix} is {kind}"
    if files:
        advice = f"give the path of a file, such as {path / files[0]}, or download the missing index"
    elif foreign:
        advice = "download the model's .safetensors files, or convert these to safetensors"
    else:
        advice = "download the model again, with its weights"
    return WeightsError(what, where=path, next=advice)


def _is(path: Path, kind: Literal["file", "dir"]) -> bool:
    """`Path.is_file` and `is_dir` raise for some paths that cannot exist, such as ones that are too long."""
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except (OSError, ValueError):
        return False
