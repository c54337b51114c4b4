"""The bytes that each token stands for inside a text: what grammars and token healing reason about.

`tokenizer.decode` works on whole texts, and writes U+FFFD for a character that is cut. Here its steps are applied to
one token, without those that only see the ends of a text (sentencepiece drops the first space, CLIP the last).
"""

from __future__ import annotations

import functools
import json
import re
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.errors import Unsupported

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

Step = Callable[[str | bytes], str | bytes]

BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")  # sentencepiece's byte fallback
# Before these, a text is in the same place for most tokenizers: mid-line, and no token reaches across.
MARKS = ("", "\x02", "\n", ":")


class Pieces:
    """A tokenizer's vocabulary as bytes, as it was when this was made.

    Attributes:
        of: bytes by id; None for special tokens and for ids without a token.
        special: text of special tokens by id.
        drops_first_space: `decode` takes a space from the beginning of a text.
        derived: what others make of it, to live as long.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises Unsupported where a token's text depends on its neighbours (WordPiece)."""
        self._rust = tokenizer.rust
        steps = _steps(tokenizer)
        vocab = tokenizer.get_vocab()
        special = {*tokenizer.skipped_ids(), *(id for id in tokenizer.all_special_ids if id is not None)}
        if (unknown := getattr(tokenizer.rust.model, "unk_token", None)) is not None:
            special.add(vocab.get(unknown, -1))
        self.of: list[bytes | None] = [None] * (max(vocab.values(), default=-1) + 1)
        self.special: dict[int, str] = {}
        for text, id in vocab.items():
            if id in special:
                self.special[id] = text
            else:
                self.of[id] = _bytes(text, steps)
        self.drops_first_space = _drops_first_space(tokenizer)
        self.derived: dict[Any, Any] = {}

    def join(self, ids: Sequence[int]) -> bytes:
        """The bytes of ids inside a text; special tokens have none."""
        return b"".join(self._of(id) or b"" for id in ids)

    def spelled(self, id: int) -> bool:
        """Whether the id is a token with a text."""
        return bool(self._of(id))

    def beginning(self, prefix: bytes) -> list[int]:
        """The ids of all tokens that begin with these bytes."""
        texts, ids = self._in_order
        first = bisect_left(texts, prefix)
        last = bisect_right(texts, prefix, first, key=lambda text: text[: len(prefix)])
        return ids[first:last]

    def ids(self, text: str, below: int) -> list[int]:
        """The tokenizer's ids of a text that continues another, each under `below`.

        Where they do not spell it (a normaliser changes it), the longest tokens from the left; fewer where none fits.
        """
        spelled = text.encode()
        for mark in MARKS:
            before = self._rust.encode(mark, add_special_tokens=False).ids if mark else []
            ids = self._rust.encode(mark + text, add_special_tokens=False).ids
            if ids[: len(before)] != before or max(ids, default=0) >= below:
                continue
            if self.join(ids := ids[len(before) :]) == spelled:
                return list(ids)
        return self._longest(spelled, below)

    def _longest(self, spelled: bytes, below: int) -> list[int]:
        found: list[int] = []
        at = 0
        while at < len(spelled):
            lengths = range(min(self._longest_piece, len(spelled) - at), 0, -1)
            fits = (id for n in lengths for id in self._ids_of.get(spelled[at : at + n], ()) if id < below)
            id = next(fits, None)
            if id is None:
                break
            found.append(id)
            at += len(self.of[id] or b"")
        return found

    @functools.cached_property
    def _ids_of(self) -> dict[bytes, list[int]]:
        """The last first: sentencepiece's bytes stand before the characters that they are."""
        found: dict[bytes, list[int]] = {}
        for id in range(len(self.of) - 1, -1, -1):
            if piece := self.of[id]:
                found.setdefault(piece, []).append(id)
        return found

    @functools.cached_property
    def _in_order(self) -> tuple[list[bytes], list[int]]:
        pairs = sorted((piece, id) for id, piece in enumerate(self.of) if piece)
        return [piece for piece, _ in pairs], [id for _, id in pairs]

    @functools.cached_property
    def _longest_piece(self) -> int:
        return max(map(len, self._ids_of), default=0)

    def _of(self, id: int) -> bytes | None:
        return self.of[id] if 0 <= id < len(self.of) else None


def _steps(tokenizer: Tokenizer) -> list[Step]:
    """What the Rust decoder does to one token."""
    decoder = tokenizer.rust.decoder
    parts = [] if decoder is None else _flat(json.loads(decoder.__getstate__()))
    found: list[Step] = []
    for part in parts:
        match part:
            case {"type": "ByteLevel"}:
                found.append(_byte_level)
            case {"type": "ByteFallback"}:
                found.append(_byte_fallback)
            case {"type": "Replace", "pattern": {"String": old}, "content": new}:
                found.append(_replace(old, new))
            case {"type": "Metaspace", "replacement": mark}:
                found.append(_replace(mark, " "))
            case {"type": "BPEDecoder", "suffix": end}:
                found.append(_replace(end, " "))
            case {"type": "Fuse" | "Strip"} | {"type": "Replace", "pattern": {"Regex": r" +\z"}}:
                pass  # the ends of a text
            case _:
                raise _no_bytes(tokenizer, part["type"])
    if decoder is None:
        raise _no_bytes(tokenizer, "none")
    return found


def _flat(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for part in decoder["decoders"] for each in _flat(part)] if "decoders" in decoder else [decoder]


def _no_bytes(tokenizer: Tokenizer, decoder: str) -> Unsupported:
    return Unsupported(
        f"the text of this tokenizer's tokens depends on their neighbours (decoder: {decoder})",
        where=tokenizer.name_or_path,
        next="grammars and token healing need byte-level or sentencepiece tokens",
    )


def _bytes(token: str, steps: list[Step]) -> bytes:
    value: str | bytes = token
    for step in steps:
        value = step(value)
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def _replace(old: str, new: str) -> Step:
    return lambda value: (
        value.replace(old, new) if isinstance(value, str) else value.replace(old.encode(), new.encode())
    )


def _byte_fallback(value: str | bytes) -> str | bytes:
    found = BYTE.fullmatch(value) if isinstance(value, str) else None
    return bytes([int(found[1], 16)]) if found else value


def _byte_level(value: str | bytes) -> str | bytes:
    """GPT-2's printable stand-ins for bytes; a token that has another character is text as it is."""
    if isinstance(value, bytes) or not all(char in BYTE_OF for char in value):
        return value
    return bytes(BYTE_OF[char] for char in value)


def _stand_ins() -> dict[str, int]:
    """Character -> byte: printable Latin-1 stands for itself, the other bytes for U+0100 and on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _stand_ins()


def _drops_first_space(tokenizer: Tokenizer) -> bool:
    """Tried on the token of a space, or one that begins with a space."""
    decoder = tokenizer.rust.decoder
    return decoder is not None and not decoder.decode(["▁a"]).startswith((" ", "▁"))


_KEPT: weakref.WeakKeyDictionary[Tokenizer, tuple[object, Pieces]] = weakref.WeakKeyDictionary()


def pieces_of(tokenizer: Tokenizer) -> Pieces:
    """The tokenizer's pieces, made once until its tokens or special tokens change."""
    state = (len(tokenizer), tuple(tokenizer.all_special_ids), tokenizer.skipped_ids())
    kept = _KEPT.get(tokenizer)
    if kept is None or kept[0] != state:
        kept = _KEPT[tokenizer] = (state, Pieces(tokenizer))
    return kept[1]
