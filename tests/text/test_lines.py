"""Lines of files and of standard input are the same texts, as they come."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from pellucid import Lines
from pellucid.errors import InputError
from pellucid.text.lines import PAUSE, arriving

FILES = {
    b"one\ntwo\n": ["one", "two"],
    b"one\r\ntwo\r\n\r\nfour": ["one", "two", "", "four"],
    b"\xef\xbb\xbfone\n\xef\xbb\xbftwo": ["one", "\ufefftwo"],
    b"": [],
    b"\n": [""],
    b"\n\n": ["", ""],
    "a\x0bb\x1cc\x85d\u2028e\rf\n2".encode(): ["a\x0bb\x1cc\x85d\u2028e\rf", "2"],  # none of these ends a line
    b"nul\0here\n": ["nul\0here"],
    ("é" * 40_000 + "\n" + "x" * 70_000).encode(): ["é" * 40_000, "x" * 70_000],
}


@pytest.mark.parametrize("data", FILES, ids=lambda data: repr(data[:20]))
def test_files_and_streams_have_the_same_lines(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert list(Lines(tmp_path / "file")) == FILES[data]
    assert list(arriving(io.BytesIO(data), "here")) == FILES[data]


@pytest.mark.parametrize("data", [b"ok\ncaf\xe9\nok", b"ok\n" + b"x" * 9000 + b"\xff", b"ok\n\xed\xa0\x80"], ids=len)
def test_the_line_that_is_not_text_is_named(tmp_path: Path, data: bytes) -> None:
    """And those before it are read."""
    (tmp_path / "file").write_bytes(data)
    for lines in (iter(Lines(tmp_path / "file")), arriving(io.BytesIO(data), "here")):
        assert next(lines) == "ok"
        with pytest.raises(InputError, match="line 2 is not UTF-8"):
            next(lines)


def test_other_encodings(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16", "cp1252", "utf-8-sig"):
        (tmp_path / "file").write_bytes("naïve\nß\n".encode(encoding))
        assert list(Lines(tmp_path / "file", encoding=encoding)) == ["naïve", "ß"]
    (tmp_path / "file").write_bytes(b"a\0b")
    with pytest.raises(InputError, match="UTF-16"):
        list(Lines(tmp_path / "file", encoding="utf-16"))


def test_what_is_waited_for_makes_a_pause() -> None:
    end, begin = os.pipe()
    go = threading.Event()

    def write() -> None:
        with open(begin, "wb", buffering=0) as file:
            file.write(b"one\ntwo\nthr")
            go.wait()
            file.write(b"ee\n")

    threading.Thread(target=write).start()
    found: list[Any] = []
    with open(end, "rb") as file:
        for one in arriving(file, "here"):
            found.append(one)
            if one is PAUSE:
                go.set()
    assert [one for one in found if one is not PAUSE] == ["one", "two", "three"]
    assert PAUSE in found and found.index(PAUSE) == 2
