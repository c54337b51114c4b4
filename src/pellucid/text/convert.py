"""Tokenizer files on disk -> a Rust `tokenizers.Tokenizer`: which format, and what the configuration says on top.

`tokenizer.json` is taken as it is. Older formats are rebuilt from parts, see `formats/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from pellucid.errors import PellucidError, TokenizerError
from pellucid.text.classes import CLASSES, VOCABULARIES, TokenizerClass
from pellucid.text.formats import bytelevel, sentencepiece, wordpiece


@contextmanager
def rust_errors(where: object) -> Iterator[None]:
    """Errors of the Rust library, panics included, as a TokenizerError.

    It raises bare `Exception`s; a panic is a BaseException of its own that derives from nothing else.
    """
    try:
        yield
    except (PellucidError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as e:
        raise TokenizerError(f"the tokenizer is broken: {e}", where=where) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise TokenizerError(f"not readable as JSON: {e}", where=path) from None
    if not isinstance(found, dict):
        raise TokenizerError(f"holds a {type(found).__name__}, expected an object", where=path)
    return found


def vocabulary_files(folder: Path, row: TokenizerClass) -> list[Path]:
    """The files of the first vocabulary that `row` can read and `folder` has."""
    for names in VOCABULARIES.get(row.vocabulary, ()):
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    return []


def build(folder: Path, name: str, row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """The tokenizer in `folder`, without special tokens and post-processor of its configuration.

    Args:
        name: the class, as the folder gives it; "" if it does not.
        options: the row's options and the folder's on top.
        unk: the text of the unknown token, for WordPiece.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        with rust_errors(path):
            return Tokenizer.from_file(str(path))
    files = vocabulary_files(folder, row) if name.removesuffix("Fast") in CLASSES else []
    if not files:
        raise _no_files(folder, name, row)
    with rust_errors(files[0]):
        return BUILDERS[row.vocabulary](files, row, options, unk)


def _no_files(folder: Path, name: str, row: TokenizerClass) -> TokenizerError:
    has = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    accepted = ["tokenizer.json"]
    if name.removesuffix("Fast") in CLASSES or not name:
        accepted += [" + ".join(names) for names in VOCABULARIES.get(row.vocabulary, ())]
    return TokenizerError(
        f"no tokenizer files for {name or 'an unnamed tokenizer class'}; accepted: {', '.join(accepted)}; "
        f"the folder has: {', '.join(has[:20]) or 'nothing'}",
        where=folder,
        next="add one of the accepted files"
        + ("" if name else ", or name the class: tokenizer_class in tokenizer_config.json"),
    )


Builder = Callable[[list[Path], TokenizerClass, Mapping[str, Any], str | None], Tokenizer]
BUILDERS: dict[str, Builder] = {
    "sentencepiece": sentencepiece.build,
    "wordpiece": wordpiece.build,
    "bytelevel": bytelevel.build,
}


# ---- what the configuration says on top ------------------------------------------------------------------

# Option of tokenizer_config.json -> the part of tokenizer.json that it sets. The option wins over the file,
# as in transformers 4 and 5.
PATCHES = {
    "do_lower_case": ("BertNormalizer", "lowercase"),
    "strip_accents": ("BertNormalizer", "strip_accents"),
    "tokenize_chinese_chars": ("BertNormalizer", "handle_chinese_chars"),
    "add_prefix_space": ("ByteLevel", "add_prefix_space"),
}


def patch(rust: Tokenizer, option: str, value: Any) -> bool:
    """Set one option in a tokenizer that came from tokenizer.json; False if it has no such part."""
    kind, key = PATCHES[option]
    found = False
    for attribute in ("normalizer", "pre_tokenizer"):
        part = getattr(rust, attribute)
        state = json.loads(part.__getstate__()) if part is not None else {}
        inner = state.get("normalizers") or state.get("pretokenizers") or [state]
        for one in (one for one in inner if one.get("type") == kind):
            found = True
            if one[key] != value:
                one[key] = value
                part.__setstate__(json.dumps(state).encode())
                setattr(rust, attribute, part)
    return found


def post_processor(
    rust: Tokenizer, row: TokenizerClass, options: Mapping[str, Any], roles: Mapping[str, str | None]
) -> None:
    """Which special tokens go around a text, and around a pair."""
    bos = ["{bos}"] if options.get("add_bos_token") and roles["bos_token"] else []
    eos = ["{eos}"] if options.get("add_eos_token") and roles["eos_token"] else []
    if row.single is None or row.pair is None:
        single = [*bos, "$A", *eos]
        pair = [*single, *(f"{token}:1" for token in bos), "$B:1", *(f"{token}:1" for token in eos)]
    else:
        single, pair = row.single.split(), row.pair.split()
    texts = {role.removesuffix("_token"): text for role, text in roles.items() if text is not None}
    used = {part[1:].split("}")[0] for part in pair if part.startswith("{")}
    if missing := sorted(used - texts.keys()):
        raise TokenizerError(f"no {missing[0]}_token, and the post-processor needs one")
    rust.post_processor = processors.TemplateProcessing(
        single=[part.format(**texts) for part in single],
        pair=[part.format(**texts) for part in pair],
        special_tokens=[(texts[role], rust.token_to_id(texts[role])) for role in sorted(used)],
    )
