"""Text that arrives in pieces, read as if it were all there.

Parsers are generators: where they need a character that has not come yet they `yield`, and go on when it has. So a
decision never depends on where a piece ended, and the parse of a stream is the parse of its text. What has been read
is taken out of the buffer at once; what stays is at most the beginning of a marker. The cost is linear.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Wait = Generator[None, None, T]  # a parser: yields while it waits for text, returns a T

WHITE = " \t\r\n"
SPACE = re.compile("[ \t\r\n]*")
STRUCTURE = re.compile(r'["{}\[\]]')
QUOTE = re.compile(r'["\\]')
CONTROL = re.compile("[\x00-\x1f]")
SCALAR = re.compile(r"[^\s,{}\[\]\"]*")
DEPTH = 64  # of nested lists and objects; deeper is no argument of a tool
SHORT = 256  # characters in a name or a header; longer is none


class Broken(Exception):
    """A tool call that cannot be read, and why."""


class NotACall(Exception):
    """What looked like the beginning of a call was text."""


class Stops:
    """Literal markers to look for. None may be a part of another (a test of the table of formats)."""

    def __init__(self, literals: tuple[str, ...]) -> None:
        self.find = re.compile("|".join(map(re.escape, literals)) or "(?!)").search
        self.beginnings = frozenset(each[:size] for each in literals for size in range(1, len(each)))
        self.longest = max(map(len, self.beginnings), default=0)

    def held(self, text: str, at: int) -> int:
        """How many characters at the end of `text` could be the beginning of a marker."""
        for size in range(min(self.longest, len(text) - at), 0, -1):
            if text[-size:] in self.beginnings:
                return size
        return 0


@functools.lru_cache(maxsize=1024)
def stops(*literals: str) -> Stops:
    return Stops(tuple(dict.fromkeys(each for each in literals if each)))


class Reader:
    """The text from `at` on is unread. `raw` collects what is read, where somebody wants it."""

    def __init__(self) -> None:
        self.text, self.at, self.final = "", 0, False
        self.raw: list[str] = []
        self.recording = False

    def feed(self, piece: str) -> None:
        self.text, self.at = self.text[self.at :] + piece, 0

    def take(self, size: int) -> str:
        piece = self.text[self.at : self.at + size]
        self.at += size
        if self.recording:
            self.raw.append(piece)
        return piece

    def record(self, *already: str) -> None:
        self.raw, self.recording = list(already), True

    def recorded(self) -> str:
        self.recording = False
        return "".join(self.raw)

    def push_back(self, text: str) -> None:
        """Unread `text`, which was read last."""
        if self.text[max(0, self.at - len(text)) : self.at] == text:
            self.at -= len(text)
        else:
            self.text, self.at = text + self.text[self.at :], 0

    def more(self) -> Wait[bool]:
        """Waits for at least one unread character; False at the end of the text."""
        while self.at == len(self.text):
            if self.final:
                return False
            yield
        return True

    def scan(self, markers: Stops, emit: Callable[[str], object]) -> Wait[str | None]:
        """Reads to the first marker, which is returned; what comes before goes to `emit`. None: the text ended."""
        while True:
            if found := markers.find(self.text, self.at):
                if found.start() > self.at:
                    emit(self.take(found.start() - self.at))
                return self.take(len(found[0]))
            ready = len(self.text) - self.at - (0 if self.final else markers.held(self.text, self.at))
            if ready:
                emit(self.take(ready))
            if self.final:
                return None
            yield

    def starts(self, *literals: str) -> Wait[str]:
        """The first of `literals` that comes next, not read yet; or nothing. One may be the beginning of a later."""
        waiting = True
        while waiting:
            waiting = False
            for each in literals:
                if each and self.text.startswith(each, self.at):
                    return each
                if not self.final and each.startswith(self.text[self.at : self.at + len(each)]):
                    waiting = bool(each)
                    break
            if waiting:
                yield
        return ""

    def run(self, pattern: re.Pattern[str], limit: int | None = None) -> Wait[str]:
        """Reads characters as long as `pattern`, a class of characters with a star, takes them."""
        parts: list[str] = []
        size = 0
        while True:
            match = pattern.match(self.text, self.at)
            parts.append(self.take(len(match[0]) if match else 0))
            size += len(parts[-1])
            if limit is not None and size > limit:
                raise Broken(f"a name or value of more than {limit} characters")
            if self.at < len(self.text) or self.final:
                return "".join(parts)
            yield

    def space(self) -> Wait[str]:
        return (yield from self.run(SPACE))

    def expect(self, literal: str) -> Wait[None]:
        if not (yield from self.starts(literal)):
            found = self.text[self.at : self.at + 1]
            raise Broken(f"{literal!r} expected, {found!r} found" if found else f"the text ends before {literal!r}")
        self.take(len(literal))

    def json(self, emit: Callable[[str], object]) -> Wait[None]:
        """Reads one JSON value to its end. `emit` gets it as it comes, control characters in strings escaped."""
        if not (yield from self.more()):
            raise Broken("the text ends where a JSON value is expected")
        if self.text[self.at] not in '{["':
            emit((yield from self.run(SCALAR, 4096)))
            return
        depth, quoted = 0, False
        while True:
            if not (yield from self.more()):
                raise Broken("the text ends inside a JSON value")
            found = (QUOTE if quoted else STRUCTURE).search(self.text, self.at)
            if not found or found[0] == "\\":
                piece = self.take((found.start() if found else len(self.text)) - self.at)
                if piece:
                    emit(CONTROL.sub(escaped, piece) if quoted else piece)
                if found:
                    yield from self._escape(emit)
                continue
            piece = self.take(found.end() - self.at)
            emit(CONTROL.sub(escaped, piece) if quoted else piece)
            if found[0] == '"':
                quoted = not quoted
            else:
                depth += 1 if found[0] in "{[" else -1
            if depth > DEPTH:
                raise Broken(f"JSON nested deeper than {DEPTH}")
            if depth <= 0 and not quoted:
                return

    def _escape(self, emit: Callable[[str], object]) -> Wait[None]:
        """A backslash and the character that it is about."""
        while len(self.text) - self.at < 2:
            if self.final:
                raise Broken("the text ends inside a JSON string")
            yield
        piece = self.take(2)
        emit(piece if piece[1] >= " " else "\\\\" + CONTROL.sub(escaped, piece[1]))


CONTROL_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(found: re.Match[str]) -> str:
    """A control character as JSON writes it in a string."""
    return CONTROL_NAMES.get(found[0]) or f"\\u{ord(found[0]):04x}"
