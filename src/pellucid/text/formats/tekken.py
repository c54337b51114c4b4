"""Mistral's tekken.json: byte-level ranks as in a tiktoken file, with the split pattern and the special tokens.

Special tokens have the first ids, in a block whose size the file states; the block's free ids are <SPECIAL_20> …
The ranks follow, as many as the model's vocabulary has: the file holds more. Files up to version 7 may leave their
special tokens out, then these are the ones below.

Source: mistral_common/tokens/tokenizers/tekken.py and base.py of github.com/mistralai/mistral-common (1.13).
"""

from __future__ import annotations

import binascii
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pellucid.errors import TokenizerError
from pellucid.text.classes import TokenizerClass
from pellucid.text.formats import tiktoken
from pellucid.text.formats.described import Described

MAX_BYTES = 128 << 20  # the largest published file is 19 MB
MAX_SPECIAL = 1 << 16  # the published files have 1000
OLD_SPECIAL = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS]"
    " [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
).split()
ROW = TokenizerClass(
    tokens={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    options={"add_bos_token": True},
    padding_side="left",
)


def describe(path: Path) -> Described:
    """A tekken.json, for `loading`."""
    return Described(ROW, {}, lambda options: build(path), (path,), {})


def build(path: Path) -> Tokenizer:
    """The tokenizer in a tekken.json, without post-processor.

    Raises:
        TokenizerError: the file is too large, is not JSON, lacks a part or has one of another kind, or contradicts
            itself.
    """
    data = _load(path)
    try:
        config = data["config"]
        count, size = _int(config["default_num_special_tokens"]), _int(config["default_vocab_size"])
        if not 0 <= count <= min(size, MAX_SPECIAL):
            raise ValueError(f"{count} special tokens in a vocabulary of {size}")
        special = _special(data, count)
        ranks = _ranks(data["vocab"], size - count, count)
        tiktoken.check(ranks, where=path)
        pattern = config["pattern"]
        if not isinstance(pattern, str):
            raise TypeError(f"the pattern is a {type(pattern).__name__}")
    except (KeyError, TypeError, ValueError) as e:
        what = f"it lacks {e}" if isinstance(e, KeyError) else str(e)
        raise TokenizerError(f"not a readable tekken.json: {what}", where=path, next=tiktoken.AGAIN) from None
    return tiktoken.convert(ranks, pattern, special, where=path)


def _load(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_BYTES:
        raise TokenizerError(f"{path.stat().st_size} bytes are too many for a tekken.json", where=path)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise TokenizerError(f"not readable as JSON: {e}", where=path, next=tiktoken.AGAIN) from None
    if not isinstance(data, dict):
        raise TokenizerError(f"holds a {type(data).__name__}, expected an object", where=path)
    return data


def _special(data: dict[str, Any], count: int) -> dict[int, str]:
    """The texts of the first `count` ids."""
    stated = data.get("special_tokens")
    if stated is None:
        found = dict(enumerate(OLD_SPECIAL))
    else:
        found = {_int(each["rank"]): each["token_str"] for each in stated}
        if len(found) < len(stated):
            raise ValueError("two special tokens have one id")
    if any(not isinstance(text, str) or not text or not 0 <= id < count for id, text in found.items()):
        raise ValueError(f"a special token without text, or with an id beyond the {count} that the file reserves")
    special = {id: found.get(id, f"<SPECIAL_{id}>") for id in range(count)}
    if len(set(special.values())) < count:
        raise ValueError("a special token occurs twice")
    return special


def _ranks(vocab: Any, wanted: int, shift: int) -> dict[bytes, int]:
    """The first `wanted` tokens, with ids behind the special ones."""
    if not isinstance(vocab, list) or len(vocab) < wanted:
        raise ValueError(f"a vocabulary of {len(vocab)}; the configuration says {wanted}")
    ranks = {}
    for rank, each in enumerate(vocab[:wanted]):
        if each["rank"] != rank:
            raise ValueError(f"the token at {rank} has the rank {each['rank']!r:.40}")
        ranks[binascii.a2b_base64(each["token_bytes"], strict_mode=True)] = rank + shift
    if len(ranks) < wanted:
        raise ValueError("a token occurs twice")
    return ranks


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} where a number is expected")
    return value
