"""vocab.txt: a token a line, the line number is the id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from pellucid.errors import TokenizerError
from pellucid.text.classes import TokenizerClass
from pellucid.text.recipes import RECIPES

MAX_LETTERS = 5000  # ESM has 33; each is a part of one regular expression


def build(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """BERT's vocabulary: the longest piece first, pieces inside a word begin with ##."""
    vocab = read(files[0], unk)
    rust = Tokenizer(models.WordPiece(vocab, unk_token=unk or ""))
    rust.normalizer, rust.pre_tokenizer, rust.decoder = RECIPES[row.text](options)
    return rust


def build_letters(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """ESM's amino acids: every token of the file is found wherever it stands, what lies between is unknown."""
    vocab = {token.strip(): id for token, id in read(files[0], unk).items()}
    rust = Tokenizer(models.WordLevel(vocab, unk_token=unk or ""))
    if len(vocab) > MAX_LETTERS:
        raise TokenizerError(f"{len(vocab):,} tokens are too many for an alphabet", where=files[0])
    tokens = sorted((token for token in vocab if token), key=len, reverse=True)
    pattern = "|".join("".join(f"\\x{{{ord(char):x}}}" for char in token) for token in tokens)
    find = pre_tokenizers.Split(Regex(pattern), "isolated")
    rust.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), find])
    return rust


def read(path: Path, unk: str | None) -> dict[str, int]:
    """Ids by token. A token that occurs twice has the later line's id, as in the reference."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as e:
        raise TokenizerError(f"not UTF-8: {e}", where=path) from None
    if lines and not lines[-1]:
        lines.pop()
    vocab = {line.rstrip("\r"): i for i, line in enumerate(lines)}
    if unk not in vocab:
        raise TokenizerError(f"the vocabulary lacks the unknown token {unk!r}", where=path)
    return vocab
