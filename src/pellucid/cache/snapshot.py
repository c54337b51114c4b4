"""A cache as plain tensors and a description, and back: what a file of it holds (`models/snapshot.py`).

    group.0.k.3        keys of layer 3 in the held pages of the first group [pages, PAGE, J, K]; `v` values; of packed
                       pages `k.q`, `k.low`, `k.step`
    row.0.state.3.0    the first state of layer 3 of a row

The description is JSON: the groups, and for each row how far it is and its table, in numbers of the pages as they lie
in the file. Rows that share pages share them again. What lies in a page beyond its last token is zero.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.cache.group import NOWHERE, PAGE, Group, Kind
from pellucid.cache.packed import BITS, PackedGroup
from pellucid.cache.prefix import first_page
from pellucid.cache.row import Row, Table
from pellucid.ops.codes import Packed

Tensors = dict[str, Tensor]


def described(cache: Cache) -> tuple[Tensors, dict[str, Any]]:
    """Tensors by name, and the description."""
    pages = cache.rows[0].home if cache.rows else cache.pages
    tensors: Tensors = {}
    groups: list[Any] = []
    rows: list[dict[str, Any]] = [
        {"length": row.length, "position": row.position, "memory": row.memory, "tables": {}} for row in cache.rows
    ]
    for kind in {kind: None for row in cache.rows for kind in row.tables}:
        tables = [_kept(row, kind) for row in cache.rows]
        filled: dict[int, int] = {}  # tokens of each page
        for table, tokens in tables:
            for at, page in enumerate(table.pages[table.first :], table.first):
                filled[page] = max(filled.get(page, 0), min(PAGE, tokens - at * PAGE))
        number = {page: i for i, page in enumerate(filled)}
        for row, (table, _) in zip(rows, tables):
            held = [number[page] for page in table.pages[table.first :]]
            row["tables"][str(len(groups))] = {"first": table.first, "pages": held}
        for name, x in _layers(pages.group(kind)):
            part = x[torch.tensor(list(filled), dtype=torch.long, device=x.device)].cpu()
            if not isinstance(pages.group(kind), PackedGroup):
                for i, tokens in enumerate(filled.values()):
                    part[i, tokens:] = 0
            tensors[f"group.{len(groups)}.{name}"] = part
        groups.append(list(kind) if isinstance(kind, tuple) else kind)
    for i, kept in enumerate(cache.rows):
        for layer, state in kept.states.items():
            tensors |= {f"row.{i}.state.{layer}.{n}": x.cpu() for n, x in enumerate(state)}
    return tensors, {"page": PAGE, "bits": pages.bits, "groups": groups, "rows": rows}


def _kept(row: Row, kind: Kind) -> tuple[Table, int]:
    """A row's table without pages that nothing lies in yet, and its tokens."""
    table, tokens = row.tables.get(kind, Table()), row.memory if kind == "memory" else row.length
    return Table(table.pages[: -(-tokens // PAGE)], table.first), tokens


def _layers(group: Group) -> list[tuple[str, Tensor]]:
    """The tensors of a group, [pages, ...] each, by their names in the file."""
    if isinstance(group, PackedGroup):
        parts = ((layer, name, packed) for layer, both in group.layers.items() for name, packed in zip("kv", both[:2]))
        return [
            (f"{name}.{layer}.{field.name}", getattr(packed, field.name))
            for layer, name, packed in parts
            for field in fields(Packed)
        ]
    return [(f"{name}.{layer}", x) for layer, pool in group.pools.items() for name, x in zip("kv", pool)]


class Broken(Exception):
    """What is wrong with a description, or with the tensors beside it."""


def restored(tensors: Mapping[str, Tensor], description: Any, device: torch.device) -> Cache:
    """The cache that was described.

    Raises:
        Broken: the description, or a tensor, is not as `described` makes them.
    """
    page, bits, groups, rows = (_field(description, name) for name in ("page", "bits", "groups", "rows"))
    if page != PAGE:
        raise Broken(f"pages of {page!r} tokens; this version has {PAGE}")
    if bits not in (None, *BITS.values()):
        raise Broken(f"pages packed in {bits!r} bits")
    names = {bits: name for name, bits in BITS.items()}
    kinds = [_kind(kind) for kind in _listed(groups, "groups")]
    if len(set(kinds)) < len(kinds):
        raise Broken(f"the groups {kinds} repeat")
    cache = Cache(len(_listed(rows, "rows")), quantized=names.get(bits))
    left = dict(tensors)
    for at, kind in enumerate(kinds):
        tables = [_table(row, at) for row in rows]
        count = 1 + max((page for _, pages in tables for page in pages), default=-1)
        named = {name: left.pop(name) for name in list(left) if name.startswith(f"group.{at}.")}
        if not named or any(x.dim() != 4 or x.shape[0] != count for x in named.values()):
            raise Broken(f"the tensors of group {at} do not have {count} pages")
        if any(first > 2**20 for first, _ in tables):
            raise Broken("a row that begins beyond every text")
        if isinstance(kind, tuple) and bits is None:
            raise Broken("packed pages in a cache that has none")
        group = cache.pages.packed(kind[1]) if isinstance(kind, tuple) else cache.pages.group(kind)
        taken = list(group.take(count)) if count else []
        for row, (first, held) in zip(cache.rows, tables):
            row.tables[kind] = Table(array("i", [*[NOWHERE] * first, *(taken[page] for page in held)]), first)
            for page in held:
                group.hold(taken[page])
        for page in taken:
            group.give(page)
        _fill(group, taken, {name.removeprefix(f"group.{at}."): x.to(device) for name, x in named.items()})
    for kind in kinds:
        if isinstance(kind, tuple):
            hot, packed = cache.pages.group(kind[1]), cache.pages.packed(kind[1])
            if packed.layers.keys() != hot.pools.keys():
                raise Broken("packed pages of other layers than the others")
            for layer, (k, v, _) in packed.layers.items():
                packed.layers[layer] = k, v, hot.pools[layer][0].dtype
    for i, row in enumerate(cache.rows):
        _continue(
            row, rows[i], {name: left.pop(name).to(device) for name in list(left) if name.startswith(f"row.{i}.")}
        )
    if left:
        raise Broken(f"tensors that belong to nothing: {', '.join(sorted(left)[:3])}")
    return cache


def _fill(group: Group, pages: Sequence[int], named: Tensors) -> None:
    """Puts tensors of pages into their places."""
    at = torch.tensor(pages, dtype=torch.long)
    by_layer: dict[int, Tensors] = {}
    for name, x in named.items():
        which, number, part = [*name.split(".", 2), "", ""][:3]
        if which not in ("k", "v") or not number.isdecimal():
            raise Broken(f"the name {name!r}")
        by_layer.setdefault(int(number), {})[f"{which}.{part}".rstrip(".")] = x
    for layer, parts in by_layer.items():
        if isinstance(group, PackedGroup):
            group.layers[layer] = _packed(group, parts, "k", at), _packed(group, parts, "v", at), torch.float32
            continue
        k, v = _float_pages(parts, "k"), _float_pages(parts, "v")
        for pool, x in zip(group.pool(layer, k[:, 0], v[:, 0]), (k, v)):
            pool[at.to(pool.device)] = x


def _float_pages(parts: Tensors, name: str) -> Tensor:
    x = parts.get(name)
    if x is None or x.dim() != 4 or x.shape[1] != PAGE or not x.is_floating_point():
        raise Broken(f"{name} is {'missing' if x is None else f'{x.dtype} {list(x.shape)}'}")
    return x


def _packed(group: PackedGroup, parts: Tensors, name: str, at: Tensor) -> Packed:
    found = [parts.get(f"{name}.{field.name}") for field in fields(Packed)]
    q, low, step = found
    if q is None or low is None or step is None:
        raise Broken(f"{name} of packed pages lacks a part")
    P, S, J, K = q.shape if q.dim() == 4 else (0, 0, 0, 0)
    inner = (1, J, K) if name == "k" else (PAGE, J, 1)
    right = group.bits * PAGE == 8 * S and q.dtype == torch.uint8 and low.dtype == step.dtype == torch.bfloat16
    if not right or low.shape != step.shape or low.shape != (P, *inner):
        raise Broken(f"{name} of packed pages is {q.dtype} {list(q.shape)} with {list(low.shape)}")
    return group.with_pages(None, Packed(q, low, step), at.to(q.device))


def _continue(row: Row, fields: Any, states: Tensors) -> None:
    """How far a row is, and its states."""
    row.length, row.position, row.memory = (_count(_field(fields, name)) for name in ("length", "position", "memory"))
    for kind, table in row.tables.items():
        base = kind[1] if isinstance(kind, tuple) else kind
        tokens = row.memory if kind == "memory" else row.length
        if isinstance(kind, tuple):
            hot = row.tables.get(base)
            whole = hot is not None and (table.empty or len(table.pages) == hot.first)
        else:
            whole = len(table.pages) == -(-tokens // PAGE)
        if not whole or table.first > len(table.pages):
            raise Broken(f"a row of {tokens} tokens with {len(table.pages)} pages")
        if not isinstance(kind, tuple) and kind != "memory" and row.first(kind) > first_page(kind, row.length):
            raise Broken(f"a row of {tokens} tokens whose pages begin at {table.first}")
    for name, x in states.items():
        parts = name.split(".")
        if len(parts) != 5 or parts[2] != "state" or not parts[3].isdecimal():
            raise Broken(f"the name {name!r}")
        before = row.states.get(int(parts[3]), ())
        if parts[4] != str(len(before)):
            raise Broken(f"the states of layer {parts[3]} are not in order")
        row.states[int(parts[3])] = (*before, x)


# ---------------------------------------------------------------------------------------------- what JSON may hold


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise Broken(f"{name!r} is missing")
    return value[name]


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > 2**20:
        raise Broken(f"{name!r} is no list")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise Broken(f"{value!r} is no number of tokens")
    return value


def _kind(value: Any) -> Kind:
    if value is None or value == "memory" or (type(value) is int and value > 0):
        return value
    if isinstance(value, list) and len(value) == 2 and value[0] == "packed":
        base = _kind(value[1])
        if base is None or isinstance(base, int):
            return "packed", base
    raise Broken(f"{value!r} is no kind of pages")


def _table(row: Any, group: int) -> tuple[int, list[int]]:
    table = _field(_field(row, "tables"), str(group))
    pages = [_count(page) for page in _listed(_field(table, "pages"), "pages")]
    return _count(_field(table, "first")), pages
