"""Reader for .safetensors: a JSON header, then the tensors, mapped into memory rather than copied.

    8 bytes   length n of the header, little-endian
    n bytes   {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, …, "__metadata__": {…}}
    the rest  the tensors, row-major, little-endian, without gaps; offsets count from here

`read_header` needs no torch. `SafetensorsFile` maps the file privately: a tensor may be written to, the file
never changes. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import reprlib
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pellucid.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# The file's spelling -> bits of one element, torch's name (None: torch has no such type).
DTYPES: dict[str, tuple[int, str | None]] = {
    "BOOL": (8, "bool"),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "U16": (16, "uint16"),
    "I16": (16, "int16"),
    "U32": (32, "uint32"),
    "I32": (32, "int32"),
    "U64": (64, "uint64"),
    "I64": (64, "int64"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "F32": (32, "float32"),
    "F64": (64, "float64"),
    "C64": (64, "complex64"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
    "F8_E8M0": (8, "float8_e8m0fnu"),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F4": (4, "float4_e2m1fn_x2"),  # torch packs two into one element
}

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
MAX_DIMS = 64  # torch's own limit
AGAIN = "download the file again: it is cut short or damaged"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file. `start` and `stop` are byte offsets from the beginning of the file."""

    name: str
    dtype: str  # a key of DTYPES; of what is packed, its kind ("Q4_K")
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """What a file holds, in the order of its header."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


# ── the header ──────────────────────────────────────────────────────────────────────────────────────────────


def read_header(path: str | Path) -> Header:
    """The checked header of one file. Needs no torch; memory is a small multiple of the header's own size.

    Raises:
        WeightsError: for anything that the format does not allow, with the values found.
    """
    with open_regular(path) as file:
        return _read_header(file, path)


def open_regular(path: str | Path) -> BinaryIO:
    """A file open for reading; never a pipe or a device, which could block or go on for ever.

    Raises:
        WeightsError: if it cannot be read, or is a Git LFS pointer instead of the weights.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise WeightsError("not a regular file", where=path, next="give the path of a weight file")
        file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot be opened: {error}", where=path, next="check the path") from None
    if file.read(23) == b"version https://git-lfs":
        file.close()
        raise WeightsError("a Git LFS pointer, not the weights", where=path, next="run `git lfs pull` there")
    file.seek(0)
    return file


def _read_header(file: BinaryIO, path: str | Path) -> Header:
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise WeightsError(f"{size} bytes: too short for a safetensors file", where=path, next=AGAIN)
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, size - 8):
        limit = f"the limit is {MAX_HEADER}" if length > MAX_HEADER else f"the file has {size}"
        raise WeightsError(f"the header claims {length} bytes; {limit}", where=path, next=AGAIN)
    header = parse_json(file.read(length), path)
    if not isinstance(header, dict):
        raise WeightsError(f"the header is {_short(header)}, not an object", where=path, next=AGAIN)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"__metadata__ is {_short(metadata)}, not text to text", where=path, next=AGAIN)
    try:
        tensors = {name: _entry(name, fields, 8 + length) for name, fields in header.items()}
        _check_layout(tensors.values(), 8 + length, size)
    except ValueError as error:
        raise WeightsError(str(error), where=path, next=AGAIN) from None
    return Header(tensors, metadata)


