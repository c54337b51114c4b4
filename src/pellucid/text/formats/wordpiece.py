"""BERT's vocab.txt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pellucid.errors import TokenizerError
from pellucid.text.classes import TokenizerClass


def build(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """BERT's vocab.txt: a token a line, the line number is the id."""
    with files[0].open(encoding="utf-8", newline="\n") as lines:
        vocab = {line.rstrip("\r\n"): i for i, line in enumerate(lines)}
    if unk not in vocab:
        raise TokenizerError(f"the vocabulary lacks the unknown token {unk!r}", where=files[0])
    rust = Tokenizer(models.WordPiece(vocab, unk_token=unk))
    rust.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options["tokenize_chinese_chars"],
        strip_accents=options["strip_accents"],
        lowercase=options["do_lower_case"],
    )
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece(prefix="##")
    return rust
