"""Seconds to load a vocabulary of 128,000 tokens from each form, the first time and from the cache; no torch.

    python benchmarks/tokenizer_loading.py

The vocabulary is made up: byte-level pieces, each the union of two others, and every way to split one is a merge (Llama
3 has 280,000, which take longer). Processor time of a fresh process each, the best of five, without importing; the
reference beside it.
"""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from pellucid.text.formats.tiktoken import ALPHABET

SIZE = 128_000
OURS = """
import sys, time
from pathlib import Path
from pellucid.text.tokenizer import Tokenizer
import pellucid.text.faces
start = time.process_time()
Tokenizer.from_folder(sys.argv[1], tokenizer_class=sys.argv[2])
print(time.process_time() - start)
assert "torch" not in sys.modules
"""
THEIRS = """
import sys, time
import transformers
start = time.process_time()
getattr(transformers, sys.argv[2]).from_pretrained(sys.argv[1])
print(time.process_time() - start)
"""


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces by id, and every way to split one into two, by id."""
    random.seed(0)
    letters = [chr(letter) for letter in ALPHABET.values()]
    pieces = list(letters)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    while len(vocab) < SIZE:
        piece = random.choice(pieces) + pieces[int(random.random() ** 3 * len(pieces))]
        if len(piece) <= 12 and piece not in vocab:
            vocab[piece] = len(vocab)
            pieces.append(piece)
    splits = [(piece[:cut], piece[cut:]) for piece in vocab for cut in range(1, len(piece))]
    return vocab, [(a, b) for a, b in splits if a in vocab and b in vocab]


def sentencepiece(pieces: list[str], algorithm: int) -> bytes:
    """A `.model` file of these pieces; see formats/spm.py for the fields."""

    def field(number: int, value: bytes) -> bytes:
        size, out = len(value), bytes([number << 3 | 2])
        while size >= 128:
            out, size = out + bytes([size & 127 | 128]), size >> 7
        return out + bytes([size]) + value

    def piece(text: str, score: float, kind: int) -> bytes:
        return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))

    first = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3)
    rest = b"".join(piece(text, -float(i), 1) for i, text in enumerate(pieces))
    return first + rest + field(2, bytes([0x18, algorithm]))


def folders(root: Path) -> dict[str, tuple[Path, str]]:
    """The forms, each with the class that reads it."""
    vocab, merges = vocabulary()
    paths = {name: root / name for name in ("json", "pairs", "bpe", "unigram", "tiktoken")}
    for path in paths.values():
        path.mkdir()
    rust = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}{1,3}|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(False, True, False),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([f"<|reserved_special_token_{i}|>" for i in range(256)])
    rust.save(str(paths["json"] / "tokenizer.json"))
    (paths["pairs"] / "vocab.json").write_text(json.dumps(vocab))
    (paths["pairs"] / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    pieces = [piece.replace("Ġ", "▁") for piece in vocab]
    (paths["bpe"] / "tokenizer.model").write_bytes(sentencepiece(pieces, 2))
    (paths["unigram"] / "spiece.model").write_bytes(sentencepiece(pieces, 1))
    letters = {chr(letter): byte for byte, letter in ALPHABET.items()}
    ranks = (bytes(letters[letter] for letter in piece) for piece in vocab)
    lines = (f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(ranks))
    (paths["tiktoken"] / "qwen.tiktoken").write_text("".join(lines))
    return {
        "tokenizer.json": (paths["json"], "PreTrainedTokenizerFast"),
        "vocab.json + merges.txt": (paths["pairs"], "GPT2Tokenizer"),
        "sentencepiece BPE": (paths["bpe"], "LlamaTokenizer"),
        "sentencepiece unigram": (paths["unigram"], "T5Tokenizer"),
        "tiktoken": (paths["tiktoken"], "QWenTokenizer"),
    }


def seconds(program: str, path: Path, name: str, cache: str) -> float | None:
    environment = os.environ | {"PELLUCID_CACHE": cache, "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(path), name],
        env=environment,
        capture_output=True,
        text=True,
    )
    return float(run.stdout.split()[-1]) if run.returncode == 0 else None


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        print("| form | first time | from the cache | transformers 5.23 |\n|---|---|---|---|")
        for form, (path, name) in folders(Path(root)).items():
            cache = str(Path(root) / "cache")
            first = [seconds(OURS, path, name, "") for _ in range(5)]
            seconds(OURS, path, name, cache)
            again = [seconds(OURS, path, name, cache) for _ in range(5)]
            there = [seconds(THEIRS, path, name, "") for _ in range(3)]
            best = [min(each) if None not in each else None for each in (first, again, there)]  # type: ignore[type-var]
            print(f"| {form} | {' | '.join('—' if each is None else f'{each:.2f} s' for each in best)} |", flush=True)


if __name__ == "__main__":
    main()
