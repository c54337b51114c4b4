"""The migration pages run, block by block, with tiny models where they name published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import pellucid
from pellucid import hub
from pellucid.cli import main
from test_docs import ROOT, blocks

BERT = ROOT / "tests" / "data" / "tokenizers" / "bert-uncased"
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 32}
LABELS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
MODULES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 24, "pooling_mode_cls_token": True},
}  # fmt: skip
STARS = {str(i): f"{i + 1} stars" for i in range(5)}


def checkpoint(folder: Path, kind: str, auto: str, **keys: object) -> None:
    config = pellucid.AutoConfig.for_model(kind, vocab_size=30522, **keys)
    getattr(pellucid, auto).from_config(config).save_pretrained(folder)
    for file in BERT.iterdir():
        shutil.copy(file, folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the ids of published models are the paths of tiny ones."""
    root = tmp_path_factory.mktemp("published")
    small = {"dim": 24, "n_layers": 1, "n_heads": 12, "hidden_dim": 32}
    checkpoint(root / "distilbert/distilbert-base-uncased", "distilbert", "AutoModelForMaskedLM", **small)
    sentiment = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
    checkpoint(root / sentiment, "distilbert", "AutoModelForSequenceClassification", **small, **LABELS)
    stars = root / "nlptown/bert-base-multilingual-uncased-sentiment"
    checkpoint(stars, "bert", "AutoModelForSequenceClassification", **SMALL, id2label=STARS)
    minilm = root / "sentence-transformers/all-MiniLM-L6-v2"
    checkpoint(minilm, "bert", "AutoModel", **SMALL)
    for name, content in MODULES.items():
        (minilm / name).parent.mkdir(exist_ok=True)
        (minilm / name).write_text(json.dumps(content))
    checkpoint(
        root / "cross-encoder/ms-marco-MiniLM-L6-v2",
        "bert",
        "AutoModelForSequenceClassification",
        **SMALL,
        num_labels=1,
    )
    shutil.copytree(hub.default_model(), root / "meta-llama/Llama-2-7b-hf")
    return root


@pytest.mark.parametrize("page", ["from-transformers", "from-sentence-transformers"])
def test_the_page_runs(page: str, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)
    found = blocks(ROOT / "docs" / f"{page}.md", "python")
    assert len(found) > 4
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, page, "exec"), names)


def test_without_a_model_it_is_the_references_choice() -> None:
    from transformers.pipelines import SUPPORTED_TASKS

    from pellucid.compat.pipelines.making import DEFAULT_MODELS

    named = {task: facts["default"]["model"] for task, facts in SUPPORTED_TASKS.items() if task in DEFAULT_MODELS}
    assert len(named) == 6 and named.items() <= DEFAULT_MODELS.items()


def test_a_sentence_model_in_fewer_bits_is_one(published: Path, tmp_path: Path) -> None:
    """What makes a vector of a text's states goes with the weights."""
    source = published / "sentence-transformers/all-MiniLM-L6-v2"
    result = CliRunner().invoke(main, ["quantize", str(source), str(tmp_path / "small"), "--to", "int8"])
    assert result.exit_code == 0, result.output
    texts = ["The weather is lovely today.", "He drove to the stadium."]
    whole, small = (pellucid.SentenceTransformer(str(folder)).encode(texts) for folder in (source, tmp_path / "small"))
    assert pellucid.cos_sim(whole, small).diagonal().min() > 0.99
