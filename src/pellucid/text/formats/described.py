"""Vocabulary files that bring their own special tokens and rules: what `loading` needs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from pellucid.text.classes import TokenizerClass


class Described(NamedTuple):
    """What such a file says.

    row: takes the place of a class's row.
    config: as in tokenizer_config.json, which wins over it.
    build: the Rust tokenizer without post-processor, given the options of both.
    files, facts: what `build` depends on beside row and options, for the cache of converted vocabularies. Of a file
        too large to read for that, only facts.
    """

    row: TokenizerClass
    config: dict[str, Any]
    build: Callable[[Mapping[str, Any]], Tokenizer]
    files: tuple[Path, ...]
    facts: Mapping[str, Any]
