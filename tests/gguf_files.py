"""Writes small GGUF files, of every version and both byte orders. Format: see pellucid/gguf.py."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class As(NamedTuple):
    """A value of a type that `kind_of` does not give it. For an array, the type of its elements."""

    kind: int
    value: Any


def kind_of(value: Any) -> int:
    return {bool: 7, int: 4, float: 6, str: STRING, bytes: STRING, list: ARRAY}[type(value)]


class Writer:
    def __init__(self, version: int = 3, order: str = "<") -> None:
        self.version, self.order, self.out = version, order, bytearray(b"GGUF")
        self.put("I", version)

    def put(self, letter: str, *values: Any) -> None:
        self.out += struct.pack(self.order + letter * len(values), *values)

    def length(self, count: int) -> None:
        self.put("I" if self.version == 1 else "Q", count)

    def text(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.length(len(data))
        self.out += data

    def value(self, value: Any) -> None:
        if isinstance(value, As) and not isinstance(value.value, list):
            self.put("I", value.kind)
            self.bare(value.kind, value.value)
        elif isinstance(value, As | list):
            self.put("I", ARRAY)
            self.array(value)
        else:
            self.put("I", kind_of(value))
            self.bare(kind_of(value), value)

    def array(self, value: Any) -> None:
        items = value.value if isinstance(value, As) else value
        kind = value.kind if isinstance(value, As) else kind_of(items[0]) if items else 4
        self.put("I", kind)
        self.length(len(items))
        if kind in NUMBERS:
            self.put(NUMBERS[kind], *items)
        else:
            for item in items:
                self.bare(kind, item)

    def bare(self, kind: int, value: Any) -> None:
        if kind == STRING:
            self.text(value)
        elif kind == ARRAY:
            self.array(value)
        else:
            self.put(NUMBERS[kind], value)


def to_bytes(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]] | None = None,
    *,
    version: int = 3,
    order: str = "<",
    alignment: int = 32,
) -> bytes:
    """tensors: name -> shape (the fastest dimension last), type, data."""
    tensors = tensors or {}
    writer = Writer(version, order)
    writer.length(len(tensors))
    writer.length(len(metadata))
    for key, value in metadata.items():
        writer.text(key)
        writer.value(value)
    offset = 0
    for name, (shape, kind, data) in tensors.items():
        writer.text(name)
        writer.put("I", len(shape))
        for size in reversed(shape):
            writer.length(size)
        writer.put("I", kind)
        writer.put("Q", offset)
        offset += -(-len(data) // alignment) * alignment
    if tensors:
        for _, _, data in tensors.values():
            writer.out += b"\0" * (-len(writer.out) % alignment) + data
    return bytes(writer.out)


def write(path: Path, metadata: Mapping[str, Any], **rest: Any) -> Path:
    path.write_bytes(to_bytes(metadata, **rest))
    return path
