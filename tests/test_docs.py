"""The documents run: every Python block as it stands, and the family that docs/adding-a-family.md adds."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch

import pellucid
import reference as ref
from pellucid import families

ROOT = Path(__file__).parents[1]
NAMES = (
    "reading-order", "training-a-tokenizer", "chat", "chat-templates", "generation", "engine", "plan-and-bench",
    "quantize", "evaluation", "cards", "first-hour",
)  # fmt: skip
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES)]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page, "python")
    assert found
    names: dict[str, object] = {}  # a page is read from top to bottom
    for block in found:
        exec(compile(block, str(page), "exec"), names)


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_family_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family in another package, found through an entry point, agrees with the reference past its window."""
    page = ROOT / "docs" / "adding-a-family.md"
    written = blocks(page, "python")[0]
    assert written == (ROOT / "src/pellucid/families/mistral.py").read_text("utf-8")
    (tmp_path / "my_mistral.py").write_text(written)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("mistral", "my_mistral", "pellucid.families")
    monkeypatch.setattr(
        families,
        "entry_points",
        lambda **asked: EntryPoints([entry] if asked.get("name", "mistral") == "mistral" else []),
    )
    fixture = json.loads(blocks(page, "json")[0])
    for changes in ({}, *fixture["variants"].values()):
        case = ref.Case("mistral", str(changes), "causal-lm", {**fixture["config"], **changes})
        folder = ref.checkpoint(case, tmp_path)
        ids = torch.randint(3, 101, (2, 13), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert ref.distance(ref.ours(case, folder)(ids).logits, ref.reference(case, folder)(ids).logits) < 1e-4
    sys.modules.pop("my_mistral", None)


def test_public_names_exist_and_have_docstrings() -> None:
    for name in pellucid.__all__:
        assert getattr(pellucid, name).__doc__, name
    with pytest.raises(AttributeError, match="AutoTokenizer"):
        pellucid.AutoTokeniser  # noqa: B018


def test_family_files_stay_short() -> None:
    """A family is a page: half of them have at most 45 lines, and at most a quarter bring a module of their own."""
    folder = ROOT / "src/pellucid/families"
    own = {path.parent for path in folder.glob("[!_]*/__init__.py")}
    files = [*folder.glob("[!_]*.py"), *(path / "__init__.py" for path in own)]
    lines = sorted(len(path.read_text("utf-8").splitlines()) for path in files)
    assert lines[len(lines) // 2] <= 45
    assert len(own) <= len(files) / 4
