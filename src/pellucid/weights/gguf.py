"""The tensors of a GGUF file, mapped like those of safetensors (`pellucid/gguf.py` reads the header).

A tensor of plain numbers is itself. One of packed blocks is its bytes here, [..., bytes of a row]: its entry has the
shape of the numbers and the name of the kind ("Q4_K"), and `quant/gguf.py` knows what they mean.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid import gguf
from pellucid.errors import Unsupported, WeightsError
from pellucid.weights.safetensors import DTYPES, Entry, SafetensorsFile, _identity, open_regular
from pellucid.weights.save import beside, write_values

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".gguf"


class GgufFile(SafetensorsFile):
    """One file. `header` is all that it says of itself.

    Raises:
        WeightsError: see `gguf.read`.
        Unsupported: tensors of the other byte order, or of a type that is not known.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.header = gguf.read(path)
        with open_regular(self.path) as file:
            self._seen = _identity(file)
        if self.header.byte_order == "big" and self.header.tensors:
            next = "convert the model again, on a machine of the usual byte order"
            raise Unsupported("the tensors are big-endian", where=path, next=next)
        self.entries = {}
        for name, tensor in self.header.tensors.items():
            if tensor.kind not in gguf.TENSOR_TYPES:
                what = f"tensor {name!r:.100} has the type {tensor.kind}, which is newer than this version"
                raise Unsupported(what, where=path, next="use a newer version, or a file of another kind")
            stop = tensor.start + tensor.nbytes
            self.entries[name] = Entry(name, tensor.type.name, tensor.shape, tensor.start, stop)
        self.metadata = {"format": "gguf"}
        self._lock = threading.Lock()
        self._private = self._clean = None
        self._address = 0

    def tensor(self, name: str) -> Tensor:
        """The numbers, or the bytes of blocks; in the memory of the mapped file."""
        if self.entries[name].dtype in DTYPES:
            return super().tensor(name)
        import torch

        entry, kind = self.entries[name], self.header.tensors[name].type
        shape = (*entry.shape[:-1], entry.shape[-1] // kind.block * kind.nbytes)
        if entry.nbytes == 0:
            return torch.empty(shape, dtype=torch.uint8)
        return torch.frombuffer(self._map(), dtype=torch.uint8, count=entry.nbytes, offset=entry.start).view(shape)

    def _is_copied(self, entry: Entry) -> bool:
        return entry.dtype in DTYPES and super()._is_copied(entry)

    @property
    def whole_name(self) -> str:
        """What a file of all its tensors is called."""
        return self.path.name

    def metadata_bytes(self, without: Collection[str] = ()) -> bytes:
        """The entries as they are in the file, for another one of version 3; but for some keys."""
        if self.header.version == 1:
            next = "convert the model again"
            raise Unsupported("the metadata of version 1 is not written", where=self.path, next=next)
        with open_regular(self.path) as file:
            same = _identity(file) == self._seen
            data = (
                file.read(self.header.metadata_end)
                if same
                else bytes(memoryview(self._map())[: self.header.metadata_end])
            )
        if not without:
            return data[24:]
        return b"".join(data[where] for key, where in self.header.entries.items() if key not in without)

    def __deepcopy__(self, memo: object) -> GgufFile:
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.path,)


def write(
    path: Path, like: GgufFile, tensors: Mapping[str, tuple[str, tuple[int, ...], Tensor]], *, alignment: int
) -> None:
    """A file with the metadata of another, byte for byte, beside the old one and renamed.

    Args:
        tensors: name -> kind, shape of the numbers, and the numbers or the bytes of blocks. Read twice, one at a time.

    Raises:
        WeightsError: the disk is full, or the file cannot be written.
    """
    kinds = {kind.name: (number, kind) for number, kind in gguf.TENSOR_TYPES.items()}
    infos, offset = bytearray(), 0
    for name, (kind, shape, _) in tensors.items():
        number, block = kinds[kind]
        text = name.encode("utf-8", gguf.ERRORS)
        infos += struct.pack("<Q", len(text)) + text + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", number, offset)
        offset += -(-(math.prod(shape) // block.block * block.nbytes) // alignment) * alignment
    entries = like.metadata_bytes()
    head = gguf.MAGIC + struct.pack("<IQQ", 3, len(tensors), len(like.header.metadata)) + entries + infos
    try:
        with beside([Path(path)]) as (file,):
            file.write(head)
            for _, _, tensor in tensors.values():
                file.write(b"\0" * (-file.tell() % alignment))
                write_values(file, tensor)
            file.write(b"\0" * (-file.tell() % alignment))
    except OSError as error:
        raise WeightsError(
            f"the save failed: {error.strerror or error}", where=path, next="check the free space and the permissions"
        ) from error
