"""docs/tutorials: every block runs, and prints what the page shows. This writes the outputs anew:

python tests/test_tutorials.py [PAGE …]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import pages

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
DATA = ROOT / "tests" / "data" / "tutorials"
MINILM = ROOT.parent / "shared" / "data" / "models" / "minilm"
PAGES = sorted(page.stem for page in TUTORIALS.glob("*.md") if page.stem != "README")


def lay_out(folder: Path) -> None:
    """The tutorials' folder, as docs/tutorials/README.md makes it."""
    shutil.copytree(DATA, folder, dirs_exist_ok=True)
    if MINILM.is_dir():
        as_published(folder / "minilm")


def as_published(folder: Path) -> None:
    """The sentence model as the hub has it, in float32: the copy beside the repository is of 16 bits, which is said."""
    shutil.copytree(MINILM, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(MINILM / "model.safetensors")
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_what_is_printed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = TUTORIALS / f"{name}.md"
    if "minilm" in page.read_text("utf-8") and not MINILM.is_dir():
        pytest.skip(f"the page uses {MINILM}, which is not part of the repository")
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    pages.compare(page.read_text("utf-8"), pages.run(page))


if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        pages.write(TUTORIALS / f"{name}.md", lay_out)
