"""Reader for .bin, .pt and .pth: what `torch.save` wrote, through torch's own reader that runs no code.

A pickle is a program. torch's weights-only reader executes the handful of instructions that build tensors and
refuses every other import; what it refuses is refused here.
Source: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import WeightsError
from pellucid.weights.safetensors import AGAIN, Entry, describe, open_regular, page_counts, release_pages

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("state_dict", "model")


class TorchFile:
    """One file, with the same interface as `SafetensorsFile`. The whole pickle is read at once.

    Tensors of the zip format (torch 1.6 and later) stay in the mapped file, older ones are read into memory.
    An entry's `start` is 0: these files have no offsets of their own.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._mapped, loaded = _load(self.path)
        self._tensors = _state_dict(loaded, self.path)
        size = self.path.stat().st_size
        self.entries: dict[str, Entry] = {}
        for name, tensor in self._tensors.items():
            where, nbytes = f"{self.path}: {name[:200]!r}", tensor.numel() * tensor.element_size()
            dtype, shape = describe(tensor, where)
            if nbytes > size:  # strides of 0 make a tensor of any size from one value
                raise WeightsError(f"{nbytes} bytes, in a file of {size}", where=where, next=AGAIN)
            self.entries[name] = Entry(name, dtype, shape, 0, nbytes)
        self.metadata: dict[str, str] = {"format": "pt"}

    def tensor(self, name: str) -> Tensor:
        """The tensor; tensors that share memory in the file share it here. KeyError if there is none."""
        return self._tensors[name]

    def release(self, name: str) -> int:
        """Drop a tensor's resident pages, unless it was written to; bytes given back. See `release_pages`."""
        return release_pages(*self._span(name)) if self._mapped else 0

    def dirty(self, name: str) -> bool | None:
        """Whether somebody wrote to the tensor, or to a neighbour in the same page; None if unknown."""
        counts = page_counts(*self._span(name)) if self._mapped else None
        return None if counts is None else counts[1] > 0

    def _span(self, name: str) -> tuple[int, int]:
        """Address and bytes of the tensor's whole storage."""
        storage = self._tensors[name].untyped_storage()
        return storage.data_ptr(), storage.nbytes()


def _load(path: Path) -> tuple[bool, Any]:
    """Whether the tensors are mapped, and the object in the file."""
    import torch

    try:
        with open_regular(path) as file:
            mapped = zipfile.is_zipfile(file)
        if mapped:
            _check_archive(path)
        return mapped, torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise _refused(error, path) from None


def _check_archive(path: Path) -> None:
    """torch never writes a compressed archive, and would map the compressed bytes as if they were values."""
    with zipfile.ZipFile(path) as archive:
        packed = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise WeightsError(
            f"a compressed archive (record {packed[0]!r})",
            where=path,
            next="unpack and zip it again with `zip -0`",
        )


def _refused(error: Exception, path: Path) -> WeightsError:
    """torch's message without its advice, which is to load the file with its code."""
    text = str(error)
    wanted = re.search(r"\bGLOBAL ([\w.]+)", text)
    if wanted:
        return WeightsError(
            f"the pickle wants to import {wanted[1]}, which is code; it was not loaded",
            where=path,
            next="use the model's .safetensors files, or ask its author for them",
        )
    if "TorchScript" in text:
        return WeightsError("a TorchScript program, not a state dict", where=path, next="save the state dict")
    reason = re.sub(r"(?s).*WeightsUnpickler error:|Please file an issue.*", "", text).strip()
    first = reason.splitlines()[0][:200] if reason else "no message"
    return WeightsError(f"cannot be read: {type(error).__name__}: {first}", where=path, next=AGAIN)


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The flat dict of tensors: the whole file, or the one wrapper in it that holds every tensor."""
    from torch import Tensor

    found = loaded
    if isinstance(loaded, dict) and not any(isinstance(value, Tensor) for value in loaded.values()):
        holders = [key for key, value in loaded.items() if _holds_tensor(value)]
        if len(holders) == 1 and holders[0] in WRAPPERS:
            found = loaded[holders[0]]
        elif holders:
            raise WeightsError(
                f"tensors under {', '.join(map(repr, holders[:8]))}: which are the weights?",
                where=path,
                next="save the state dict alone",
            )
    if not isinstance(found, dict):
        raise WeightsError(
            f"holds a {type(found).__name__}, not a dict of tensors", where=path, next="save the state dict"
        )
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"the entry {str(name)[:100]!r} is a {type(value).__name__}, not a tensor with a name",
                where=path,
                next="save the state dict alone",
            )
    return {name: value.detach() for name, value in found.items()}


def _holds_tensor(value: Any) -> bool:
    """Whether there is a tensor anywhere inside; the containers may contain themselves."""
    from torch import Tensor

    waiting, seen = [value], set()
    while waiting:
        here = waiting.pop()
        if isinstance(here, Tensor):
            return True
        if isinstance(here, dict | list | tuple | set) and id(here) not in seen:
            seen.add(id(here))
            waiting.extend(here.values() if isinstance(here, dict) else here)
    return False
