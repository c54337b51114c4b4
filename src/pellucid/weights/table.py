"""The weight table: which tensor of a file is which parameter, in both directions.

A family writes a plain dict from file names to slots. `{i}` stands for a layer index, `{e}` for a second one, and `{p}`
for `weight` or `bias`; other numbers stand for themselves. A slot is a canonical parameter name, or one of the small
entries below where the file keeps the values in another shape:

    "model.layers.{i}.self_attn.q_proj.{p}":         "blocks.{i}.attn.q.{p}"
    "h.{i}.attn.c_attn.weight":                      Transposed(Fused("blocks.{i}.attn.{}.weight", "qkv"))
    "model.layers.{i}.mlp.experts.down_proj":        Stacked("blocks.{i}.mlp.experts.{e}.down.weight", count=8)
    "model.layers.{i}.q_layernorm.norms.{e}.weight": Row("blocks.{i}.attn.q_norm.weight")
    "h.{i}.attn.bias":                               Recomputed("causal mask")
    "vision_tower.*":                                Unused("this is the text part")

Several file names may lead to one slot (`shared.weight`, `encoder.embed_tokens.weight`): the first is the one that a
new checkpoint is written with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fused:
    """Parameters side by side in the rows of one file tensor: `Fused("blocks.{i}.attn.{}.weight", "qkv")`.

    The rows lie in `groups` equal groups, and each holds every part's share in turn: [heads, (q, k, v)] in GPT-NeoX,
    [kv_heads, (queries, k, v)] in Falcon, gate and up row by row in gpt-oss. One group stays a view of the file.
    """

    pattern: str
    parts: str | tuple[str, ...]
    groups: int = 1


@dataclass(frozen=True)
class Transposed:
    """A matrix that the file keeps as [in, out]."""

    of: str | Fused


@dataclass(frozen=True)
class Squeezed:
    """A tensor that the file keeps with dimensions of one more, at these places of its shape."""

    of: str | Fused | MinusExp
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Folded:
    """A matrix whose columns the file keeps by heads: [rows, columns] here, [rows, heads, channels] there."""

    of: str | Transposed
    heads: int


@dataclass(frozen=True)
class Paired:
    """Rows by heads, where the file has the two halves of each head's rows in turn: 0, n/2, 1, n/2 + 1, …

    So llama.cpp keeps queries and keys of families that turn channels far apart, to turn neighbours.
    """

    of: str
    heads: int


@dataclass(frozen=True)
class Tiled:
    """Heads in groups, where the file has the first head of each group, then the second ones, …: 0, n/2, 1, n/2 + 1.

    So llama.cpp keeps the value heads of Qwen 3.5's linear attention; `dim` 1 where they are a matrix's columns.
    """

    of: str
    groups: int
    each: int
    dim: int = 0


@dataclass(frozen=True)
class Below:
    """Parameters one below the other in the rows of one tensor, as `Fused` has them, each in a layout of its own."""

    of: tuple[str | Tiled | Scaled, ...]


@dataclass(frozen=True)
class Shifted:
    """A vector that the file has with a number added: a norm's weight, which a family counts from zero."""

    of: str
    by: float


@dataclass(frozen=True)
class Scaled:
    """Numbers that the file has multiplied: Falcon H1's multipliers are in its GGUF files' weights."""

    of: str
    by: float


@dataclass(frozen=True)
class Behind:
    """A matrix without its first rows, which no token has: RoBERTa counts positions from 2, its GGUF files from 0."""

    of: str
    rows: int


@dataclass(frozen=True)
class Flat:
    """A tensor with a dimension of one more than the file has, at this place of its shape."""

    of: str | Fused | Below
    dim: int = 0


@dataclass(frozen=True)
class Cut:
    """A vector that the file has in so many rows, [parts, n / parts]."""

    of: str
    parts: int


@dataclass(frozen=True)
class MinusExp:
    """What the file has as -exp(x), or as exp(x) with `sign` 1: the decays of state spaces, rounded twice."""

    of: str | Tiled
    sign: int = -1


