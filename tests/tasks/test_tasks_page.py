"""docs/tasks.md: its examples run with tiny models, and its table says what is compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import pellucid
from pellucid.compat.pipelines.base import UNNEEDED, Pipeline, options_of
from pellucid.compat.pipelines.making import ALIASES, KINDS
from tasks.pipeline_cases import CASES, NER, NLI
from test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "tasks.md"
TOKENIZERS = ROOT / "tests" / "data" / "tokenizers"
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
T5 = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
PUBLISHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": ("bert", "SequenceClassification", NLI),
    "cross-encoder/nli-MiniLM2-L6-H768": ("bert", "SequenceClassification", NLI),
    "dslim/bert-base-NER": ("bert", "TokenClassification", NER),
    "deepset/minilm-uncased-squad2": ("bert", "QuestionAnswering", {}),
    "google-bert/bert-base-uncased": ("bert", "MaskedLM", {}),
    "google/tapas-base-finetuned-wtq": ("tapas", "TableQuestionAnswering", {}),
    "google-t5/t5-small": ("t5", "Seq2SeqLM", T5),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the ids of published models are the paths of tiny ones."""
    root = tmp_path_factory.mktemp("published")
    for name, (family, head, keys) in PUBLISHED.items():
        given = keys if family == "t5" else {**SMALL, **keys}
        config = pellucid.AutoConfig.for_model(family, vocab_size=32128 if family == "t5" else 30522, **given)
        getattr(pellucid, f"AutoModelFor{head}").from_config(config).save_pretrained(root / name)
        for file in (TOKENIZERS / ("t5" if family == "t5" else "bert-uncased")).iterdir():
            shutil.copy(file, root / name)
    return root


def test_the_page_runs(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)
    names: dict[str, object] = {}
    for block in blocks(PAGE, "python"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(names) > 10


def table() -> str:
    """Of each task: its aliases, the options that cases of the parity tests give, and the others."""
    lines = ["| task | options compared | other options |", "|---|---|---|"]
    for kind in KINDS:
        cases = [case for case in CASES.values() if task_of(case.task) == kind.task]
        given = {name for case in cases for name in (*case.options, *case.made)}
        own = [name for name in dict.fromkeys(options_of(kind)) if name not in UNNEEDED]
        names = ", ".join([f"`{kind.task}`", *(f"`{alias}`" for alias, task in ALIASES.items() if task == kind.task)])
        compared, others = ([f"`{name}`" for name in own if (name in given) == asked] for asked in (True, False))
        lines.append(f"| {names} | {', '.join(compared)} | {', '.join(others)} |")
    return "\n".join(lines)


def task_of(name: str) -> str:
    return "translation" if name.startswith("translation") else ALIASES.get(name, name)


def test_the_table_is_that_of_the_code() -> None:
    assert table() in PAGE.read_text("utf-8"), f"docs/tasks.md lacks:\n{table()}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.task)
def test_options_are_described(kind: type[Pipeline]) -> None:
    """Each option of a pipeline stands in its docstring, or in one that it extends."""
    said = " ".join(each.__doc__ or "" for each in kind.__mro__)
    beside = {"logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "assistant_model",
              "assistant_tokenizer", "generation_config", "padding"}  # fmt: skip  # of `generate`
    missing = [name for name in options_of(kind) if name not in said and name not in beside]
    assert not missing, missing


if __name__ == "__main__":
    print(table())
