"""Which file of a folder describes its own tokenizer: tekken.json, tiktoken ranks, GGUF.

Other vocabularies need a class that says how to read them, see `convert.choose`. A tokenizer.json comes before all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import TokenizerError
from pellucid.gguf import is_gguf
from pellucid.text.classes import VOCABULARIES
from pellucid.text.formats import gguf, tekken, tiktoken
from pellucid.text.formats.described import Described

# Later parts of a split model, and image encoders, have no vocabulary.
WITHOUT_VOCABULARY = re.compile(r"mmproj|-(?!00001-of-)\d{5}-of-\d{5}\.gguf$")


def find(
    folder: Path, gguf_file: str | None, class_name: str, config: Mapping[str, Any], vocab_size: int | None
) -> Described | None:
    """What describes itself in `folder`, or None.

    Args:
        folder: may be the path of a GGUF file.
        gguf_file: a GGUF file in `folder`, which then comes first.
        class_name: `tokenizer_class`, or ""; tells apart models that share their ranks.
        config: tokenizer_config.json; names the special tokens of some rank files.
        vocab_size: of config.json.

    Raises:
        TokenizerError: several files are candidates, or the one that was asked for is none.
    """
    if gguf_file is not None or folder.is_file():
        return gguf.describe(_asked(folder, gguf_file))
    if not folder.is_dir() or (folder / "tokenizer.json").is_file():
        return None
    if (folder / "tekken.json").is_file():
        return tekken.describe(folder / "tekken.json")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if ranks := [path for path in files if _has_ranks(path)]:
        listed = config.get("added_tokens_decoder") or {}
        named = {int(id): token["content"] for id, token in listed.items()}
        return tiktoken.describe(_only(ranks, "tiktoken_file"), class_name, named, vocab_size)
    others = {name for choices in VOCABULARIES.values() for names in choices for name in names}
    models = [path for path in files if path.suffix == ".gguf" and not WITHOUT_VOCABULARY.search(path.name)]
    if models and not any(path.name in others for path in files):
        return gguf.describe(_only(models, "gguf_file"))
    return None


def _asked(folder: Path, gguf_file: str | None) -> Path:
    path = folder if gguf_file is None else folder / gguf_file
    if not path.is_file() or not is_gguf(path):
        raise TokenizerError("not a GGUF file", where=path, next="give a folder, or the path of a .gguf file")
    return path


def _has_ranks(path: Path) -> bool:
    return path.suffix == ".tiktoken" or (path.suffix == ".model" and tiktoken.is_ranks(path))


def _only(paths: list[Path], argument: str) -> Path:
    if len(paths) > 1:
        names = [path.name for path in paths]
        what = f"{len(names)} vocabularies: {', '.join(names[:10])}"
        one = f"say which: {argument}={names[0]!r}" if argument == "gguf_file" else "keep the one of the model"
        raise TokenizerError(what, where=paths[0].parent, next=one)
    return paths[0]
