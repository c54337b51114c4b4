"""Packed formats: one file each. A format is added here, and nothing else is edited: no family, no layer, no loader.

`quant/<method>.py` is found by its name: the `quant_method` of config.json's `quantization_config` ("gptq", "awq",
"compressed-tensors" with an underscore), or "gguf" for such a file. The module has

    groups(entries, options)      which file tensors make one weight: a `Group` each (`quant/format.py`). What is in no
                                  group is an ordinary tensor. Headers only: `show` and `plan` call it without torch, so
                                  torch is imported inside functions, or by a file `_<name>.py` that `pack` imports
    pack(group, parts, options)   the group's tensors, as the file has them -> a `PackedTensor` (`ops/packed.py`)
    a subclass of PackedTensor    unpack(rows)     the reference: those rows as numbers, by torch ops, exact
                                  pick(rows)       the bytes of some rows; `RowsPacked` has it: parts are [rows, …]
                                  joined(pieces)   matrices below one another
                                  file_names(name) what a file calls the parts of a weight; for saving
                                  file_parts()     the parts in a file's shapes, where those are others
                                  way()            a native kernel, where this machine has one; else tiles in torch

What follows for every family without a line of its own: the weight is a parameter of the usual name, shape and dtype; a
fused or stacked file tensor is cut into packed pieces by the weight table, and put together again when it is saved; an
embedding looks up packed rows; taps, hooks and adapters are where they always are; gradients flow through, not into it.

Options are what a config says that changes the meaning of bytes; a variant that a format cannot read is `Unsupported`.
A format made while loading (`load_in_4bit`) gives `models.loading.load` its `pack`: (slot, numbers) -> PackedTensor.
Its tests: bit for bit against the format's own library or published layout, and tests/contracts/test_packed_weights.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, cast

from pellucid.errors import PellucidError, Unsupported, WeightsError
from pellucid.quant.format import Entries, Format, Group
from pellucid.weights.gguf import GgufFile
from pellucid.weights.safetensors import Entry
from pellucid.weights.source import Behind, Weights

if TYPE_CHECKING:
    from torch import Tensor

TILES = "unpacked in tiles, and multiplied by torch"
HELPERS = ("format",)  # modules here that are no formats


def names() -> list[str]:
    """Every format that this version reads."""
    return sorted(
        module.name for module in iter_modules(__path__) if module.name not in HELPERS and module.name[0] != "_"
    )


def find(method: object) -> Format | None:
    """The format of a `quant_method`; None for one that is not here."""
    name = str(method).replace("-", "_")
    return cast(Format, import_module(f"pellucid.quant.{name}")) if name in names() else None


def opened(weights: Weights, options: Mapping[str, Any] | None = None) -> Weights:
    """The same files with every group of packed parts as one tensor.

    Args:
        options: config.json's `quantization_config`.

    Raises:
        WeightsError, Unsupported: see `Format.groups`.
    """
    options = options or {}
    if not isinstance(options, Mapping):
        raise WeightsError(f"quantization_config is {options!r:.100}", where="config.json", next="download it again")
    method = "gguf" if isinstance(weights.only_file, GgufFile) else options.get("quant_method")
    if method is None and (options.get("load_in_4bit") or options.get("load_in_8bit")):
        method = "bitsandbytes"  # as its first checkpoints say it
    form = None if method is None else find(method)
    if form is None and options:
        what = f"weights packed with quantization_config={dict(options)!r:.200}"
        readable = ", ".join(names()).replace("_", "-")
        raise Unsupported(what, where="config.json", next=f"load the unpacked checkpoint, or one of {readable}")
    return weights if form is None else PackedWeights(weights, form, options)


def way(weights: Weights, kind: str, dtype: str) -> str:
    """What multiplies by the packed matrices of a kind on this machine, in a dtype such as "BF16".

    The smallest of them is asked, as layers will ask: where a format turns a matrix to multiply by it, that is done.
    """
    import torch

    names = (name for name in weights.names if weights.packed(name) and weights.entry(name).dtype == kind)
    smallest = min(names, key=lambda name: weights.entry(name).nbytes)
    try:
        matrix: Any = weights.tensor(smallest).to(torch.bfloat16 if dtype == "BF16" else torch.float32)
    except PellucidError as error:
        return f"not read: {error.what}"
    chosen = matrix.chosen()
    return TILES if chosen is None else str(chosen.name)


class PackedWeights(Behind):
    """Weights, some of which stand for several tensors of their files. `names` has them where their first part was."""

    def __init__(self, of: Weights, form: Format, options: Mapping[str, Any]) -> None:
        super().__init__(of)
        self._form, self._options = form, options
        self.groups = {group.name: group for group in form.groups(Entries(of), options)}
        home = {part: group.name for group in self.groups.values() for part in group.parts.values()}
        self._names = list(dict.fromkeys(home.get(name, name) for name in of.names))

    @property
    def names(self) -> list[str]:
        return self._names

    @property
    def nbytes(self) -> int:
        return sum(self.entry(name).nbytes for name in self._names)

    def entry(self, name: str) -> Entry:
        """Kind and shape of a weight, and the bytes of all its parts."""
        group = self.groups.get(name)
        if group is None:
            return self._of_files.entry(name)
        size = sum(self._of_files.entry(part).nbytes for part in group.parts.values())
        return Entry(name, group.kind, tuple(group.shape), 0, size)

    def packed(self, name: str) -> bool:
        """Whether a tensor stays packed in memory."""
        return name in self.groups

    def tensor(self, name: str) -> Tensor:
        """A tensor, or a `PackedTensor` over the mapped parts."""
        group = self.groups.get(name)
        if group is None:
            return self._of_files.tensor(name)
        parts = {part: self._of_files.tensor(file_name) for part, file_name in group.parts.items()}
        made: Tensor = self._form.pack(group, parts, self._options)
        return made

    def file_of(self, name: str) -> Path:
        return self._of_files.file_of(self._parts(name)[0])

    def release(self, name: str) -> int:
        return sum(self._of_files.release(part) for part in self._parts(name))

    def dirty(self, name: str) -> bool | None:
        found = [self._of_files.dirty(part) for part in self._parts(name)]
        return None if None in found else any(found)

    def _parts(self, name: str) -> list[str]:
        group = self.groups.get(name)
        return [name] if group is None else list(group.parts.values())


__all__ = ["Format", "Group", "PackedWeights", "find", "names", "opened"]
