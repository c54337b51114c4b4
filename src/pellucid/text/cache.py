"""Vocabularies that took work to convert, kept as tokenizer.json in the folder that `hub.tokenizer_cache` names.

An entry is found by a hash of everything it was made from: the files, the options, and the source of the code that
converts. So nothing is ever stale, and nothing is ever updated. An entry that is damaged, was put there under another
name, or that other users could have written, is not used; a folder that cannot be written is no error, only slower.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer

from pellucid import hub

SMALLEST = 256 << 10  # bytes of vocabulary; smaller ones convert as fast as an entry loads
LARGEST = 1 << 30


@functools.cache
def _converter() -> bytes:
    """What converts: our source and the engine's version."""
    folder = Path(__file__).parent
    parts = [folder / f"{name}.py" for name in ("convert", "classes", "recipes", "languages")]
    parts += sorted((folder / "formats").glob("*.py"))
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts) + tokenizers.__version__.encode()).digest()


def key(files: Iterable[Path], facts: Mapping[str, Any]) -> str:
    """The name of an entry. Raises OSError where a file, or our own source, cannot be read."""
    digest = hashlib.sha256(_converter())
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for file in files:
        data = file.read_bytes()
        digest.update(f"\0{file.name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def worth_it(files: Iterable[Path]) -> bool:
    """Whether a vocabulary of these files is kept at all."""
    return SMALLEST <= sum(file.stat().st_size for file in files) <= LARGEST


def load(name: str) -> Tokenizer | None:
    """The entry, or None where there is none to trust."""
    folder = hub.tokenizer_cache()
    if folder is None:
        return None
    try:
        if not all(_ours(path) for path in (folder, folder / name)):
            return None
        head, _, body = (folder / name).read_bytes().partition(b"\n")
        return Tokenizer.from_buffer(body) if head == _head(name, body) else None
    except OSError:
        return None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # the Rust side raises bare Exceptions, and panics that derive from nothing else
        return None


def store(name: str, rust: Tokenizer) -> None:
    """Keep an entry, if it comes back the same: the engine cannot write a vocabulary with holes in its ids."""
    folder = hub.tokenizer_cache()
    if folder is None or any(rust.id_to_token(id) is None for id in range(rust.get_vocab_size())):
        return
    body = rust.to_str().encode()
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_head(name, body) + b"\n" + body)
            os.replace(temporary, folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _head(name: str, body: bytes) -> bytes:
    return f"pellucid tokenizer {name} {hashlib.sha256(body).hexdigest()}".encode()


def _ours(path: Path) -> bool:
    """Whether nobody else could have written here; Windows has no such bits, its profile folders are private."""
    found = path.lstat()
    if os.name != "posix":
        return not stat.S_ISLNK(found.st_mode)
    private = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return private and not stat.S_ISLNK(found.st_mode)
