"""Reader for GGUF, llama.cpp's container: metadata, then a directory of tensors, then their bytes.

    4 bytes   "GGUF"
    u32       version, 1 to 3; its byte order is the file's (big-endian since version 3)
    u64 u64   number of tensors, number of metadata entries (u32 u32 in version 1, as are all counts and lengths)
    entries   key, type, value; an array is the type of its elements, their number, and the elements
    tensors   name, number of dimensions, dimensions (the fastest first), type, offset from the start of the data
    padding   to a multiple of general.alignment, 32 unless stated; then the data

The file is mapped, not read, and every length is checked against it before anything is made of it: memory is a small
multiple of the metadata. Needs no torch and no numpy. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import os
import re
import stat
import struct
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pellucid.errors import Unsupported, WeightsError

MAGIC = b"GGUF"
MAX_HEADER = 256 << 20  # bytes before the tensors' data; the largest known has 16 MB (a vocabulary of 262,144)
MAX_NESTING = 8  # arrays of arrays; no known file has any
MAX_DIMS = 4  # as in ggml.h
DEFAULT_ALIGNMENT = 32
AGAIN = "download the file again: it is cut short or damaged"

# Value types of the metadata: the letter of each fixed-size type, for `struct` and `array`.
LETTERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# A string is text; bytes that are no UTF-8 are in it as Python writes them with this error handler, so none is lost.
ERRORS = "surrogateescape"
Value = Any  # bool | int | float | str | list[str] | array[int] | array[float] | list[bool] | list of these


class TensorType(NamedTuple):
    """`block` elements take `nbytes` bytes."""

    name: str
    block: int
    nbytes: int


# ggml.h (enum ggml_type) and ggml-common.h (the blocks). 4, 5, 31 to 33 and 36 to 38 are no longer in use.
TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}


KINDS = frozenset(kind.name for kind in TENSOR_TYPES.values())


@dataclass(frozen=True)
class Tensor:
    """One tensor of the directory.

    shape: as in numpy and torch, the fastest dimension last (the file has it first).
    kind: a key of TENSOR_TYPES, or the number of a type that is not known here.
    start: byte offset from the beginning of the file.
    file: the piece that it is in, where `read_whole` read several.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    file: Path | None = None

    @property
    def type(self) -> TensorType:
        """Raises Unsupported for a type that is not known here."""
        if self.kind not in TENSOR_TYPES:
            known = ", ".join(each.name for each in TENSOR_TYPES.values())
            raise Unsupported(f"tensor {self.name!r} has the type {self.kind}", next=f"known are {known}")
        return TENSOR_TYPES[self.kind]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.type.block * self.type.nbytes


@dataclass(frozen=True)
class Gguf:
    """What a file holds, in its order.

    byte_order: "little" or "big"; of the tensors' data as well.
    data_offset: where the tensors' data begins; the file may end before if it has no tensors.
    """

    version: int
    byte_order: Literal["little", "big"]
    metadata: dict[str, Value]
    tensors: dict[str, Tensor]
    alignment: int
    data_offset: int
    metadata_end: int = 24  # byte behind the last entry: what is before it can be copied to another file
    entries: dict[str, slice] = field(default_factory=dict)  # the bytes of each entry of the metadata


