"""The native kernels: one plain shared library beside the Python files. Everything else is in pyproject.toml.

Where they cannot be compiled the installation goes on without them, and leaves the reason in ops/cpu/not_built.txt, for
`pellucid check`. See docs/building.md.
"""

from __future__ import annotations

import platform
import re
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("src/pellucid/ops/cpu")
LIBRARY = "pellucid/ops/cpu/kernels.so"
VERSION = runpy.run_path(str(FOLDER / "version.py"))
OLDEST = (2, 17)  # the glibc of the oldest name that installers know


class Kernels(build_ext):
    """A library without Python's interface, under one name for every Python."""

    failure = ""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def get_libraries(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        library = Path(self.get_ext_fullpath(ext.name))
        kept = FOLDER / "kernels.so"
        if self.editable_mode and kept.is_file() and VERSION["fits"](kept, FOLDER):  # installed again, with more extras
            library.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(kept), str(library))
            return
        # the times of files do not tell: one may be gone, or have come with an older time
        self.force = self.force or not (library.is_file() and VERSION["fits"](library, FOLDER))
        try:
            super().build_extension(ext)
        except Exception as error:
            self.failure = re.sub(r"'\['(.*?)'.*\]'", r"'\1'", str(error)) + "\n"  # the command without its arguments
            raise  # to where optional extensions are left out

    def run(self) -> None:
        super().run()
        for library in [Path(self.build_lib) / LIBRARY] + [FOLDER / "kernels.so"] * bool(self.inplace):
            note = library.with_name("not_built.txt")
            note.unlink(missing_ok=True)
            if self.failure:
                library.unlink(missing_ok=True)  # of sources that were others
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(self.failure)


class Wheel(bdist_wheel):
    """For every Python 3; with kernels, for the systems whose C library has the functions that they call."""

    def get_tag(self) -> tuple[str, str, str]:
        library = Path(self.bdist_dir or "") / LIBRARY
        if not library.is_file():
            return "py3", "none", "any"
        if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
            return "py3", "none", super().get_tag()[2]
        called = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", library.read_bytes())
        major, minor = max([OLDEST, *((int(a), int(b)) for a, b in called)])
        return "py3", "none", f"manylinux_{major}_{minor}_{platform.machine()}"


setup(
    ext_modules=[
        Extension(
            "pellucid.ops.cpu.kernels",
            sources=sorted(str(path) for path in FOLDER.glob("*.cpp")),
            depends=sorted(str(path) for path in FOLDER.glob("*.h")),
            language="c++",
            define_macros=[("PELLUCID_SOURCES", f'"{VERSION["digest"](FOLDER)}"')],
            optional=True,  # without a compiler everything works in torch
            # OpenMP's functions are torch's own, found when the library is loaded: no second runtime is linked.
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-ffp-contract=fast",
                "-fno-exceptions",
                "-fno-rtti",
                "-fopenmp",
            ],
        )
    ],
    cmdclass={"build_ext": Kernels, "bdist_wheel": Wheel},
)