@dataclass(frozen=True)
class Stacked:
    """One tensor for all experts: slice `e` of its first dimension is `of`, where `{e}` is the expert."""

    of: str | Fused | Transposed | Squeezed
    count: int
    flat: bool = False  # [count * rows, ...] instead of [count, rows, ...]


@dataclass(frozen=True)
class Viewed:
    """A tensor that one file has with more or fewer dimensions of one in front, which GGUF files lose.

    No family writes this: it is found when a file is opened.
    """

    of: Layout
    wanted: tuple[int, ...]
    found: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Many tensors for one slot: the one whose name has `{e}` is the slot's row `e`."""

    of: str


@dataclass(frozen=True)
class Share:
    """Several tensors for one slot: this has rows `first` to `last` of every head's, [heads, rows, in].

    So llama.cpp keeps what keys and values of latent attention grow from; that of keys is `turned`, [heads, in, rows].
    """

    of: str
    heads: int
    first: int
    last: int
    turned: bool = False


@dataclass(frozen=True)
class Recomputed:
    """What follows from the config: compared, then dropped, or kept to be written back as it was."""

    kind: str  # "position ids" | "causal mask" | "masked score" | "inverse frequencies" | "sinusoids" | "alibi slopes"
    kept: bool = False


@dataclass(frozen=True)
class Unused:
    """A tensor that some files carry and no model reads; kept to be written back, where the reference holds it."""

    reason: str
    kept: bool = False


Layout = (
    str | Fused | Transposed | Squeezed | Folded | Paired | Tiled | Below | Shifted | Scaled | Behind | Flat | Cut
    | MinusExp | Stacked | Viewed
)  # fmt: skip
Entry = Layout | Row | Share | Recomputed | Unused

OTHER_HEAD = "part of another head"


