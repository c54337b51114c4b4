"""The weight table: which tensor of a file is which parameter, in both directions.

A family writes a plain dict from file names to slots. `{i}` stands for a layer index and `{p}` for `weight` or
`bias`. A slot is a canonical parameter name, or one of the small entries below where the file keeps the values in
another shape:

    "model.layers.{i}.self_attn.q_proj.{p}": "blocks.{i}.attn.q.{p}"
    "h.{i}.attn.c_attn.weight":              Transposed(Fused("blocks.{i}.attn.{}.weight", "qkv"))
    "h.{i}.attn.bias":                       Recomputed("causal mask")

Several file names may lead to one slot (`shared.weight`, `encoder.embed_tokens.weight`): the first is the one that a
new checkpoint is written with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fused:
    """Parameters stacked along the output rows of one file tensor: `Fused("blocks.{i}.attn.{}.weight", "qkv")`."""

    pattern: str
    parts: str | tuple[str, ...]

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(self.pattern.replace("{}", part) for part in self.parts)


@dataclass(frozen=True)
class Transposed:
    """A matrix that the file keeps as [in, out]."""

    of: str | Fused


@dataclass(frozen=True)
class Recomputed:
    """A buffer that follows from the config: compared, then dropped."""

    kind: str  # "position ids" | "causal mask" | "masked score" | "inverse frequencies"


@dataclass(frozen=True)
class Unused:
    """A tensor that some files carry and no model reads."""

    reason: str


Entry = str | Fused | Transposed | Recomputed | Unused


@dataclass(frozen=True)
class Place:
    """One file tensor: the slots it fills, in row order, or what it is a copy of."""

    name: str
    slots: tuple[str, ...]
    transposed: bool = False
    recomputed: str = ""  # the kind of buffer, where it is one
    unused: str = ""  # the reason, where nothing reads it

    def shape(self, slots: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """The file tensor's shape, from the shapes of the slots."""
        first = tuple(slots[self.slots[0]])
        whole = (sum(slots[slot][0] for slot in self.slots), *first[1:]) if first else first
        return whole[::-1] if self.transposed else whole

    def split(self, tensor: Tensor, rows: Sequence[int]) -> list[Tensor]:
        """File layout -> one view for each slot; `rows` are the slots' output rows."""
        if self.transposed:
            tensor = tensor.t()
        return [tensor] if len(self.slots) == 1 else list(tensor.split(list(rows)))

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`."""
        import torch

        tensor = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        return tensor.t() if self.transposed else tensor


# Spellings of BERT's first release, found in files to this day.
LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)")


class Table:
    """A family's dict, ready to look names up in.

    Args:
        entries: file name pattern -> slot.
        base: what headless checkpoints leave out of the names (`bert.`, `model.`); either form is read.
    """

    def __init__(self, entries: Mapping[str, Entry], *, base: str = "") -> None:
        self.base = base
        self.entries: dict[str, Entry] = {}
        for pattern, entry in entries.items():
            for p in ("weight", "bias") if "{p}" in pattern else ("",):
                self.entries[pattern.replace("{p}", p)] = _with_p(entry, p)

    def find(self, name: str) -> Place | None:
        """The place of a file tensor, or None where the family knows no such name."""
        for spelling in (name, self.base + name) if self.base else (name,):
            for pattern, index in _patterns(spelling):
                if pattern in self.entries:
                    return _place(name, self.entries[pattern], index)
        for old, new in LEGACY.items():
            if old in name:
                found = self.find(name.replace(old, new))
                return found and replace(found, name=name)
        return None

    def default_place(self, slot: str, *, headless: bool = False) -> Place | None:
        """Where a new checkpoint keeps a slot; `headless` leaves the base prefix out."""
        for pattern, index in _patterns(slot):
            if pattern in self._by_slot:
                name, entry = self._by_slot[pattern]
                if headless:
                    name = name.removeprefix(self.base)
                return _place(name.replace("{i}", index), entry, index)
        return None

    @cached_property
    def _by_slot(self) -> dict[str, tuple[str, Entry]]:
        first: dict[str, tuple[str, Entry]] = {}
        for pattern, entry in self.entries.items():
            for slot in _slots(entry):
                first.setdefault(slot, (pattern, entry))
        return first

    def module_names(self, slots: Iterator[str] | Sequence[str]) -> dict[str, str]:
        """File path of a module -> canonical path, for every unfused parameter among `slots`."""
        paths: dict[str, str] = {}
        for slot in slots:
            place = self.default_place(slot)
            if place is not None and len(place.slots) == 1:
                paths[place.name.rpartition(".")[0]] = slot.rpartition(".")[0]
        return paths


def _with_p(entry: Entry, p: str) -> Entry:
    match entry:
        case str():
            return entry.replace("{p}", p)
        case Fused(pattern, parts):
            return Fused(pattern.replace("{p}", p), parts)
        case Transposed(of):
            return Transposed(_with_p(of, p))  # type: ignore[arg-type]  # of is str | Fused, and so is the result
        case Recomputed() | Unused():
            return entry


def _slots(entry: Entry) -> tuple[str, ...]:
    match entry:
        case str():
            return (entry,)
        case Fused():
            return entry.slots
        case Transposed(of):
            return _slots(of)
        case Recomputed() | Unused():
            return ()


def _patterns(name: str) -> Iterator[tuple[str, str]]:
    """A name as patterns with their layer index: the first number as `{i}`, or all numbers as they stand."""
    found = _INDEX.search(name)
    if found:
        yield f"{name[: found.start()]}{{i}}{name[found.end() :]}", found[0]
    yield name, ""


def _place(name: str, entry: Entry, index: str) -> Place:
    return Place(
        name,
        tuple(slot.replace("{i}", index) for slot in _slots(entry)),
        transposed=isinstance(entry, Transposed),
        recomputed=entry.kind if isinstance(entry, Recomputed) else "",
        unused=entry.reason if isinstance(entry, Unused) else "",
    )
