"""Trained embeddings on real texts: docs/embeddings.md as it stands, and examples/quality.py."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

import pellucid
from tasks.test_sentences import lay_out
from test_docs import ROOT, blocks

EXAMPLE = runpy.run_path(str(ROOT / "examples" / "quality.py"))


@pytest.fixture(scope="module")
def model(shared: Path) -> pellucid.SentenceTransformer:
    return pellucid.SentenceTransformer(shared / "models" / "minilm", model_kwargs={"dtype": "float32"})


def test_a_linear_probe(model: pellucid.SentenceTransformer, shared: Path) -> None:
    """0.7626 of all 10,662; the whole takes two minutes of a core, so it goes with the full contract."""
    whole = os.environ.get("PELLUCID_CONTRACT") == "full"
    right = EXAMPLE["probe"](model, shared / "sentiment", None if whole else 700)
    assert right >= (0.76 if whole else 0.68)


def test_neighbours_are_of_their_own_language(model: pellucid.SentenceTransformer, shared: Path) -> None:
    assert EXAMPLE["neighbours"](model, shared / "text" / "udhr") >= 0.95


def test_the_page_about_embeddings(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner in ("sentence-transformers", "cross-encoder", "Qwen"):
        (tmp_path / owner).mkdir()
    (tmp_path / "sentence-transformers" / "all-MiniLM-L6-v2").symlink_to(shared / "models" / "minilm")
    lay_out("cross", tmp_path / "made").rename(tmp_path / "cross-encoder" / "ms-marco-MiniLM-L6-v2")
    lay_out("cross-judge-bare", tmp_path / "made").rename(tmp_path / "Qwen" / "Qwen3-Reranker-0.6B")
    monkeypatch.chdir(tmp_path)
    found = blocks(ROOT / "docs" / "embeddings.md", "python")
    assert len(found) >= 5
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, "embeddings.md", "exec"), names)