@dataclass(frozen=True)
class Place:
    """One file tensor: the slots it fills, or why it fills none."""

    name: str
    slots: tuple[str, ...] = ()
    layout: Layout = ""
    row: int | None = None  # of the one slot, where the tensor is not the whole of it
    share: Share | None = None  # of the one slot, likewise
    recomputed: str = ""  # the kind of buffer, where it is one
    unused: str = ""  # the reason, where nothing reads it
    keep: bool = False  # written back as it was, though no slot holds it
    kept: Tensor | None = None  # what will be written back

    @property
    def pieces(self) -> tuple[str, ...]:
        """What this tensor alone fills: its slots, or the row of one."""
        if self.share is not None:
            return (f"{self.slots[0]}[{self.share.first}:{self.share.last}]",)
        return self.slots if self.row is None else (f"{self.slots[0]}[{self.row}]",)

    def shape(self, slots: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """The file tensor's shape, from the shapes of the slots."""
        if self.row is not None:
            return tuple(slots[self.slots[0]][1:])
        if (share := self.share) is not None:
            rows, inputs = share.last - share.first, slots[self.slots[0]][-1]
            return (share.heads, inputs, rows) if share.turned else (share.heads, rows, inputs)
        return _shape(self.layout, [tuple(slots[slot]) for slot in self.slots])

    def split(self, tensor: Tensor, rows: Sequence[int]) -> list[Tensor]:
        """File layout -> one tensor for each slot, views where the layout allows; `rows` are the slots' first sizes."""
        if self.share is not None:
            return [tensor.transpose(1, 2) if self.share.turned else tensor]
        if self.row is not None or not self.layout:
            return [tensor]
        columns = isinstance(self.layout, Tiled) and self.layout.dim > 0
        moved = None if columns else getattr(tensor, "moved", None)  # of a packed matrix, by rows
        parts = None if moved is None else moved(lambda numbers: _split(self.layout, numbers, rows))
        return _split(self.layout, tensor, rows) if parts is None else parts

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`; for a row, of the whole slot."""
        if self.kept is not None:
            return self.kept
        if (share := self.share) is not None:
            rows = parts[0].unflatten(0, (share.heads, -1))[:, share.first : share.last]
            return rows.transpose(1, 2) if share.turned else rows
        return parts[0][self.row] if self.row is not None else _join(self.layout, parts)


# ---------------------------------------------------------------------------------------------- layouts


def _shape(layout: Layout, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    match layout:
        case str():
            return shapes[0]
        case Fused() | Below():
            return (sum(shape[0] for shape in shapes), *shapes[0][1:])
        case Transposed(of):
            return _shape(of, shapes)[::-1]
        case Squeezed(of, dims):
            shape = list(_shape(of, shapes))
            for d in sorted(dims):
                shape.insert(d, 1)
            return tuple(shape)
        case Paired(of) | Tiled(of) | Shifted(of) | Scaled(of) | MinusExp(of):
            return _shape(of, shapes)
        case Behind(of, rows):
            first, *others = _shape(of, shapes)
            return (first - rows, *others)
        case Flat(of, dim):
            shape = list(_shape(of, shapes))
            del shape[dim]
            return tuple(shape)
        case Cut(of, parts):
            (n,) = _shape(of, shapes)
            return (parts, n // parts)
        case Folded(of, heads):
            rows, columns = _shape(of, shapes)
            return (rows, heads, columns // heads)
        case Viewed(found=found):
            return found
        case Stacked(of, count, flat):
            each = _shape(of, shapes[: len(shapes) // count])
            return (count * each[0], *each[1:]) if flat else (count, *each)


def _split(layout: Layout, tensor: Tensor, rows: Sequence[int]) -> list[Tensor]:
    import torch

    match layout:
        case str():
            return [tensor]
        case Fused(groups=1):
            return list(tensor.split(list(rows)))
        case Fused(groups=groups):
            shares = tensor.unflatten(0, (groups, -1)).split([n // groups for n in rows], dim=1)
            return [share.flatten(0, 1).contiguous() for share in shares]
        case Transposed(of):
            return _split(of, tensor.t(), rows)
        case Squeezed(of, dims):
            return _split(of, tensor.squeeze(dims), rows)
        case Folded(of):
            return _split(of, tensor.flatten(1), rows)
        case Paired(of, heads):
            return _split(of, tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2), rows)
        case Tiled(of, groups, each, dim):
            apart = tensor.unflatten(dim, (each, groups, -1))
            return _split(of, apart.transpose(dim, dim + 1).flatten(dim, dim + 2), rows)
        case Below(of):
            parts = zip(of, tensor.split(list(rows)), rows)
            return [_split(layout, part, [n])[0] for layout, part, n in parts]
        case Shifted(of, by):
            return _split(of, tensor - by, rows)
        case Scaled(of, by):
            return _split(of, tensor / by, rows)
        case Behind(of, before):
            return _split(of, torch.cat([tensor.new_zeros(before, *tensor.shape[1:]), tensor]), rows)
        case MinusExp(of, sign):
            return _split(of, (tensor * sign).log(), rows)
        case Flat(of, dim):
            return _split(of, tensor.unsqueeze(dim), rows)
        case Cut(of):
            return _split(of, tensor.flatten(), rows)
        case Viewed(of, wanted):
            return _split(of, tensor.reshape(wanted), rows)
        case Stacked(of, count, flat):
            slices = tensor.unflatten(0, (count, -1)) if flat else tensor
            each = len(rows) // count
            return [part for e in range(count) for part in _split(of, slices[e], rows[e * each : (e + 1) * each])]


def _join(layout: Layout, parts: Sequence[Tensor]) -> Tensor:
    import torch

    match layout:
        case str():
            return parts[0]
        case Fused(groups=1):
            return torch.cat(list(parts))
        case Fused(groups=groups):
            return torch.cat([part.unflatten(0, (groups, -1)) for part in parts], dim=1).flatten(0, 1)
        case Transposed(of):
            return _join(of, parts).t()
        case Squeezed(of, dims):
            tensor = _join(of, parts)
            for d in sorted(dims):
                tensor = tensor.unsqueeze(d)
            return tensor
        case Folded(of, heads):
            return _join(of, parts).unflatten(1, (heads, -1))
        case Paired(of, heads):
            return _join(of, parts).unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        case Tiled(of, groups, each, dim):
            apart = _join(of, parts).unflatten(dim, (groups, each, -1))
            return apart.transpose(dim, dim + 1).flatten(dim, dim + 2)
        case Below(of):
            return torch.cat([_join(layout, [part]) for layout, part in zip(of, parts)])
        case Shifted(of, by):
            whole = _join(of, parts)
            return whole.to(torch.promote_types(whole.dtype, torch.float32)) + by
        case Scaled(of, by):
            return _join(of, parts).float() * by
        case Behind(of, rows):
            return _join(of, parts)[rows:]
        case MinusExp(of, sign):
            return _join(of, parts).float().exp() * sign
        case Flat(of, dim):
            return _join(of, parts).squeeze(dim)
        case Cut(of, count):
            return _join(of, parts).unflatten(0, (count, -1))
        case Viewed(of, _, found):
            return _join(of, parts).reshape(found)
        case Stacked(of, count, flat):
            each = len(parts) // count
            slices = [_join(of, parts[e * each : (e + 1) * each]) for e in range(count)]
            return torch.cat(slices) if flat else torch.stack(slices)


def rounds(layout: Layout) -> bool:
    """Whether a file's numbers are turned into others, which cannot be turned back exactly."""
    match layout:
        case Shifted() | Scaled() | MinusExp():
            return True
        case Below(of):
            return any(map(rounds, of))
        case Transposed(of) | Squeezed(of) | Stacked(of) | Viewed(of):
            return rounds(of)
        case _:
            return False


def _patterns(entry: Entry) -> tuple[str, ...]:
    """The slots of an entry, with their indices open."""
    match entry:
        case str():
            return (entry,)
        case Fused(pattern, parts):
            return tuple(pattern.replace("{}", part) for part in parts)
        case Below(of):
            return tuple(slot for each in of for slot in _patterns(each))
        case (
            Transposed(of) | Squeezed(of) | Folded(of) | Paired(of) | Tiled(of) | Shifted(of) | Scaled(of) | Behind(of)
            | Flat(of) | Cut(of) | MinusExp(of) | Stacked(of) | Viewed(of) | Row(of) | Share(of)
        ):  # fmt: skip
            return _patterns(of)
        case Recomputed() | Unused():
            return ()


def mapped(entry: Entry, change: Callable[[str], str]) -> Entry:
    """An entry with another slot in the same layout."""
    match entry:
        case str():
            return change(entry)
        case Fused(pattern):
            return replace(entry, pattern=change(pattern))
        case Below(of):
            return Below(tuple(mapped(each, change) for each in of))  # type: ignore[misc]  # of the same kinds
        case (
            Transposed(of) | Squeezed(of) | Folded(of) | Paired(of) | Tiled(of) | Shifted(of) | Scaled(of) | Behind(of)
            | Flat(of) | Cut(of) | MinusExp(of) | Stacked(of) | Viewed(of) | Row(of) | Share(of)
        ):  # fmt: skip
            return replace(entry, of=mapped(of, change))  # type: ignore[arg-type]  # of the same kind as it was
        case Recomputed() | Unused():
            return entry


# ---------------------------------------------------------------------------------------------- names

T = TypeVar("T")


class Names(Generic[T]):
    """Values under names whose numbers may be open: `h.{i}.mlp.{e}.weight`. A number that is spelt out goes first."""

    def __init__(self, values: Mapping[str, T]) -> None:
        self.values = values
        self._forms: dict[str, list[tuple[str, ...]]] = {}  # name without numbers -> which are open, by their letters
        for pattern in values:
            bare, numbers = _bare(pattern)
            form = tuple(number if number.startswith("{") else "" for number in numbers)
            forms = self._forms.setdefault(bare, [])
            if form not in forms:
                forms.append(form)
                forms.sort(key=lambda form: sum(map(bool, form)))

    def find(self, name: str) -> tuple[str, T, dict[str, str]] | None:
        """The pattern that a name has, its value, and what the open numbers are."""
        bare, numbers = _bare(name)
        for form in self._forms.get(bare, ()):
            pattern = bare.format(*(letter or number for letter, number in zip(form, numbers)))
            if pattern in self.values:
                return pattern, self.values[pattern], {k: n for k, n in zip(form, numbers) if k}
        return None


def _bare(name: str) -> tuple[str, list[str]]:
    """`h.3.mlp.{e}.weight` -> `h.{}.mlp.{}.weight`, [`3`, `{e}`]"""
    numbers: list[str] = []
    steps = name.split(".")
    for at, step in enumerate(steps):
        if _is_index(step):
            numbers.append(step)
            steps[at] = "{}"
    return ".".join(steps), numbers


def _is_index(step: str) -> bool:
    return (step.isdigit() and step.isascii()) or (step[:1] == "{" and len(step) == 3)


def _filled(pattern: str, indices: Mapping[str, str]) -> str:
    for letter, number in indices.items():
        pattern = pattern.replace(letter, number)
    return pattern


# ---------------------------------------------------------------------------------------------- the table

# Spellings of BERT's first release, found in files to this day.
LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# What an encoder or a decoder is made of (`nn/tower.py`); every other slot belongs to a head.
TOWER = ("embed", "blocks", "norm", "relative_bias", "body", "out")


class Table:
    """A family's dict, ready to look names up in.

    Args:
        entries: file name pattern -> slot.
        base: what headless checkpoints leave out of the names (`bert.`, `model.`); either form is read.
        head: more entries, of one task; they go before the others.
        others: names that the heads of other tasks have.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        *,
        base: str = "",
        head: Mapping[str, Entry] | None = None,
        others: Iterable[str] = (),
    ) -> None:
        self.base = base
        self.entries: dict[str, Entry] = {}
        for layer in (head or {}, entries, dict.fromkeys(others, Unused(OTHER_HEAD))):
            for name, entry in _expanded(layer).items():
                self.entries.setdefault(name, entry)

    def find(self, name: str) -> Place | None:
        """The place of a file tensor, or None where the family knows no such name."""
        for spelling in (name, self.base + name) if self.base else (name,):
            if found := self._names.find(spelling):
                _, entry, indices = found
                return _place(name, entry, indices)
            for prefix, entry in self._prefixes.items():
                if spelling.startswith(prefix):
                    return _place(name, entry, {})
        for old, new in LEGACY.items():
            if old in name:
                place = self.find(name.replace(old, new))
                return place and replace(place, name=name)
        return None

    def default_places(self, slot: str, rows: int, *, headless: bool = False) -> list[Place]:
        """Where a new checkpoint keeps a slot of so many rows; `headless` leaves the base prefix out."""
        found = self._slots.find(slot)
        if found is None:
            return []
        _, named, indices = found
        name, entry = named[0]
        tensors = [(name, entry, indices)]
        if isinstance(entry, Row):
            tensors = [(name, entry, indices | {"{e}": str(row)}) for row in range(rows)]
        if isinstance(entry, Share):
            tensors = [(name, entry, indices) for name, entry in named if isinstance(entry, Share)]
        base = self.base if headless else ""
        return [_place(_filled(name.removeprefix(base), numbers), entry, numbers) for name, entry, numbers in tensors]

    def default_place(self, slot: str, *, headless: bool = False) -> Place | None:
        """Where a new checkpoint keeps a slot, or its first row."""
        return next(iter(self.default_places(slot, 1, headless=headless)), None)

    def module_names(self, slots: Iterator[str] | Sequence[str]) -> dict[str, str]:
        """File path of a module -> canonical path, for every parameter among `slots` that has a tensor to itself."""
        paths: dict[str, str] = {}
        for slot in slots:
            found = self._slots.find(slot)
            if found is not None:
                _, ((name, entry), *_), indices = found
                if not isinstance(entry, (Row, Share, Stacked)) and len(_patterns(entry)) == 1:
                    paths[_filled(name, indices).rpartition(".")[0]] = slot.rpartition(".")[0]
        return paths

    def reader(self, *, shared: bool = True) -> Table:
        """For the encoder of an encoder-decoder alone: its slots lose their prefix, the decoder's are not read.

        Args:
            shared: both sides have one table of tokens, so that either name is the one.
        """

        def part(slot: str) -> str | None:
            if slot.startswith("encoder."):
                return slot.removeprefix("encoder.")
            return slot if slot.split(".")[0] not in TOWER else None

        return self._half(part, "embed.tokens." if shared else None, "part of the decoder")

    def decoder(self, *, shared: bool = True) -> Table:
        """For the decoder alone: the encoder's tensors are not read."""

        def part(slot: str) -> str | None:
            return None if slot.startswith("encoder.") else slot

        table = self._half(part, "encoder.embed.tokens." if shared else None, "part of the encoder")
        for name, entry in table.entries.items():
            if any(step.startswith("cross") for slot in _patterns(entry) for step in slot.split(".")[2:]):
                table.entries[name] = Unused("attention over an encoder, and there is none", kept=True)
        return table

    def _half(self, part: Callable[[str], str | None], lent: str | None, reason: str) -> Table:
        """The entries whose slot is in a part of the model, then the other part's tokens where they are `lent`."""
        own: dict[str, Entry] = {}
        tokens: dict[str, Entry] = {}
        rest: dict[str, Entry] = {}
        for name, entry in self.entries.items():
            slots = _patterns(entry)
            if not slots or part(slots[0]) is not None:
                own[name] = mapped(entry, lambda slot: part(slot) or slot)
            elif lent is not None and slots[0].startswith(lent):
                tokens[name] = mapped(entry, lambda slot: slot.removeprefix("encoder."))
            else:
                rest[name] = Unused(reason)
        return Table(own | tokens | rest, base=self.base)

    @cached_property
    def _names(self) -> Names[Entry]:
        return Names(self.entries)

    @cached_property
    def _prefixes(self) -> dict[str, Entry]:
        return {name[:-1]: entry for name, entry in self.entries.items() if name.endswith(".*")}

    @cached_property
    def _slots(self) -> Names[list[tuple[str, Entry]]]:
        names: dict[str, list[tuple[str, Entry]]] = {}
        for pattern, entry in self.entries.items():
            for slot in _patterns(entry):
                names.setdefault(slot, []).append((pattern, entry))
        return Names(names)


def over(base: Mapping[str, Entry], new: Mapping[str, Entry]) -> dict[str, Entry]:
    """`base | new`, without the names that `base` has for the slots of `new`."""
    added = _expanded(new)
    taken = {slot for entry in added.values() for slot in _patterns(entry)}
    return {name: e for name, e in _expanded(base).items() if taken.isdisjoint(_patterns(e))} | added


def nested(entries: Mapping[str, Entry], *, name: str = "", slot: str = "") -> dict[str, Entry]:
    """A table inside another: what stands before its names, and before its slots."""
    return {name + inner: mapped(entry, lambda old: slot + old) for inner, entry in entries.items()}


def slots_of(entry: Entry) -> tuple[str, ...]:
    """The slots that an entry fills, with their indices open."""
    return _patterns(entry)


def _expanded(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """`{p}` written out; the later of two entries for one name counts."""
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        for p in ("weight", "bias") if "{p}" in name else ("",):
            found[name.replace("{p}", p)] = mapped(entry, lambda slot: slot.replace("{p}", p))  # noqa: B023
    return found


def _place(name: str, entry: Entry, indices: Mapping[str, str]) -> Place:
    match entry:
        case Recomputed(kind, kept):
            return Place(name, recomputed=kind, keep=kept)
        case Unused(reason, kept):
            return Place(name, unused=reason, keep=kept)
        case Row(of):
            return Place(name, (_filled(of, indices),), row=int(indices["{e}"]))
        case Share(of):
            return Place(name, (_filled(of, indices),), share=entry)
        case Stacked(of, count):
            return Place(name, tuple(
                _filled(slot, {**indices, "{e}": str(e)}) for e in range(count) for slot in _patterns(of)
            ), entry)  # fmt: skip
        case _:
            return Place(name, tuple(_filled(slot, indices) for slot in _patterns(entry)), entry)
