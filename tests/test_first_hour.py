"""docs/first-hour.md: every command of it runs, and prints what the page shows.

python tests/test_first_hour.py      writes the outputs anew
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import pages
from pellucid.cli import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-hour.md"
DATA = ROOT.parent / "shared" / "data"
REVIEWS = 200


def lay_out(folder: Path) -> None:
    """The files that the page speaks of."""
    shutil.copytree(DATA / "models" / "minilm", folder / "minilm")
    lines = (DATA / "sentiment" / "rt-polarity.pos").read_text("latin-1").splitlines()[:REVIEWS]
    (folder / "reviews.txt").write_text("\n".join(line.strip() for line in lines) + "\n", "utf-8")
    rows = ["sentence1\tsentence2\tscore", "A dog runs.\tA puppy is running.\t4.6", "A dog runs.\tStocks fell.\t0"]
    rows += [
        "It rains.\tIt is raining hard.\t4",
        "He sings.\tShe sings in a choir.\t2.5",
        "He sings.\tSalt is cheap.\t0.2",
    ]
    (folder / "alike.tsv").write_text("\n".join(rows) + "\n", "utf-8")


def answer(command: str) -> str:
    """What the terminal shows: standard output, or where there is none the last word on the other, without the log."""
    words = shlex.split(command)
    assert words[0] == "pellucid"
    result = CliRunner().invoke(main, words[1:], catch_exceptions=False)
    said = [line for line in result.stderr.splitlines(keepends=True) if not line.startswith("minilm: ")]
    return result.stdout or "".join(said)


@pytest.mark.skipif(not DATA.is_dir(), reason="the page uses ../shared/data/models/minilm")
def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    pages.compare(PAGE.read_text("utf-8"), made(PAGE))


def made(page: Path) -> str:
    return pages.run_console(page, answer)


if __name__ == "__main__":
    pages.write(PAGE, lay_out, made)
