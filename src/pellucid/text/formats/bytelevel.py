"""GPT-2's vocab.json and merges.txt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pellucid.text.classes import TokenizerClass


def build(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """GPT-2's vocab.json and merges.txt, over bytes written as printable characters."""
    vocab, pairs = models.BPE.read_file(*map(str, files))
    rust = Tokenizer(models.BPE(vocab, pairs, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(options.get("add_prefix_space")))
    rust.decoder = decoders.ByteLevel()
    return rust
