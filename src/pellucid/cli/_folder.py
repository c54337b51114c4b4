"""What the files of a model folder say before any tensor is read. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid import families, quant
from pellucid.config import Config, read_json
from pellucid.families import Family
from pellucid.spec import LmHead, Spec, Task
from pellucid.weights.gguf import SUFFIX
from pellucid.weights.source import NAMES, Weights, open_weights
from pellucid.weights.table import Table


@dataclass(frozen=True)
class Known:
    """A config.json, understood."""

    config: Config
    family: Family
    spec: Spec
    unknown: dict[str, Any]  # keys that nobody knows

    def table(self, task: Task | None = None) -> Table:
        """What the files of a task call things."""
        gguf = Path(str(self.config.where)).suffix == SUFFIX
        return self.family.gguf_table(self.config, task) if gguf else self.family.table(self.config, task)

    @property
    def named(self) -> str:
        """The class that wrote the file, where it says so."""
        return str((self.config.get("architectures") or [""])[0])

    @property
    def task(self) -> Task | None:
        """The task of that class; else the family's first."""
        for task, name in self.family.classes.items():
            if name == self.named:
                return task
        return next(iter(self.spec.heads), None)


def understand(folder: Path) -> Known:
    """The config and spec of a folder.

    Raises:
        ConfigError: see `errors.py`.
    """
    config, family = families.read_config(folder)
    spec, unknown = family.spec(config)
    return Known(config, family, spec, unknown)


@dataclass(frozen=True)
class Stored:
    """What the headers of the weight files say."""

    files: tuple[str, ...]
    parameters: int
    bytes: dict[str, int]  # by the file's dtype, or by the kind of what stays packed
    packed: dict[str, int]  # kind -> matrices that stay packed
    ways: dict[str, str]  # kind -> what multiplies by them on this machine

    @property
    def dtype(self) -> str:
        """The dtype of most bytes; what is packed takes that of the others."""
        kinds = [kind for kind in self.bytes if kind not in self.packed]
        return max(kinds, key=lambda kind: self.bytes[kind], default="F32" if self.packed else "")


def stored(folder: Path, known: Known) -> Stored | None:
    """The headers of a folder's safetensors, or of a GGUF file; None where there are none (a `.bin` has none).

    Raises:
        WeightsError: a header is broken.
    """
    if not folder.is_file() and not any((folder / name).is_file() for name in NAMES["safetensors"]):
        return None
    weights = quant.opened(open_weights(folder, prefer="safetensors"), packing(folder))
    size: Counter[str] = Counter()
    packed: Counter[str] = Counter()
    for name in weights.names:
        entry = weights.entry(name)
        size[entry.dtype] += entry.nbytes
        packed[entry.dtype] += weights.packed(name)
    count = parameters(weights, known.table(), known.spec)
    packed = +packed
    found = Stored(tuple(path.name for path in weights.files), count, dict(size), dict(packed), {})
    return replace(found, ways={kind: quant.way(weights, kind, found.dtype) for kind in packed})


def packing(folder: Path) -> Mapping[str, Any]:
    """What config.json says of how weights are packed."""
    found = {} if folder.is_file() else read_json(folder / "config.json").get("quantization_config")
    return found or {}


def parameters(weights: Weights, table: Table, spec: Spec) -> int:
    """Numbers in the files that a model holds: no buffers, and a tied matrix once."""
    same = {"encoder.embed.tokens.weight": "embed.tokens.weight"}
    if any(isinstance(head, LmHead) and head.tied for head in spec.heads.values()):
        same["lm_head.out.weight"] = "embed.tokens.weight"
    count: dict[tuple[str, ...], int] = {}
    for name in weights.names:
        place = table.find(name)
        slots = place.slots if place else (name,)
        if slots:
            count[tuple(same.get(slot, slot) for slot in slots)] = math.prod(weights.entry(name).shape)
    return sum(count.values())


def size_text(n: float) -> str:
    """Bytes as people say them, in powers of ten."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" or n >= 100 else f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def table_text(rows: list[tuple[str, str]]) -> str:
    """Two columns; a label that repeats is written once."""
    width = max((len(label) for label, _ in rows), default=0)
    lines, before = [], ""
    for label, text in rows:
        lines.append(f"{'' if label == before else label:<{width}}  {text}".rstrip())
        before = label
    return "\n".join(lines)
