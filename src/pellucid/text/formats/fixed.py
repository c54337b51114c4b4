"""Vocabularies that no file holds: bytes (ByT5, Perceiver), Unicode's characters (CANINE), amino acids (ESM C).

The engine writes bytes as printable characters, so a token of a byte beyond ASCII looks different from the
reference's `chr(byte)`. Bytes that are no UTF-8 decode to U+FFFD here; the reference drops them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from pellucid.text.classes import TokenizerClass
from pellucid.text.formats.tiktoken import ALPHABET

PERCEIVER = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")
AMINO_ACIDS = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - | <mask>".split()


def build(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """`files` is empty."""
    return KINDS[row.text](options)


def byt5(options: Mapping[str, Any]) -> Tokenizer:
    """Three special tokens, 256 bytes; sentinels behind. The special ones take the spaces around them."""
    first = ("<pad>", "</s>", "<unk>")
    rust = _bytes(first)
    rust.add_special_tokens([AddedToken(text, lstrip=True, rstrip=True, normalized=False) for text in first])
    return rust


def perceiver(options: Mapping[str, Any]) -> Tokenizer:
    return _bytes(PERCEIVER)


def _bytes(first: tuple[str, ...]) -> Tokenizer:
    vocab = {text: i for i, text in enumerate([*first, *(chr(ALPHABET[byte]) for byte in range(256))])}
    rust = Tokenizer(models.BPE(vocab, []))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.decoder = decoders.ByteLevel()
    return rust


def canine(options: Mapping[str, Any]) -> Tokenizer:
    """A character is its code point. Surrogates are none: the ids D800 to DFFF have no token."""
    vocab = {chr(i): i for i in range(0x110000) if not 0xD800 <= i < 0xE000}
    rust = Tokenizer(models.WordLevel(vocab, unk_token="\ufffd"))
    rust.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")
    rust.decoder = decoders.Fuse()
    return rust


def esmc(options: Mapping[str, Any]) -> Tokenizer:
    """One letter, one token."""
    return Tokenizer(models.BPE({text: i for i, text in enumerate(AMINO_ACIDS)}, [], unk_token="<unk>"))


KINDS: dict[str, Callable[[Mapping[str, Any]], Tokenizer]] = {
    "byt5": byt5,
    "perceiver": perceiver,
    "canine": canine,
    "esmc": esmc,
}