def _entry(name: str, fields: Any, data_start: int) -> Entry:
    """One line of the header. Raises ValueError, which the caller turns into a WeightsError."""
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {_short(name)} has {_short(fields)}, not dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {_short(name)} has the dtype {_short(dtype)}; known are {', '.join(DTYPES)}")
    if not _is_counts(shape) or len(shape) > MAX_DIMS:
        raise ValueError(f"tensor {_short(name)} has the shape {_short(shape)}")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {_short(name)} has the data_offsets {_short(offsets)}")
    bits = DTYPES[dtype][0]
    # An empty tensor has sizes too, and torch multiplies them into strides: they have to fit 63 bits as well.
    if math.prod(n or 1 for n in shape) * bits >= 1 << 63:
        raise ValueError(f"tensor {_short(name)} has the shape {_short(shape)}: too large for any machine")
    wanted = math.prod(shape) * bits
    if wanted != 8 * (offsets[1] - offsets[0]):
        raise ValueError(
            f"tensor {_short(name)}: {dtype} {_short(shape)} takes {wanted / 8:g} bytes, "
            f"its data_offsets {_short(offsets)} hold {offsets[1] - offsets[0]}"
        )
    return Entry(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _check_layout(entries: Iterable[Entry], data_start: int, size: int) -> None:
    """The tensors fill the file, without gaps and without sharing bytes. Raises ValueError."""
    end, before = data_start, None
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != end:
            kind = "overlaps" if entry.start < end else "leaves a gap after"
            other = f"tensor {_short(before.name)}" if before else "the header"
            raise ValueError(
                f"tensor {_short(entry.name)} starts at byte {entry.start} and {kind} {other}, which ends at {end}"
            )
        end, before = entry.stop, entry
    if end != size:
        raise ValueError(f"the header describes {end} bytes, the file has {size}")


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def parse_json(data: bytes, where: object) -> Any:
    """JSON from a file that nobody vouches for.

    Raises:
        WeightsError: if it is not JSON, nests too deeply, repeats a key, has a number of more than 20 digits
            (turning it into an int is quadratic), or text that is not Unicode.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key {_short(twice)} appears twice")
        for text in (*found, *found.values()):
            if isinstance(text, str):
                text.encode()  # a lone surrogate is valid JSON, and no name
        return found

    def integer(digits: str) -> int:
        if len(digits) > 20:
            raise ValueError(f"a number of {len(digits)} digits")
        return int(digits)

    try:
        return json.loads(data.decode(), object_pairs_hook=unique, parse_int=integer)
    except RecursionError:
        reason = "it nests too deeply"
    except ValueError as error:
        reason = str(error)
    raise WeightsError(f"the JSON cannot be read: {reason}", where=where, next=AGAIN)


# For error messages: hostile files hold long values, and ones that nest until `repr` gives up.
_limits = reprlib.Repr()
_limits.maxlevel, _limits.maxlist, _limits.maxdict, _limits.maxstring = 3, 8, 4, 120
_short = _limits.repr


def describe(tensor: Tensor, where: str) -> tuple[str, tuple[int, ...]]:
    """The format's dtype and shape for a tensor.

    Raises:
        WeightsError: if the format has no such dtype, or the tensor is not plain memory (sparse, meta).
    """
    import torch

    spelling = {torch_name: dtype for dtype, (_, torch_name) in DTYPES.items()}
    dtype = spelling.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or tensor.layout != torch.strided or tensor.is_meta:
        raise WeightsError(
            f"{tensor.dtype}, {tensor.layout}, on {tensor.device}: not a tensor that safetensors can hold",
            where=where,
            next="make it a dense tensor of a plain dtype",
        )
    shape = tuple(tensor.shape)
    if dtype == "F4":
        shape = (*shape[:-1], 2 * shape[-1])
    return dtype, shape


# ── memory pages (Linux; elsewhere nothing is known and nothing is released) ────────────────────────────────

PAGE = mmap.PAGESIZE
_PRESENT, _SWAPPED, _FILE = 1 << 63, 1 << 62, 1 << 61


def page_counts(address: int, nbytes: int) -> tuple[int, int] | None:
    """(clean, written) pages of this process that a range touches; None where that is unknown.

    A page of a private mapping belongs to the file until it is written to: the kernel then gives the process
    its own copy. Source: https://docs.kernel.org/admin-guide/mm/pagemap.html (bits 63, 62 and 61).
    """
    import numpy as np

    clean = written = 0
    page, last = address // PAGE, -(-(address + nbytes) // PAGE)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            while page < last:
                data = os.pread(file.fileno(), 8 * min(last - page, 1 << 17), 8 * page)
                if not data or len(data) % 8:
                    return None
                flags = np.frombuffer(data, "<u8")
                here, of_file = (flags & (_PRESENT | _SWAPPED)) != 0, (flags & _FILE) != 0
                clean += int((((flags & _PRESENT) != 0) & of_file).sum())
                written += int((here & ~of_file).sum())
                page += len(flags)
    except OSError:
        return None
    return clean, written


def release_pages(address: int, nbytes: int) -> int:
    """Give back the pages that lie wholly in a range, unless one of them was written to; bytes given back.

    The values come back from the file on the next read. Nobody may write to the range during the call.
    """
    start, stop = -(-address // PAGE) * PAGE, (address + nbytes) // PAGE * PAGE
    counts = page_counts(start, stop - start) if stop > start else None
    if counts is None or counts[0] == 0 or counts[1] > 0:
        return 0
    if _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED) != 0:
        return 0
    return counts[0] * PAGE


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)  # 3 ms each time


# ── the tensors ─────────────────────────────────────────────────────────────────────────────────────────────


class SafetensorsFile:
    """One file: its header is read at once, its bytes are mapped when the first tensor is asked for.

    Tensors stay valid after the file is replaced or deleted. If another process cuts it short in place,
    reading them is a bus error, as with every mapped file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_regular(self.path) as file:
            header = _read_header(file, self.path)
            self._seen = _identity(file)
        self.entries, self.metadata = header.tensors, header.metadata
        self._lock = threading.Lock()
        self._private: mmap.mmap | None = None  # never closed: tensors point into it, and keep it alive
        self._clean: mmap.mmap | None = None
        self._address = 0

    def tensor(self, name: str) -> Tensor:
        """A tensor whose memory is the mapped file. One that is misaligned in the file is a copy, each time.

        Raises:
            WeightsError: if torch has no such dtype, or the file changed since its header was read.
            KeyError: if the file has no such tensor.
        """
        import torch

        entry = self.entries[name]
        torch_name = DTYPES[entry.dtype][1]
        dtype = getattr(torch, torch_name or "", None)
        if dtype is None:
            raise WeightsError(f"torch {torch.__version__} has no type for {entry.dtype}", where=f"{self.path}: {name}")
        shape = entry.shape
        if entry.dtype == "F4":
            if not shape or shape[-1] % 2:
                raise WeightsError(f"F4 {list(shape)}: torch packs pairs", where=f"{self.path}: {name}")
            shape = (*shape[:-1], shape[-1] // 2)
        if entry.nbytes == 0:
            return torch.empty(shape, dtype=dtype)
        source: mmap.mmap | bytearray = self._map()
        start = entry.start
        if self._is_copied(entry):
            source, start = bytearray(memoryview(source)[entry.start : entry.stop]), 0
        return torch.frombuffer(source, dtype=dtype, count=math.prod(shape), offset=start).view(shape)

    def release(self, name: str) -> int:
        """Drop a tensor's resident pages, unless it was written to; bytes given back. See `release_pages`."""
        entry = self.entries[name]
        return release_pages(self._address + entry.start, entry.nbytes) if self._address else 0

    def dirty(self, name: str) -> bool | None:
        """Whether somebody wrote to the tensor; None where that is unknown (copied tensors, other systems).

        A neighbour may share the first and the last page, so these are compared with the file.
        """
        entry = self.entries[name]
        if self._private is None or entry.nbytes == 0:
            return False
        counts = page_counts(self._address + entry.start, entry.nbytes)
        if counts is None or self._clean is None or self._is_copied(entry):
            return None
        if counts[1] == 0:
            return False
        inner, outer = (
            min(-(-entry.start // PAGE) * PAGE, entry.stop),
            max(entry.stop // PAGE * PAGE, entry.start),
        )
        if inner < outer:
            middle = page_counts(self._address + inner, outer - inner)
            if middle is None or middle[1] > 0:
                return None if middle is None else True
        edges = [slice(entry.start, inner), slice(max(inner, outer), entry.stop)]
        return any(self._private[edge] != self._clean[edge] for edge in edges)

    def _is_copied(self, entry: Entry) -> bool:
        return entry.start % max(DTYPES[entry.dtype][0] // 8, 1) != 0

    def _map(self) -> mmap.mmap:
        with self._lock:
            if self._private is not None:
                return self._private
            with open_regular(self.path) as file:
                if _identity(file) != self._seen:
                    raise WeightsError("changed since its header was read", where=self.path, next="load it again")
                try:
                    private, self._clean = _map_privately(file)
                except OSError as error:
                    raise WeightsError(
                        f"cannot be mapped: {error}", where=self.path, next="copy it to a local disk"
                    ) from None
            self._address = ctypes.addressof(ctypes.c_char.from_buffer(private))
            self._private = private
            return private


def _map_privately(file: BinaryIO) -> tuple[mmap.mmap, mmap.mmap | None]:
    """A mapping that may be written to, and on Linux one of the same bytes that stays as the file is."""
    if sys.platform != "linux":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), None
    # Without MAP_NORESERVE (0x4000; in Python's module from 3.13 on) the kernel refuses to map privately what
    # is larger than the machine's memory.
    flags, access = mmap.MAP_PRIVATE | 0x4000, mmap.PROT_READ | mmap.PROT_WRITE
    private = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
    return private, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _identity(file: BinaryIO) -> tuple[int, int, int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
