"""The algorithms that models were trained with, written from their description: judges for texts of any kind.

GPT-2: github.com/openai/gpt-2, src/encoder.py. BERT: github.com/google-research/bert, tokenization.py.
sentencepiece files are judged by the sentencepiece library itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def printable_bytes() -> list[str]:
    """GPT-2's letter for each byte: the byte itself where it prints, else the next free character from U+0100."""
    prints = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]


class ByteBpe:
    """Split by a pattern, then join the pair of bytes that was learnt first, until there is none."""

    def __init__(self, vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], split: str = GPT2_SPLIT) -> None:
        regex = pytest.importorskip("regex")
        self.vocab, self.letters = vocab, printable_bytes()
        self.rank = {pair: i for i, pair in enumerate(merges)}
        self.split: Any = regex.compile(split)

    def encode(self, text: str) -> list[int]:
        return [id for word in self.split.findall(text) for id in self.word(word)]

    def word(self, word: str) -> list[int]:
        parts = [self.letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            first = min(zip(parts, parts[1:]), key=lambda pair: self.rank.get(pair, len(self.rank)))
            if first not in self.rank:
                break
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == first:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return [self.vocab[part] for part in parts]


class Bert:
    """Clean, space out ideographs, lower case without accents, split at punctuation, longest pieces first."""

    def __init__(self, vocab: Mapping[str, int], *, lower: bool) -> None:
        self.vocab, self.lower = vocab, lower

    def encode(self, text: str) -> list[int]:
        return [self.vocab[piece] for word in self.words(text) for piece in self.pieces(word)]

    def words(self, text: str) -> list[str]:
        cleaned = ""
        for char in text:
            if char in "\0\ufffd" or _is_control(char):
                continue
            cleaned += " " if _is_space(char) else f" {char} " if _is_ideograph(ord(char)) else char
        found: list[str] = []
        for word in cleaned.split():
            if self.lower:
                word = unicodedata.normalize("NFD", word.lower())
                word = "".join(char for char in word if unicodedata.category(char) != "Mn")
            found += "".join(f" {char} " if _is_punctuation(char) else char for char in word).split()
        return found

    def pieces(self, word: str) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(word) and len(word) <= 200:
            prefix = "##" if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self.vocab)
            end = next(ends, None)
            if end is None:
                return ["[UNK]"]
            found.append(prefix + word[start:end])
            start = end
        return found if len(word) <= 200 else ["[UNK]"]


def _is_space(char: str) -> bool:
    return char in " \t\n\r" or unicodedata.category(char) == "Zs"


def _is_control(char: str) -> bool:
    return char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf")


def _is_punctuation(char: str) -> bool:
    return char in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" or unicodedata.category(char).startswith("P")


def _is_ideograph(code: int) -> bool:
    """The CJK blocks; not kana, not hangul."""
    blocks = (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)
    blocks += (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)
    return any(first <= code <= last for first, last in blocks)
