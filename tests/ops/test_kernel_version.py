"""A library of kernels is used with the sources that it was compiled from, and with no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from native import needs_kernels
from pellucid.ops import cpu
from pellucid.ops.cpu.version import digest, fits

HERE = cpu.FILE.parent
load = cpu.kernels.__wrapped__  # anew, not what was loaded before
needs_library = needs_kernels(cpu.kernels() is not None)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with these kernels; its folder of sources."""
    folder = tmp_path / "src" / "pellucid" / "ops" / "cpu"
    folder.mkdir(parents=True)
    (tmp_path / "setup.py").touch()
    for file in [*HERE.glob("*.cpp"), *HERE.glob("*.h"), cpu.FILE]:
        shutil.copy(file, folder)
    monkeypatch.setattr(cpu, "FILE", folder / "kernels.so")
    return folder


@needs_library
def test_the_sources_are_its_own(tree: Path) -> None:
    assert fits(cpu.FILE, tree) and load() is not None


@needs_library
@pytest.mark.parametrize("change", ["another line", "a new file", "one less"])
def test_of_other_sources(tree: Path, change: str) -> None:
    """It is not used, and the warning has the command that compiles it again."""
    match change:
        case "another line":
            (tree / "steps.h").write_text((tree / "steps.h").read_text() + "\n")
        case "a new file":
            (tree / "more.cpp").touch()
        case "one less":
            (tree / "steps.cpp").unlink()
    with pytest.warns(UserWarning, match=r"other sources.*setup.py -q build_ext --inplace") as said:
        assert load() is None
    assert len(said) == 1 and str(tree.parents[3]) in str(said[0].message)


@needs_library
def test_without_sources_there_is_nothing_to_compare(tree: Path) -> None:
    for file in [*tree.glob("*.cpp"), *tree.glob("*.h")]:
        file.unlink()
    assert load() is not None


def test_a_name_counts(tmp_path: Path) -> None:
    """Not only what is in the files together."""
    found = set()
    for names in (("a.h", "b.h"), ("a.h", "c.h"), ("a.cpp", "b.h")):
        folder = tmp_path / "-".join(names).replace(".", "-")
        folder.mkdir()
        for name in names:
            (folder / name).write_text("x")
        found.add(digest(folder))
    assert len(found) == 3 and digest(tmp_path) == ""  # no sources
