"""The tensors of a GGUF file, mapped like those of safetensors (`pellucid/gguf.py` reads the header).

A tensor of plain numbers is itself. One of packed blocks is its bytes here, [..., bytes of a row]: its entry has the
shape of the numbers and the name of the kind ("Q4_K"), and `quant/gguf.py` knows what they mean. A few parameters are
arrays of the metadata, with a number for each layer: they are tensors here too, under the names of their keys.
"""

from __future__ import annotations

import math
import struct
import sys
import threading
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid import gguf
from pellucid.errors import Unsupported, WeightsError
from pellucid.weights.safetensors import DTYPES, Entry, SafetensorsFile, _identity, open_regular
from pellucid.weights.save import beside, write_values

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".gguf"
# Keys of metadata that are trained numbers: those of Apertus' activation.
KEPT_IN_METADATA = ("xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps")


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
        for key in KEPT_IN_METADATA:
            values = self.header.metadata.get(key)
            if isinstance(values, array) and values.typecode == "f":
                stop = self.header.entries[key].stop  # which the array is the end of
                self.entries[key] = Entry(key, "F32", (len(values),), stop - 4 * len(values), stop)
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

    def metadata_bytes(self, without: Collection[str] = (), numbers: Mapping[str, Tensor] | None = None) -> bytes:
        """The entries as they are in the file, for another one of version 3; but for some keys.

        Args:
            numbers: of KEPT_IN_METADATA, in the place of the file's.
        """
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
        for key, values in (numbers or {}).items():
            begin, stop = self.entries[key].start, self.entries[key].stop
            data = data[:begin] + struct.pack(f"<{len(values)}f", *values.tolist()) + data[stop:]
        if not without:
            return data[24:]
        return b"".join(data[where] for key, where in self.header.entries.items() if key not in without)

    def __deepcopy__(self, memo: object) -> GgufFile:
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.path,)


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: what the header says of it, and how its numbers or the bytes of its blocks are made."""

    name: str
    kind: str  # a name of TENSOR_TYPES
    shape: tuple[int, ...]  # of the numbers
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        block = KINDS[self.kind][1]
        return math.prod(self.shape) // block.block * block.nbytes


KINDS = {kind.name: (number, kind) for number, kind in gguf.TENSOR_TYPES.items()}


def write(
    path: Path, like: GgufFile, tensors: Mapping[str, tuple[str, tuple[int, ...], Tensor]], *, alignment: int
) -> None:
    """A file with the metadata of another, byte for byte, beside the old one and renamed.

    Args:
        tensors: name -> kind, shape of the numbers, and the numbers or the bytes of blocks. Read twice, one at a time.

    Raises:
        WeightsError: the disk is full, or the file cannot be written.
    """
    numbers = {name: tensors[name][2] for name in tensors if name in KEPT_IN_METADATA}
    planned = [
        Planned(name, kind, shape, lambda name=name: tensors[name][2])  # type: ignore[misc]  # bound here
        for name, (kind, shape, _) in tensors.items()
        if name not in numbers
    ]
    entries = like.metadata_bytes(numbers=numbers)
    write_planned(path, entries, len(like.header.metadata), planned, alignment=alignment)


def write_planned(
    path: Path,
    entries: bytes,
    count: int,
    tensors: Sequence[Planned],
    *,
    alignment: int = gguf.DEFAULT_ALIGNMENT,
    wrote: Callable[[Planned], None] = lambda tensor: None,
) -> None:
    """A file, written beside the old one and renamed; each tensor is made when it is its turn, and forgotten.

    Args:
        entries: of the metadata (`metadata_bytes`), `count` of them.
        wrote: told of each tensor; what it raises ends the writing, and the old file stays.

    Raises:
        WeightsError: the disk is full, or the file cannot be written.
    """
    infos, offset = bytearray(), 0
    for tensor in tensors:
        infos += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        infos += struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
        infos += struct.pack("<IQ", KINDS[tensor.kind][0], offset)
        offset += -(-tensor.nbytes // alignment) * alignment
    head = gguf.MAGIC + struct.pack("<IQQ", 3, len(tensors), count) + entries + infos
    try:
        with beside([Path(path)]) as (file,):
            file.write(head)
            for tensor in tensors:
                file.write(b"\0" * (-file.tell() % alignment))
                begin = file.tell()
                write_values(file, tensor.make())
                assert file.tell() - begin == tensor.nbytes, tensor.name
                wrote(tensor)
            file.write(b"\0" * (-file.tell() % alignment))
    except OSError as error:
        raise WeightsError(
            f"the save failed: {error.strerror or error}", where=path, next="check the free space and the permissions"
        ) from error


def metadata_bytes(metadata: Mapping[str, gguf.Value]) -> bytes:
    """Entries of a file. An int is u32 where it can be, else i32 or 64 bits wide; a float is f32; arrays keep theirs.

    Raises:
        TypeError: a value that has no form there.
    """
    return b"".join(_text(key) + _value(value) for key, value in metadata.items())


def _text(text: str) -> bytes:
    data = text.encode("utf-8", gguf.ERRORS)
    return struct.pack("<Q", len(data)) + data


def _value(value: gguf.Value) -> bytes:
    """Type and value."""
    numbers = {letter: kind for kind, letter in gguf.LETTERS.items()}
    match value:
        case bool():
            return struct.pack("<I?", numbers["?"], value)
        case int():
            letter = next(each for each, low, high in _INTS if low <= value < high)
            return struct.pack(f"<I{letter}", numbers[letter], value)
        case float():
            return struct.pack("<If", numbers["f"], value)
        case str():
            return struct.pack("<I", gguf.STRING) + _text(value)
        case array():
            data = value if sys.byteorder == "little" else array(value.typecode, value)
            if sys.byteorder != "little":
                data.byteswap()
            return struct.pack("<IIQ", gguf.ARRAY, numbers[value.typecode], len(value)) + data.tobytes()
        case list() if all(type(each) is str for each in value):
            return struct.pack("<IIQ", gguf.ARRAY, gguf.STRING, len(value)) + b"".join(map(_text, value))
        case list() if all(type(each) is bool for each in value):
            return struct.pack("<IIQ", gguf.ARRAY, numbers["?"], len(value)) + bytes(value)
    raise TypeError(f"{value!r:.80} has no form in a GGUF file")


_INTS = (("I", 0, 2**32), ("i", -(2**31), 0), ("Q", 0, 2**64), ("q", -(2**63), 0))
