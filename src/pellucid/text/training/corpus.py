"""The texts that a tokenizer is trained on: checked and counted as they pass, never all in memory."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pellucid.errors import InputError

# Called with a stage ("alphabet", "words", "learning"), how far it is, and its total or None where nobody knows.
Progress = Callable[[str, int, int | None], None]
LINE = 1 << 20  # characters; a file without line breaks comes in pieces of this size
EVERY = 0.2  # seconds between two reports


class Corpus:
    """Texts from an iterable: strings, lists of strings (batches), or `Path`s of text files, read line by line.

    A context: leaving it deletes the temporary file, if one was needed.
    """

    def __init__(self, texts: Any, length: int | None, progress: Progress | None) -> None:
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable | Path):
            raise InputError(
                f"texts to train on are needed, found {texts!r:.60} ({type(texts).__name__})",
                next="a list or a generator of strings; for files, pathlib.Path objects",
            )
        self.source: Iterable[Any] = [texts] if isinstance(texts, Path) else texts
        self.length = _count(texts) if length is None else length
        self.progress = progress
        self.kept: IO[str] | None = None

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *error: object) -> None:
        if self.kept is not None:
            self.kept.close()

    def twice(self) -> None:
        """Makes a second `read` possible: what can be iterated only once is kept in a temporary file."""
        if iter(self.source) is self.source:
            self.kept = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  __exit__ closes it

    def read(self, stage: str) -> Iterator[str]:
        """Every text.

        Raises:
            InputError: something else than a text, a lone surrogate, or no text with a character in it.
        """
        again = self.kept is not None and self.kept.tell() > 0
        seen, empty, reported = 0, True, time.monotonic()
        for text in self._kept_texts() if again else _flat(self.source):
            _check(text, seen)
            if self.kept is not None and not again:
                self.kept.write(json.dumps(text) + "\n")
            seen += 1
            empty = empty and not text
            if self.progress is not None and time.monotonic() - reported > EVERY:
                reported = time.monotonic()
                self.report(stage, seen, None if self.length is None or seen > self.length else self.length)
            yield text
        if empty:
            raise InputError(
                f"nothing to train on: {seen} texts, and not a character in them",
                next="a generator that was used before is empty: make it again",
            )
        self.length = seen
        self.report(stage, seen, seen)

    def report(self, stage: str, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)

    def _kept_texts(self) -> Iterator[str]:
        assert self.kept is not None
        self.kept.seek(0)
        yield from map(json.loads, self.kept)


def _count(texts: Any) -> int | None:
    """How many texts, if that is known before they are read: not of batches, files and generators."""
    return len(texts) if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts) else None


def _flat(source: Iterable[Any]) -> Iterator[Any]:
    for item in source:
        if isinstance(item, Path):
            yield from _lines(item)
        elif isinstance(item, list | tuple):
            yield from item
        else:
            yield item


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, with their line breaks."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            while line := file.readline(LINE):
                yield line
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"cannot be read as text: {e}", where=path, next="text files are UTF-8") from None


def _check(text: Any, number: int) -> None:
    if not isinstance(text, str):
        raise InputError(
            f"text {number} is a {type(text).__name__}: {text!r:.60}",
            next="a text is a string; a batch is a list of strings; a file is a pathlib.Path",
        )
    try:
        text.encode()
    except UnicodeEncodeError as e:
        bad = text[e.start]
        raise InputError(
            f"text {number} has a lone surrogate, {bad!r}, at character {e.start}",
            next='text.encode("utf-8", "replace").decode() puts a question mark there',
        ) from None


def to_stderr(stage: str, done: int, total: int | None) -> None:
    """The progress of training, as one line for a stage."""
    unit = "tokens" if stage == "learning" else "texts"
    end = "\n" if done == total else ""
    print(f"\r{stage}: {done:,}{f' of {total:,}' if total is not None else ''} {unit}", end=end, file=sys.stderr)
