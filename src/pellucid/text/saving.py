"""A Tokenizer -> a folder that both libraries load as the same tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import InputError
from pellucid.text import fingerprint
from pellucid.text.chats import named
from pellucid.text.classes import ROLES
from pellucid.text.loading import CONFIG

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

# What tokenizer.json holds once it is written; repeated in tokenizer_config.json it could only contradict it.
BAKED_IN = {
    "add_bos_token",
    "add_eos_token",
    "added_tokens_decoder",
    "name_or_path",
    "chat_template",
    "special_tokens_map_file",
    "extra_special_tokens",
    "additional_special_tokens",
    "tokenizer_file",
    "vocab_file",
    "auto_map",
    *ROLES,
}


def save(tok: Tokenizer, folder: Path, prefix: str = "") -> tuple[str, ...]:
    """tokenizer.json, its two configuration files, the chat template and a fingerprint; the paths written.

    `prefix` goes before the name of every file but the fingerprint, which is of a folder.
    """
    make_folder(folder)
    special: dict[str, Any] = dict(tok.special_tokens_map)
    if tok.extra_special_tokens:
        special["additional_special_tokens"] = tok.extra_special_tokens
    config = {name: value for name, value in tok.init_kwargs.items() if name not in BAKED_IN}
    config |= special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": tok.model_input_names,
        "model_max_length": tok.model_max_length,
        "padding_side": tok.padding_side,
        "truncation_side": tok.truncation_side,
        "clean_up_tokenization_spaces": tok.clean_up_tokenization_spaces,
    }
    if tok.split_special_tokens or "split_special_tokens" in config:
        config["split_special_tokens"] = tok.split_special_tokens
    files = {
        "tokenizer.json": tok.rust.to_str(pretty=True),
        CONFIG: _json(config),
        "special_tokens_map.json": _json(special),
    }
    files |= named.files(tok.chat_template)
    files = {prefix + name: text for name, text in files.items()}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    if not prefix:
        fingerprint.write(fingerprint.take(tok, folder), folder)
    return tuple(str(folder / name) for name in ([*files] if prefix else [*files, fingerprint.FILE]))


def make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file", where="save_directory", next="give a folder")
    folder.mkdir(parents=True, exist_ok=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
