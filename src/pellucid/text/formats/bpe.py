"""vocab.json and merges.txt: byte-level BPE as GPT-2's, and BPE over characters of words with an end.

Three ways to write a piece that ends a word, all turned into the first: `low</w>` (GPT, CLIP, XLM); `low` beside
`lo@@` for one that goes on (CTRL, PhoBERT); no mark, because a space starts the next word (GPT-2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models

from pellucid.errors import TokenizerError
from pellucid.text.classes import TokenizerClass
from pellucid.text.recipes import RECIPES

END = "</w>"
ENDS = {"clip": END, "openai": END, "herbert": END, "ctrl": "@@", "blenderbot-small": "@@"}
MISSING = "\0pieces from here on are none of the vocabulary's"  # see `complete`
Merge = tuple[str, str]


def build(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """vocab.json and merges.txt (vocab.txt and bpe.codes where fastBPE wrote them)."""
    written = ENDS.get(row.text, "")
    special = {unk or "", *row.tokens.values(), *row.extra}
    vocab = read_fastbpe(files[0], row) if row.vocabulary == "fastbpe" else read_vocabulary(files[0])
    merges = read_merges(files[-1])
    if written == "@@":
        vocab = {as_ends(text, special): id for text, id in vocab.items()}
        merges = complete(vocab, merges)
    check_ids(vocab, files[0])
    rust = Tokenizer(
        models.BPE(
            vocab,
            merges,
            unk_token=unk if written else None,
            end_of_word_suffix=END if written else "",
            continuing_subword_prefix="",
            fuse_unk=False,
        )
    )
    rust.normalizer, rust.pre_tokenizer, rust.decoder = RECIPES[row.text](options)
    if written == "@@":  # a special token is a word
        spaced = [decoders.Replace(text, text + END) for text in sorted(special & vocab.keys())]
        rust.decoder = decoders.Sequence([*spaced, rust.decoder])
    return rust


def read_vocabulary(path: Path) -> dict[str, int]:
    """A JSON object of ids by text."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise TokenizerError(f"not readable as JSON: {e}", where=path) from None
    if not isinstance(found, dict) or not all(type(id) is int for id in found.values()):
        kind = type(found).__name__
        bad = (
            next((f"{text!r}: {id!r}" for text, id in found.items() if type(id) is not int), "")
            if kind == "dict"
            else kind
        )
        raise TokenizerError(f"expected an object of ids by token, found {bad:.80}", where=path)
    return found


def check_ids(vocab: Mapping[str, int], path: Path) -> None:
    """Ids fit the engine (32 bits, none negative), and none is given twice."""
    if not vocab:
        raise TokenizerError("the vocabulary is empty", where=path)
    low, high = min(vocab.values()), max(vocab.values())
    if low < 0 or high >= 1 << 32:
        wrong = low if low < 0 else high
        raise TokenizerError(f"id {wrong}: ids are whole numbers from 0 to {(1 << 32) - 1}", where=path)
    if len(set(vocab.values())) < len(vocab):
        seen: dict[int, str] = {}
        first, second, id = next((seen[i], text, i) for text, i in vocab.items() if seen.setdefault(i, text) != text)
        raise TokenizerError(f"{first!r} and {second!r} both have id {id}", where=path)


def read_merges(path: Path) -> list[Merge]:
    """Pairs of pieces, the first merged first; fairseq writes a count behind each."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as e:
        raise TokenizerError(f"not UTF-8: {e}", where=path) from None
    start = 1 if lines and lines[0].startswith("#version") else 0
    found: list[Merge] = []
    for number, line in enumerate(lines[start:], start + 1):
        if line := line.rstrip("\r"):
            parts = line.split(" ")
            if len(parts) not in (2, 3):
                raise TokenizerError(f"line {number}: expected two pieces, found {line!r:.60}", where=path)
            found.append((parts[0], parts[1]))
    return found


def read_fastbpe(path: Path, row: TokenizerClass) -> dict[str, int]:
    """A piece and its count a line; fairseq puts four special tokens before them and a mask behind."""
    vocab = {text: i for i, text in enumerate(("<s>", "<pad>", "</s>", "<unk>"))}
    for line in path.read_text(encoding="utf-8").splitlines():
        vocab.setdefault(line.rpartition(" ")[0], len(vocab))
    vocab.setdefault(row.tokens["mask_token"], len(vocab))
    return vocab


def as_ends(text: str, special: set[str]) -> str:
    """A piece as it is written with an end mark: `lo@@` is `lo`, `low` is `low</w>`."""
    if text in special:
        return text
    return text.removesuffix("@@") if text.endswith("@@") else text + END


def complete(vocab: dict[str, int], merges: list[Merge]) -> list[Merge]:
    """Pieces that merges need and the vocabulary lacks get ids behind it; `Tokenizer` counts these as unknown.

    These vocabularies hold what remained after merging, so steps on the way may be missing. Repeated merges go.
    """
    missing = [piece for a, b in merges for piece in (a, b, a + b) if piece not in vocab]
    for piece in dict.fromkeys([MISSING, *missing] if missing else []):
        vocab[piece] = len(vocab)
    return list(dict.fromkeys(merges))
