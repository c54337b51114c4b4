"""Tokenizers of every kind of token, loaded from tests/data or trained here: `tokenizer("byte-bpe")`."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from pellucid.text.tokenizer import Tokenizer
from pellucid.text.training.train import train_tokenizer

DATA = Path(__file__).parents[1] / "data" / "tokenizers"
WORDS = "once upon a time there was a little girl who liked to play in the park with her dog and the big ball"
TEXTS = [" ".join(WORDS.split()[n:] + WORDS.split()[:n]) for n in range(20)] + ["http:// https://www. ab abc http"] * 9


@cache
def tokenizer(name: str) -> Tokenizer:
    """stories260K, llama2 (sentencepiece with bytes), spm-unigram, or a kind that is trained."""
    if name == "spm-unigram":
        return _sentencepiece(name, "test_model.model")
    if (DATA / name).is_dir():
        return _sentencepiece(name, "tokenizer.model")
    size = {"byte-bpe": 320}.get(name, 100)
    return train_tokenizer(TEXTS, name, vocab_size=size)


def _sentencepiece(name: str, file: str) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(DATA / name / file, Path(folder) / "tokenizer.model")
        named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        settings = named | {
            "tokenizer_class": "LlamaTokenizer" if file == "tokenizer.model" else "PreTrainedTokenizerFast"
        }
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings))
        return Tokenizer.from_folder(folder)
