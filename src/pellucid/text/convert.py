"""Tokenizer files on disk -> a Rust `tokenizers.Tokenizer`: which format, and what the configuration says on top.

`tokenizer.json` is taken as it is. Older formats are rebuilt from parts, see `formats/`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from pellucid.errors import PellucidError, TokenizerError, Unsupported
from pellucid.text import cache
from pellucid.text.classes import GENERIC, VOCABULARIES, TokenizerClass, row
from pellucid.text.formats import bpe, fixed, sentencepiece, wordpiece
from pellucid.text.formats.described import Described


class rust_errors:  # noqa: N801  used like a function; a class costs a third of a generator, at every call
    """Errors of the Rust library, panics included, as a TokenizerError.

    It raises bare `Exception`s; a panic is a BaseException of its own that derives from nothing else.
    """

    def __init__(self, where: object) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        passed = (PellucidError, KeyboardInterrupt, SystemExit, GeneratorExit)
        if error is not None and not isinstance(error, passed):
            raise TokenizerError(f"the tokenizer is broken: {error}", where=self.where) from None


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


def choose(folder: Path, name: str) -> tuple[str, TokenizerClass]:
    """The class of a folder and its row. A class that says nothing is chosen by the files, and that is said."""
    found = row(name)
    if found is not GENERIC or (folder / "tokenizer.json").is_file():
        return name, found
    assumed = next((each for files, each in ASSUMED.items() if all((folder / file).is_file() for file in files)), None)
    if assumed == "GPT2Tokenizer":
        assumed = _kind_of_bpe(folder)
    if assumed is None:
        return name, found
    known = f"{name!r} says" if name else "no file says"
    said = f"{folder}: {known} not how to read its vocabulary; it is read as a {assumed}'s"
    if assumed != "PreTrainedTokenizer":
        warnings.warn(f"{said}. To be sure: tokenizer_class in tokenizer_config.json", UserWarning, stacklevel=4)
    return assumed, row(assumed)


# Which class reads a vocabulary that nobody's class is known for; a sentencepiece file brings its own rules.
ASSUMED: dict[tuple[str, ...], str] = dict.fromkeys(VOCABULARIES["sentencepiece"], "PreTrainedTokenizer")
ASSUMED |= {("vocab.json", "merges.txt"): "GPT2Tokenizer", ("vocab.txt",): "BertTokenizer"}


def _kind_of_bpe(folder: Path) -> str | None:
    """Words with an end, or bytes: by the pieces of vocab.json."""
    vocab = bpe.read_vocabulary(folder / "vocab.json")
    if any(text.endswith(bpe.END) for text in vocab):
        return "CLIPTokenizer" if "<|startoftext|>" in vocab else "OpenAIGPTTokenizer"
    return "GPT2Tokenizer"


def vocabulary_files(folder: Path, row: TokenizerClass) -> list[Path] | None:
    """The files of the first vocabulary that `row` can read and `folder` has."""
    for names in VOCABULARIES.get(row.vocabulary, ()):
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    return None


def build(folder: Path, name: str, row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """The tokenizer in `folder`, without special tokens and post-processor of its configuration.

    Args:
        name: the class, as the folder gives it; "" if it does not.
        options: the row's options and the folder's on top.
        unk: the text of the unknown token, for vocabularies that do not mark it.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        check_size(path)
        with rust_errors(path):
            return Tokenizer.from_file(str(path))
    if row.needs:
        raise Unsupported(
            f"{name} without a tokenizer.json: it needs {row.needs}",
            where=folder,
            next="save_pretrained it with the reference library, which has those words, and load that folder",
        )
    files = vocabulary_files(folder, row) if folder.is_dir() else None
    if files is None:
        raise _no_files(folder, name, row)
    for file in files:
        check_size(file)
    with rust_errors(files[0] if files else folder):
        return _converted(files, row, options, unk)


