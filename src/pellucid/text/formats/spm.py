"""A sentencepiece `.model` file, read without sentencepiece and without protobuf.

The file is one protobuf message. Its schema is `src/sentencepiece_model.proto` of
github.com/google/sentencepiece (ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec); the wire format is
protobuf.dev/programming-guides/encoding.
Every length is checked against the bytes that are there, so a truncated or hostile file is a TokenizerError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pellucid.errors import TokenizerError, Unsupported

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE, WORD, CHAR = 1, 2, 3, 4
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_BYTES = 64 << 20  # the largest published file is 14 MB (mT5; Gemma: 5 MB)
MAX_PIECES = 4_000_000  # the largest published vocabulary has 262,144 (Gemma 3)
MAX_LENGTH = 512  # characters of a piece; sentencepiece's own limit when it trains
MAX_OTHERS = 1000  # fields beside pieces; a file has three to five

Value = int | bytes


class Piece(NamedTuple):
    text: str
    score: float = 0.0  # log probability (unigram) or minus the merge rank (BPE)
    kind: int = NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """The parts of a ModelProto that decide how text becomes ids. Field defaults are the schema's."""

    pieces: tuple[Piece, ...]
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True

    def texts(self, kind: int) -> list[str]:
        return [piece.text for piece in self.pieces if piece.kind == kind]


def read(path: Path) -> SentencePieceModel:
    """The model in `path`.

    Raises:
        TokenizerError: the file is not a sentencepiece model, is cut off, or contradicts itself.
        Unsupported: a model of words, or one that writes spaces as suffixes.
    """
    if path.stat().st_size > MAX_BYTES:
        raise TokenizerError(f"{path.stat().st_size} bytes are too many for a sentencepiece model", where=path)
    try:
        return parse(path.read_bytes())
    except (ValueError, struct.error) as e:
        raise TokenizerError(
            f"not a readable sentencepiece model: {e}",
            where=path,
            next="download the file again: it is cut short or damaged",
        ) from None


def parse(data: bytes) -> SentencePieceModel:
    """The same from bytes; ValueError where `read` says TokenizerError."""
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    others = 0
    for number, value in fields(data):
        others += number != 1
        if others > MAX_OTHERS or len(pieces) > MAX_PIECES or number == 0:
            raise ValueError(f"{len(pieces)} pieces and {others} other fields, the last has number {number}")
        if number == 1:
            pieces.append(_piece(_bytes(value)))
        elif number == 2:
            trainer.update(fields(_bytes(value)))
        elif number == 3:
            normalizer.update(fields(_bytes(value)))
    model = SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=_int(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(_int(trainer.get(35, 0))),
        charsmap=_bytes(normalizer.get(2, b"")),
        add_dummy_prefix=bool(_int(normalizer.get(3, 1))),
        remove_extra_whitespaces=bool(_int(normalizer.get(4, 1))),
    )
    if model.algorithm == WORD or _int(trainer.get(24, 0)) or not _int(normalizer.get(5, 1)):
        raise Unsupported(
            "a sentencepiece model of words, or with spaces as suffixes",
            next="convert it to tokenizer.json with the library that trained it",
        )
    _check(model)
    return model


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Field number and value of each field of one message: an int, or the bytes of anything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)  # one call a piece is 20 ms in Llama
        wire = key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == LENGTH:
            size, at = (data[at], at + 1) if at < end and data[at] < 128 else _varint(data, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > end:
            raise ValueError(f"a field of {size} bytes at byte {at}, where {end - at} are left")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError(f"a number without an end at byte {at}")


def _piece(data: bytes) -> Piece:
    """One SentencePiece message: 1 piece, 2 score (float), 3 type."""
    text, score, kind = b"", 0.0, NORMAL
    for number, value in fields(data):
        if number == 1:
            text = _bytes(value)
        elif number == 2:
            (score,) = struct.unpack("<f", _bytes(value))
        elif number == 3:
            kind = _int(value)
    if score != score:
        raise ValueError(f"the score of piece {text!r} is not a number")
    found = text.decode("utf-8")  # a UnicodeDecodeError is a ValueError
    if len(found) > MAX_LENGTH:
        raise ValueError(f"a piece of {len(found)} characters: {found[:20]!r} …")
    return Piece(found, score, kind)


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are expected")
    return value


def _int(value: Value) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes where a number is expected")
    return value


def _check(model: SentencePieceModel) -> None:
    """What the Rust side takes for granted."""
    if model.algorithm not in (UNIGRAM, BPE, CHAR):
        raise ValueError(f"model type {model.algorithm}")
    if len(model.texts(UNKNOWN)) != 1:
        raise ValueError(f"{len(model.pieces)} pieces, {len(model.texts(UNKNOWN))} of them the unknown piece")
    if len({piece.text for piece in model.pieces}) < len(model.pieces):
        raise ValueError("a piece occurs twice")
    if model.charsmap and struct.unpack_from("<I", model.charsmap)[0] > len(model.charsmap) - 4:
        raise ValueError("the normalisation table is cut off")
