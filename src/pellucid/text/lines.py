"""Lines of files and of standard input as texts. No torch."""

from __future__ import annotations

import codecs
import io
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from pellucid.errors import ArgumentError, InputError

PAUSE: Final[Any] = object()  # among inputs: the next one is not there yet, so that what was read is worked on
SOON = 0.05  # seconds that a line may take to come without being waited for
CHUNK = 1 << 16


@dataclass(frozen=True)
class Lines:
    """The lines of a text file as inputs, one result for each; read as they are needed, empty lines too.

    A line ends with "\\n" or "\\r\\n". A byte order mark is no part of the first one.

    Raises:
        InputError: there is no such file, or a line is not written in the encoding. ArgumentError: no such encoding.
    """

    path: str | os.PathLike[str]
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if not Path(self.path).is_file():
            raise InputError(f"there is no file {os.fspath(self.path)!r}", where="Lines", next="check the path")
        try:
            codecs.lookup(self.encoding)
        except (LookupError, TypeError):
            what = f"encoding={self.encoding!r}"
            raise ArgumentError(what, where="Lines", next="use utf-8, latin-1, cp1252 …") from None

    def __iter__(self) -> Iterator[str]:
        done, where = 0, os.fspath(self.path)
        with open(self.path, encoding=self.encoding, errors="surrogateescape", newline="\n") as file:
            try:
                for line in file:
                    yield text_of(line, done + 1, where, self.encoding)
                    done += 1
            except UnicodeError as error:  # encodings whose broken bytes cannot be held back until their line
                why = getattr(error, "reason", error)
                what = f"behind line {done} there is what is not {self.encoding.upper()}: {why}"
                raise InputError(what, where=where, next="Lines(path, encoding=…)") from None


def arriving(file: IO[bytes], where: str) -> Iterator[str]:
    """Lines of what is still being written, as they come; PAUSE where the next one is waited for.

    Raises:
        InputError: a line is not UTF-8.
    """
    held: list[bytes] = []  # of a line whose end has not come
    number = 1

    def line() -> str:
        return text_of(b"".join(held).decode("utf-8", "surrogateescape"), number, where)

    while chunk := file.read1(CHUNK) if isinstance(file, io.BufferedIOBase) else file.read(CHUNK):
        first, *more = chunk.split(b"\n")
        held.append(first)
        for begin in more:
            yield line()
            held, number = [begin], number + 1
        if not soon(file):
            yield PAUSE
    if any(held):
        yield line()


def soon(file: IO[bytes]) -> bool:
    """Whether there is more to read, or an end."""
    try:
        return bool(select.select([file], [], [], SOON)[0])
    except (OSError, ValueError):  # no file of the operating system: it has what it has
        return True


def text_of(line: str, number: int, where: str, encoding: str = "utf-8") -> str:
    """A line without its end.

    Raises:
        InputError: bytes that the encoding does not have were read into it.
    """
    line = line.removesuffix("\n").removesuffix("\r")
    if number == 1:
        line = line.removeprefix("\ufeff")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        what = f"line {number} is not {encoding.upper()}: it has the byte {ord(line[error.start]) - 0xDC00:#04x}"
        next = "convert it to UTF-8, or from Python give Lines(path, encoding=…)"
        raise InputError(what, where=where, next=next) from None
    return line
