"""The native kernels: one plain shared library beside the Python files. Everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = Path("src/pellucid/ops/cpu")
SOURCES = sorted(str(path) for path in FOLDER.glob("*.cpp"))
HEADERS = sorted(str(path) for path in FOLDER.glob("*.h"))


class Kernels(build_ext):
    """A library without Python's interface, under one name for every Python."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def get_libraries(self, ext: Extension) -> list[str]:
        return []


setup(
    ext_modules=[
        Extension(
            "pellucid.ops.cpu.kernels",
            sources=SOURCES,
            depends=HEADERS,
            language="c++",
            optional=True,  # without a compiler everything works in torch
            # OpenMP's functions are torch's own, found when the library is loaded: no second runtime is linked.
            extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-exceptions", "-fno-rtti", "-fopenmp"],
        )
    ],
    cmdclass={"build_ext": Kernels},
)