def build_described(folder: Path, described: Described, options: Mapping[str, Any]) -> Tokenizer:
    """The same for a file that describes its own tokenizer, see `finding`."""
    facts = {"row": repr(described.row), "options": dict(options), **described.facts}
    with rust_errors(folder):
        if described.files and not cache.worth_it(described.files):
            return described.build(options)
        return _cached(described.files, facts, lambda: described.build(options))


def _converted(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    make = BUILDERS[row.vocabulary]
    if row.vocabulary in QUICK or not cache.worth_it(files):
        return make(files, row, options, unk)
    facts = {"row": repr(row), "options": dict(options), "unk": unk}
    return _cached(files, facts, lambda: make(files, row, options, unk))


def _cached(files: Iterable[Path], facts: Mapping[str, Any], make: Callable[[], Tokenizer]) -> Tokenizer:
    """From the cache, or made and put there."""
    name = cache.key(files, facts)
    rust = cache.load(name)
    if rust is None:
        rust = make()
        cache.store(name, rust)
    return rust


def check_size(path: Path) -> None:
    """Before anything reads it: the largest published tokenizer.json has 33 MB (Gemma 3)."""
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        what = "the file is empty" if size == 0 else f"{size:,} bytes are too many for a vocabulary ({MAX_BYTES:,})"
        raise TokenizerError(what, where=path, next="fetch the file again")


def _no_files(folder: Path, name: str, row: TokenizerClass) -> TokenizerError:
    has = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    kinds = [row.vocabulary] if row is not GENERIC else ["sentencepiece", "bpe", "wordpiece"]
    accepted = ["tokenizer.json"] + [" + ".join(names) for kind in kinds for names in VOCABULARIES.get(kind, ())]
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
    "mapped": sentencepiece.build_mapped,
    "wordpiece": wordpiece.build,
    "prophetnet": wordpiece.build,
    "letters": wordpiece.build_letters,
    "bpe": bpe.build,
    "fastbpe": bpe.build,
    "fixed": fixed.build,
}
QUICK = ("wordpiece", "prophetnet", "letters", "bpe", "fastbpe", "fixed")  # built as fast as a tokenizer.json is read
MAX_BYTES = 128 << 20


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
    """Which special tokens go around a text, and around a pair. `roles` may hold "lang", the language."""
    texts = {role.removesuffix("_token"): text for role, text in roles.items() if text is not None}
    if row.single is None or row.pair is None:
        single, pair = _bos_and_eos(options, texts)
    else:
        single, pair = row.single.split(), row.pair.split()
    if row.face == "translation" and "lang" not in texts:  # not yet known, and PLBart may have none
        single, pair = ([part for part in parts if not part.startswith("{lang}")] for parts in (single, pair))
    used = {part[1:].split("}")[0] for part in pair if part.startswith("{")}
    if missing := sorted(used - texts.keys()):
        raise TokenizerError(f"no {missing[0]}_token, and the post-processor needs one")
    single, pair = ([part.format(**texts) for part in parts] for parts in (single, pair))
    plain = {part.split(":")[0] for part in row.pair.split() if part[0] not in "{$"} if row.pair else set()
    special = sorted({texts[role] for role in used} | plain)
    template = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(text, rust.token_to_id(text)) for text in special]
    )
    if row.trim:
        trim = processors.ByteLevel(trim_offsets=True, add_prefix_space=bool(options.get("add_prefix_space")))
        rust.post_processor = processors.Sequence([trim, template])
    else:
        rust.post_processor = template


def _bos_and_eos(options: Mapping[str, Any], texts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    bos = ["{bos}"] if options.get("add_bos_token") and "bos" in texts else []
    eos = ["{eos}"] if options.get("add_eos_token") and "eos" in texts else []
    single = [*bos, "$A", *eos]
    return single, [*single, *(f"{token}:1" for token in bos), "$B:1", *(f"{token}:1" for token in eos)]
