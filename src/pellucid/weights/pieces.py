"""One model in several GGUF files, as llama.cpp's gguf-split writes it: x-00001-of-00003.gguf and the others beside.

The first has the metadata; each has a directory of its own tensors. It is saved as one file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid import gguf
from pellucid.weights.gguf import GgufFile

if TYPE_CHECKING:
    from torch import Tensor


def opened(path: Path) -> GgufFile:
    """A file, or all pieces by their first.

    Raises:
        WeightsError, Unsupported: see `gguf.read_whole`, `GgufFile`.
    """
    file = GgufFile(path)
    count = file.header.metadata.get("split.count")
    return GgufPieces(path) if type(count) is int and count > 1 else file


class GgufPieces(GgufFile):
    """All pieces, by the path of the first."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.header = gguf.read_whole(path)
        files = dict.fromkeys([self.path, *(tensor.file for tensor in self.header.tensors.values())])
        pieces = {file: GgufFile(file) for file in files if file is not None}
        self._home = {name: piece for piece in pieces.values() for name in piece.entries}
        self.entries = {name: piece.entries[name] for name, piece in self._home.items()}

    @property
    def whole_name(self) -> str:
        return gguf.PIECE.sub("", self.path.name)

    def tensor(self, name: str) -> Tensor:
        return self._home[name].tensor(name)

    def release(self, name: str) -> int:
        return self._home[name].release(name)

    def dirty(self, name: str) -> bool | None:
        return self._home[name].dirty(name)

    def metadata_bytes(self, without: Collection[str] = (), numbers: Mapping[str, Tensor] | None = None) -> bytes:
        return super().metadata_bytes({*gguf.SPLIT, *without}, numbers)
