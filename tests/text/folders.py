"""Tokenizer folders as models publish them, made from `tests/data/tokenizers/folders.json`.

`files` names vocabulary files below tests/data/tokenizers; or, where they are too large to copy, below the sibling
folder shared/data of the repository; or, with @, among those that `made.py` trains.
`spm` names the sentencepiece file whose ids are the truth; `reference_differs` says where the reference library
departs from it (see pellucid/text/formats/sentencepiece.py): "spaces" for a text that begins with a space or has two in
a row, "everywhere" for every text.
Folders with a `class` are for test_classes.py, which says what their `differs` means.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from made import made

DATA = Path(__file__).parents[1] / "data" / "tokenizers"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TABLE = json.loads((DATA / "folders.json").read_text(encoding="utf-8"))
CLASS_FOLDERS = [name for name, each in TABLE.items() if "class" in each]
PUBLISHED = [name for name in TABLE if name not in CLASS_FOLDERS]
RIGHT = [name for name in PUBLISHED if TABLE[name].get("reference_differs") != "everywhere"]
SPM = [name for name in PUBLISHED if "spm" in TABLE[name]]
ROOT = Path(tempfile.mkdtemp(prefix="pellucid-tokenizers-"))


def source(name: str) -> Path:
    """A data file, here or in shared/data; the test is skipped where it is in neither. Or one that is made."""
    if name.startswith("@"):
        return made(name[1:])
    for path in (DATA / name, SHARED / "tokenizers" / name, SHARED / "models" / name):
        if path.exists():
            return path
    pytest.skip(f"{name} is neither in {DATA} nor in {SHARED}")


@functools.cache
def folder(name: str) -> Path:
    """The folder of that name, written once."""
    recipe, path = TABLE[name], ROOT / name
    if "folder" in recipe:
        return source(recipe["folder"])
    files = {to: source(each) for to, each in recipe["files"].items()}
    path.mkdir()
    for to, each in files.items():
        shutil.copyfile(each, path / to)
    for key, value in recipe.items():
        if isinstance(value, dict) and key != "files":
            (path / f"{key.removesuffix('.json')}.json").write_text(json.dumps(value), encoding="utf-8")
    return path


def golden(name: str) -> list[tuple[str, list[int]]]:
    """llama.cpp's cases: a text and the ids that the original tokenizer gives, without special tokens."""
    texts = (DATA / "expected" / f"{name}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = (DATA / "expected" / f"{name}.out").read_text(encoding="utf-8").split("\n")
    return [(text, [int(id) for id in line.split()]) for text, line in zip(texts, lines, strict=True)]


TEXTS = [text for text, _ in golden("llama-spm")] + [
    "The quick brown fox doesn't jump over the lazy dog's 12,345.67 fences!",
    "héllo Ünïcode ﬁ ½ ² 日本語 한국어 العربية हिन्दी ไทย",
    "😀👩‍👩‍👧‍👦🇩🇪 e\u0301 \u200b zero\u00a0width",
    "def f(x):\n    return x ** 2\n\n\n\tprint(f(3))  # comment",
    "a" * 300,
    "x\ty\r\nz",
    "Hello world ",
    "ends with newline\n",
    "literal ▁ and <0x41> and ## and Ġ",
]
# Special tokens written out in a text. After one, the original libraries have no rule to compare with.
SPECIAL = [
    "a<s>tab</s>after",
    "fill [MASK] in [SEP] here[PAD]",
    "<extra_id_0>then<extra_id_99> and <unk>",
    "one<|endoftext|>two",
    "meet [ENT] at zzyzx road",
]


def agreed(name: str, texts: list[str]) -> list[str]:
    """The texts on which the reference library gives the ids of the original."""
    if TABLE[name].get("reference_differs") != "spaces":
        return texts
    return [text for text in texts if not text.startswith(" ") and "  " not in text]
