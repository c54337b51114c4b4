"""Whether a wheel holds everything: in an empty environment, without a compiler, it tells the expected story.

    python tests/wheel.py dist/pellucid-*.whl      (`make wheel` does it)

torch and the other requirements are those of the environment that runs this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from zipfile import ZipFile

DATA = Path(__file__).parent / "data"
SOURCE = Path(__file__).parents[1] / "src"


def main(wheel: Path) -> None:
    check_files(wheel)
    with tempfile.TemporaryDirectory() as folder:
        python = installed(wheel, Path(folder))
        machine = json.loads(call(python, folder, "-m", "pellucid", "check", "--json"))
        assert machine["ok"] and machine["kernels"], machine["findings"]
        story = call(python, folder, "-m", "pellucid", "generate", "--greedy", "--no-stream", "--max-new-tokens", "256")
        assert story == (DATA / "expected_greedy.txt").read_text()
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB, installs and runs its kernels without a compiler")


def check_files(wheel: Path) -> None:
    """Every file of the package is in the wheel, and nothing that is no longer there."""
    there = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "pellucid").rglob("*") if path.is_file()}
    there = {name for name in there if "__pycache__" not in name}
    there = there - {"pellucid/ops/cpu/not_built.txt"} | {"pellucid/ops/cpu/kernels.so"}
    packed = {name for name in ZipFile(wheel).namelist() if name.startswith("pellucid/")}
    assert packed == there, sorted(packed ^ there)


def installed(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment with the wheel, and with the requirements of this one."""
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python)
    call(sys.executable, Path.cwd(), *pip, "install", "--no-deps", "--no-index", wheel)
    site = call(python, folder, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "requirements.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not read
    where = call(python, folder, "-c", "import pellucid; print(pellucid.__file__)")
    assert where.startswith(str(folder)), where
    return python


def call(python: Path | str, folder: Path | str, *arguments: object) -> str:
    """What it prints, where neither a compiler nor this tree is to be found."""
    return subprocess.run(
        [python, *map(str, arguments)], cwd=folder, env={"PATH": ""}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
