"""The checkpoints of the parity tests: written by the reference library, with loud weights and a real tokenizer."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

from tokenizers import pre_tokenizers

import reference as ref
from tasks.pipeline_cases import MODELS

CLASSES = {"bert-uncased": "BertTokenizer", "t5": "T5Tokenizer", "llama2": "LlamaTokenizer", "tapas": "TapasTokenizer"}
CLASSES |= {"spm-unigram": "MBartTokenizer", "letters": "TapexTokenizer"}
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for d in documents or [] %}{{ d.title }}: {{ d.text }}\n{% endfor %}"
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
TOKENIZERS = Path(__file__).parents[1] / "data" / "tokenizers"


def letters(path: Path) -> None:
    """A byte-level BPE without merges: a token is a byte."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    (path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (path / "merges.txt").write_text("#version: 0.2\n")


@cache
def folder(name: str, root: Path) -> Path:
    """The folder of one of `MODELS`."""
    made = MODELS[name]
    data, labels = ref.fixture(made.family), made.changes.get("id2label")
    config = data["config"] | made.changes
    if labels:
        config |= {"label2id": {label: i for i, label in labels.items()}, "num_labels": len(labels)}
    if made.family == "llama":
        config |= {"rope_theta": 10000.0}  # which version 4 reads elsewhere
    path = ref.checkpoint(ref.Case(made.family, f"pipeline {name}", made.task, config, data), root)
    if made.tokenizer == "letters":
        letters(path)
    for file in (
        () if made.tokenizer == "letters" else (TOKENIZERS / made.tokenizer.replace("tapas", "bert-uncased")).iterdir()
    ):
        shutil.copy(file, path / file.name.replace("test_model.model", "sentencepiece.bpe.model"))
    if made.tokenizer == "tapas":
        (path / "vocab.txt").write_text((path / "vocab.txt").read_text() + "[EMPTY]\n")
    said = {"tokenizer_class": CLASSES[made.tokenizer], "model_max_length": config.get("max_position_embeddings", 512)}
    said |= {"chat_template": TEMPLATE} | ({"add_bos_token": True} if made.tokenizer == "llama2" else {})
    (path / "tokenizer_config.json").write_text(json.dumps(said))
    return path
