"""Writer for .safetensors: tensor by tensor, beside the old files, replaced when everything is on disk.

An interrupted save leaves the old model as it was. Saving into the folder that the tensors are mapped from
works: a mapped file that is replaced stays readable until it is unmapped. The format: see `safetensors.py`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pellucid.errors import ArgumentError, WeightsError
from pellucid.weights.safetensors import DTYPES, MAX_HEADER, Entry, describe

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
ALIGN = 64  # bytes; where the tensors begin, a cache line
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def save_tensors(
    tensors: Mapping[str, Tensor],
    folder: str | Path,
    *,
    max_shard_size: int | str = "50GB",
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write `model.safetensors`, or shards with an index, and remove what an older save left over.

    Peak memory is one tensor, and none for a contiguous one on the CPU. Tied tensors are each written. The
    mapping is read twice, tensor by tensor, so that it may make them as they are asked for.

    Args:
        max_shard_size: bytes, or text such as "5GB" (decimal) or "5GiB"; one larger tensor is a shard alone.
        metadata: {"format": "pt"} if not said, which transformers asks for.

    Returns:
        the files written; of shards, the index last.

    Raises:
        ArgumentError: if `max_shard_size` is not a size.
        WeightsError: if a tensor has no place in the format, or the disk is full; the old files are intact.
    """
    folder = Path(folder)
    shards = _plan(tensors, _bytes(max_shard_size))
    names = [SINGLE] if len(shards) == 1 else [_shard_name(i, len(shards)) for i in range(1, len(shards) + 1)]
    paths = [folder / name for name in names] + [folder / INDEX] * (len(shards) > 1)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside(paths) as files:
            for file, shard in zip(files, shards):
                _write(file, shard, tensors, {"format": "pt"} if metadata is None else metadata)
            if len(shards) > 1:
                files[-1].write(_index(shards, names))
        for path in folder.iterdir():
            if OURS.fullmatch(path.name) and path not in paths:
                path.unlink()
    except OSError as error:
        if new:
            with suppress(OSError):  # what others put there stays
                folder.rmdir()
        raise WeightsError(
            f"the save failed: {error.strerror or error}",
            where=error.filename or folder,
            next="check the free space and the permissions there",
        ) from error
    return paths


def save_file(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write one file beside the old one and rename it.

    Raises:
        WeightsError: as `save_tensors`.
    """
    shard = _placed([_entry(name, tensor) for name, tensor in tensors.items()])
    try:
        with beside([Path(path)]) as files:
            _write(files[0], shard, tensors, metadata)
    except OSError as error:
        raise WeightsError(
            f"the save failed: {error.strerror or error}", where=path, next="check the free space and the permissions"
        ) from error


def replace_file(path: str | Path, data: bytes | str) -> None:
    """Write a file beside the old one and rename it: a reader sees the old one or the new one."""
    with beside([Path(path)]) as (file,):
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def beside(paths: list[Path]) -> Iterator[list[BinaryIO]]:
    """Files to write that take the place of `paths` when the block ends, and vanish if it fails.

    Of several, the last one names the others: its old version goes before they come. A power cut between two
    renames then leaves a folder without an index, which does not load, never one with tensors of two saves.
    """
    mark = f".{os.getpid()}-{secrets.token_hex(4)}.part"
    parts = [path.with_name(f".{path.name}{mark}") for path in paths]
    files: list[BinaryIO] = []
    try:
        for part in parts:
            files.append(open(part, "xb"))  # noqa: SIM115 (closed below)
        yield files
        for file in files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if len(paths) > 1:
            paths[-1].unlink(missing_ok=True)
        for part, path in zip(parts, paths):
            os.replace(part, path)
        for folder in {path.parent for path in paths}:
            _sync_folder(folder)
    finally:
        for file, part in zip(files, parts):
            with suppress(OSError):  # what is left in the buffer of a full disk
                file.close()
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A rename is on disk when its folder is. Windows cannot open a folder, and does this by itself."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plan(tensors: Mapping[str, Tensor], limit: int) -> list[list[Entry]]:
    """Shards of at most `limit` bytes, in the order given; offsets count from the shard's first tensor."""
    shards: list[list[Entry]] = [[]]
    held = 0
    for name in tensors:
        entry = _entry(name, tensors[name])
        if shards[-1] and held + entry.nbytes > limit:
            shards.append([])
            held = 0
        shards[-1].append(entry)
        held += entry.nbytes
    return [_placed(shard) for shard in shards]


def _entry(name: str, tensor: Tensor) -> Entry:
    if name == "__metadata__":
        raise WeightsError("a tensor cannot be called '__metadata__'", next="rename it")
    dtype, shape = describe(tensor, f"tensor {name!r}")
    return Entry(name, dtype, shape, 0, tensor.numel() * tensor.element_size())


def _placed(shard: list[Entry]) -> list[Entry]:
    """The same entries with their offsets: larger elements lie first, so that all are aligned."""
    starts, end = {}, 0
    for entry in sorted(shard, key=lambda entry: -DTYPES[entry.dtype][0]):
        starts[entry.name] = end
        end += entry.nbytes
    return [replace(entry, start=starts[entry.name], stop=starts[entry.name] + entry.nbytes) for entry in shard]


def _write(file: BinaryIO, shard: list[Entry], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """One shard: the header in the order given, then the values in the order of their offsets."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry in shard:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": (entry.start, entry.stop),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGN)
    if len(text) > MAX_HEADER:
        raise WeightsError(f"a header of {len(text)} bytes; the limit is {MAX_HEADER}", next="use smaller shards")
    file.write(len(text).to_bytes(8, "little") + text)
    for entry in sorted(shard, key=lambda entry: entry.start):
        _write_tensor(file, entry, tensors[entry.name])


def _write_tensor(file: BinaryIO, entry: Entry, tensor: Tensor) -> None:
    """The values, row-major; what is not contiguous or not on the CPU is copied first."""
    if describe(tensor, f"tensor {entry.name!r}") != (entry.dtype, entry.shape):
        raise WeightsError(f"tensor {entry.name!r} changed its dtype or shape during the save", next="save again")
    write_values(file, tensor)


def write_values(file: BinaryIO, tensor: Tensor) -> None:
    """The bytes of a tensor, row-major."""
    import torch

    if tensor.numel():
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        flat = plain.as_strided((plain.numel(),), (1,))  # `view` keeps the stride of a single element
        file.write(flat.view(torch.uint8).numpy().data)


def _index(shards: list[list[Entry]], names: list[str]) -> bytes:
    total = sum(entry.nbytes for shard in shards for entry in shard)
    weight_map = {entry.name: name for shard, name in zip(shards, names) for entry in shard}
    return (json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n").encode()


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _bytes(size: int | str) -> int:
    found = re.fullmatch(r"(\d{1,18}) *([KMGT]I?B|B?)", str(size).upper())
    count = int(found[1]) * UNITS[found[2]] if found else 0
    if count < 1:
        raise ArgumentError(
            f"max_shard_size is {size!r}", where="save", next='give bytes, or text such as "5GB" or "500MiB"'
        )
    return count
