"""The same vocabulary as a GGUF file, as llama.cpp's converter writes it: metadata for `gguf_files.write`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from folders import source

from gguf_files import As
from pellucid.text.formats import spm

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def ggml(model: str, tokens: list[str], kinds: list[int], **keys: Any) -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": As(5, kinds),
        **{f"tokenizer.ggml.{key}": value for key, value in keys.items()},
    }


@functools.cache
def gpt2() -> dict[str, Any]:
    ids = json.loads(source("gpt2/vocab.json").read_text(encoding="utf-8"))
    merges = source("gpt2/merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    tokens = sorted(ids, key=ids.__getitem__)
    kinds = [CONTROL if token == "<|endoftext|>" else NORMAL for token in tokens]
    return ggml("gpt2", tokens, kinds, pre="gpt-2", merges=merges, bos_token_id=50256, eos_token_id=50256)


@functools.cache
def bert() -> dict[str, Any]:
    lines = source("bert-uncased/vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def spelled(token: str) -> str:
        if token.startswith("[") and token.endswith("]"):
            return token
        return token[2:] if token.startswith("##") else "▁" + token

    kinds = [CONTROL if token in special else NORMAL for token in lines]
    return ggml("bert", [spelled(token) for token in lines], kinds, token_type_count=2)


def sentencepiece(path: Path, model: str, **keys: Any) -> dict[str, Any]:
    found = spm.read(path)
    return ggml(
        model,
        [piece.text for piece in found.pieces],
        [piece.kind for piece in found.pieces],
        scores=[piece.score for piece in found.pieces],
        add_space_prefix=found.add_dummy_prefix,
        remove_extra_whitespaces=found.remove_extra_whitespaces,
        **({"precompiled_charsmap": As(0, list(found.charsmap))} if found.charsmap else {}),
        **keys,
    )


@functools.cache
def llama2() -> dict[str, Any]:
    keys = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return sentencepiece(source("llama2/tokenizer.model"), "llama", add_bos_token=True, add_eos_token=False, **keys)


@functools.cache
def t5() -> dict[str, Any]:
    keys = {"eos_token_id": 1, "unknown_token_id": 2, "padding_token_id": 0}
    return sentencepiece(source("t5/spiece.model"), "t5", add_bos_token=False, add_eos_token=True, **keys)


def small(**keys: Any) -> dict[str, Any]:
    """Bytes, a few merges, and a token of each kind."""
    alphabet = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    tokens = [*alphabet, "he", "ll", "hell", "hello", "Ġw", "<s>", "</s>", "  ", "<|im_end|>", "[PAD]"]
    kinds = [NORMAL] * (len(tokens) - 5) + [CONTROL, CONTROL, USER_DEFINED, CONTROL, UNUSED]
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w"]
    keys = {"pre": "gpt-2", "merges": merges, "bos_token_id": 261, "eos_token_id": 262} | keys
    return ggml("gpt2", tokens, kinds, **keys)