def is_gguf(path: str | Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with open(path, "rb") as file:
        return file.read(4) == MAGIC


def read(path: str | Path) -> Gguf:
    """The metadata and the directory of tensors of one file.

    Raises:
        WeightsError: the file cannot be read, is not a GGUF file, is cut off, or contradicts itself.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device could block, or go on for ever
            raise WeightsError("not a regular file", where=path, next="give the path of a .gguf file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 24 and file.read(4) != MAGIC:
                raise WeightsError(f"{size} bytes, and not GGUF", where=path, next="give the path of a .gguf file")
            with mmap.mmap(file.fileno(), min(size, MAX_HEADER), access=mmap.ACCESS_READ) as data:
                return _Reader(data, size).gguf()
    except OSError as e:
        raise WeightsError(f"cannot be opened: {e}", where=path, next="check the path") from None
    except ValueError as e:
        raise WeightsError(f"not a readable GGUF file: {e}", where=path, next=AGAIN) from None


# ------------------------------------------------------------------------------------------------ pieces

PIECE = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
SPLIT = ("split.no", "split.count", "split.tensors.count")


def standing_for(files: list[Path]) -> Path | None:
    """The file to open for some: the one, or the first of the pieces of one; None where they are several models."""
    pieces = [PIECE.search(file.name) for file in files]
    wholes = {file.with_name(PIECE.sub("", file.name)) for file in files}
    if len(wholes) != 1 or not all(pieces):
        return files[0] if len(files) == 1 else None
    first = min(files)
    return first.with_name(PIECE.sub(lambda found: f"-00001-of-{found[2]}", first.name))


def read_whole(path: str | Path) -> Gguf:
    """As `read`; of a model in several files, by the first of them, whose metadata counts: the tensors of all.

    Raises:
        WeightsError: see `read`; a piece is missing, or of another model.
    """
    path = Path(path)
    first = read(path)
    count, number = (first.metadata.get(key, usual) for key, usual in (("split.count", 1), ("split.no", 0)))
    if type(count) is not int or type(number) is not int or count <= 1:
        return first
    named = PIECE.search(path.name)
    if number or not named or int(named[1]) != 1 or int(named[2]) != count:
        what = f"this is piece {number + 1} of {count}, and called {path.name}"
        raise WeightsError(what, where=path, next=f"give the first, …-00001-of-{count:05d}.gguf, beside the others")
    tensors = {name: replace(tensor, file=path) for name, tensor in first.tensors.items()}
    for at in range(1, count):
        piece = path.with_name(PIECE.sub(f"-{at + 1:05d}-of-{count:05d}", path.name))
        if not piece.is_file():
            raise WeightsError(f"piece {at + 1} of {count} is missing: {piece.name}", where=path, next=AGAIN)
        other = read(piece)
        said = [other.metadata.get(key) for key in SPLIT]
        if said[:2] != [at, count] or other.byte_order != first.byte_order:
            what = f"it says that it is piece {said[0]} of {said[1]}, counted from 0, not {at} of {count}"
            raise WeightsError(what, where=piece, next="download all pieces again: they are of two models")
        if twice := tensors.keys() & other.tensors.keys():
            raise WeightsError(f"tensor {min(twice)!r:.100} is in an earlier piece too", where=piece, next=AGAIN)
        tensors |= {name: replace(tensor, file=piece) for name, tensor in other.tensors.items()}
    if (total := first.metadata.get("split.tensors.count", len(tensors))) != len(tensors):
        raise WeightsError(f"{len(tensors)} tensors in {count} pieces, and it says {total}", where=path, next=AGAIN)
    metadata = {key: value for key, value in first.metadata.items() if key not in SPLIT}
    return replace(first, metadata=metadata, tensors=tensors)


# ------------------------------------------------------------------------------------------------ reading


class _Reader:
    """Walks over the header. Its methods raise ValueError, which `read` turns into a WeightsError."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data, self.size, self.end, self.at = data, size, len(data), 0
        if self.take(4) != MAGIC:
            raise ValueError(f"it begins with {data[:4]!r}, not with {MAGIC!r}")
        version = int.from_bytes(self.take(4), "little")
        self.order: Literal["little", "big"] = "little"
        if version and not version & 0xFFFF:  # a version number of small size, read from the wrong end
            self.order, version = "big", int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (1, 2, 3):
            raise ValueError(f"version {version}; known are 1, 2 and 3")
        self.version = version
        prefix = "<" if self.order == "little" else ">"
        self.formats = {kind: struct.Struct(prefix + letter) for kind, letter in LETTERS.items()}
        self.u32, self.u64 = self.formats[4], self.formats[10]
        self.length = self.u32 if version == 1 else self.u64  # of strings, arrays, and the two counts

    def gguf(self) -> Gguf:
        tensors, entries = self.number(self.length), self.number(self.length)
        metadata: dict[str, Value] = {}
        where: dict[str, slice] = {}
        for _ in range(self.fits(entries, self.length.size + 5, "metadata entries")):
            begin = self.at
            key = self.string()
            if key in metadata:
                raise ValueError(f"the key {key!r:.100} appears twice")
            metadata[key] = self.value(self.number(self.u32), 0)
            where[key] = slice(begin, self.at)
        end = self.at
        infos = [self.info() for _ in range(self.fits(tensors, self.length.size + 16, "tensors"))]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {alignment!r:.40}, not a power of two")
        start = -(-self.at // alignment) * alignment
        found = {name: Tensor(name, shape, kind, start + offset) for name, shape, kind, offset in infos}
        if len(found) < len(infos):
            raise ValueError("two tensors have one name")
        _check_layout(found.values(), alignment, start, self.size)
        return Gguf(self.version, self.order, metadata, found, alignment, start, end, where)

    def take(self, count: int) -> bytes:
        at = self.at
        if count > self.end - at:
            limit = "the file ends" if self.end == self.size else f"the limit for a header is {MAX_HEADER} bytes"
            raise ValueError(f"{count} bytes are due at byte {at}, and {self.end - at} are left: {limit}")
        self.at = at + count
        return self.data[at : at + count]

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def fits(self, count: int, least: int, what: str) -> int:
        """`count`, if so many things of at least so many bytes can follow."""
        if count * least > self.end - self.at:
            raise ValueError(f"{count} {what} at byte {self.at}, where {self.end - self.at} bytes are left")
        return count

    def string(self) -> str:
        return str(self.take(self.number(self.length)), "utf-8", ERRORS)

    def value(self, kind: int, depth: int) -> Value:
        if kind in LETTERS:
            return self.number(self.formats[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise ValueError(f"a value of the type {kind} at byte {self.at}; known are 0 to 12")
        if depth >= MAX_NESTING:
            raise ValueError(f"arrays nest more than {MAX_NESTING} deep")
        kind, count = self.number(self.u32), self.number(self.length)
        if kind in LETTERS:
            return self.numbers(kind, count)
        if kind == STRING:
            return self.strings(count)
        self.fits(count, 4 + self.length.size, "arrays")
        return [self.value(kind, depth + 1) for _ in range(count)]

    def numbers(self, kind: int, count: int) -> Value:
        raw = self.take(count * self.formats[kind].size)
        if LETTERS[kind] == "?":
            return [byte != 0 for byte in raw]
        found = array(LETTERS[kind], raw)
        if self.order != sys.byteorder:
            found.byteswap()
        return found

    def strings(self, count: int) -> list[str]:
        """A vocabulary has 262,144 of them: no call for each."""
        self.fits(count, self.length.size, "strings")
        data, at, end, unpack, width = self.data, self.at, self.end, self.length.unpack_from, self.length.size
        found: list[str] = []
        for _ in range(count):
            if at + width > end:
                raise ValueError(f"{count} strings, of which {count - len(found)} are missing at byte {at}")
            (size,) = unpack(data, at)
            at += width
            if size > end - at:
                raise ValueError(f"a string of {size} bytes at byte {at}, where {end - at} are left")
            try:
                found.append(data[at : at + size].decode())
            except UnicodeDecodeError:
                found.append(data[at : at + size].decode("utf-8", ERRORS))
            at += size
        self.at = at
        return found

    def info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset within the data of one tensor."""
        name, dims = self.string(), self.number(self.u32)
        if dims > MAX_DIMS:
            raise ValueError(f"tensor {name!r:.100} has {dims} dimensions; the limit is {MAX_DIMS}")
        sizes = [self.number(self.length) for _ in range(dims)]
        kind, offset = self.number(self.u32), self.number(self.u64)
        if math.prod(size or 1 for size in sizes) >= 1 << 60:
            raise ValueError(f"tensor {name!r:.100} has the shape {sizes}: too large for any machine")
        return name, tuple(reversed(sizes)), kind, offset


def _check_layout(tensors: Iterable[Tensor], alignment: int, start: int, size: int) -> None:
    """Tensors are aligned, whole blocks, inside the file and share no bytes. Raises ValueError."""
    end, before = start, "the header"
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        if (tensor.start - start) % alignment:
            raise ValueError(f"tensor {tensor.name!r:.100} is not aligned to {alignment} bytes")
        if tensor.kind not in TENSOR_TYPES:
            continue  # a newer type; its size is not known
        if (row := tensor.shape[-1] if tensor.shape else 1) % tensor.type.block:
            raise ValueError(f"tensor {tensor.name!r:.100}: rows of {row} are no blocks of {tensor.type}")
        if tensor.start < end:
            raise ValueError(f"tensor {tensor.name!r:.100} begins at byte {tensor.start}, where {before} goes to {end}")
        end, before = tensor.start + tensor.nbytes, f"tensor {tensor.name!r:.100}"
        if end > size:
            raise ValueError(f"{before} ends at byte {end}, the file at {size}")
