"""Which sources a library of kernels was compiled from: it holds their digest. Also read by setup.py, without torch."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def digest(folder: Path) -> str:
    """Of all native sources of a folder; nothing where there are none."""
    sources = sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])
    parts = (part for file in sources for part in (file.name.encode(), file.read_bytes()))
    return sha256(b"\0".join(parts)).hexdigest() if sources else ""


def fits(library: Path, folder: Path) -> bool:
    """Whether it was compiled from the sources in a folder; where there are none, there is nothing else that it is."""
    return digest(folder).encode() in library.read_bytes()
