"""Snapshots: a cache in a file, so that a long prompt is read once and gone on from in another process.

A .safetensors file with the tensors of `cache/snapshot.py`; in its metadata the description, a fingerprint of the
model, and the ids of each row if they were given. Loading runs nothing, and refuses what another model filled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from pellucid.cache.cache import Cache
from pellucid.cache.group import Kind
from pellucid.cache.snapshot import Broken, described, restored
from pellucid.errors import ArgumentError, WeightsError
from pellucid.models.model import Model
from pellucid.nn.attention import Attention
from pellucid.nn.latent import LatentAttention
from pellucid.weights.safetensors import SafetensorsFile, parse_json
from pellucid.weights.save import save_file

FORMAT = "pellucid-cache-1"
SAMPLE = 16  # numbers of each parameter that the fingerprint takes


def save(cache: Cache, path: str | Path, model: Model, ids: Sequence[Sequence[int]] | None = None) -> None:
    """Writes a cache to a file.

    Args:
        ids: the tokens of each row, to be found again with it.

    Raises:
        ArgumentError: `ids` of another number of rows.
        WeightsError: the disk is full, or the file cannot be written.
    """
    if ids is not None and len(ids) != len(cache):
        raise ArgumentError(f"ids of {len(ids)} rows for a cache of {len(cache)}", where="ids")
    tensors, description = described(cache)
    text = json.dumps({"cache": description, "ids": None if ids is None else [list(map(int, row)) for row in ids]})
    save_file(tensors, path, {"format": FORMAT, "model": fingerprint(model), "description": text})


def load(path: str | Path, model: Model) -> tuple[Cache, list[list[int]] | None]:
    """The cache of a file, on the model's device, and the ids that were saved with it.

    Raises:
        WeightsError: not such a file, or a broken one.
        ArgumentError: another model filled it: another architecture, other sizes, another dtype, other weights.
    """
    file = SafetensorsFile(path)
    if file.metadata.get("format") != FORMAT:
        raise WeightsError(
            "not a saved cache", where=path, next="save one with pellucid.models.snapshot.save(cache, path, model)"
        )
    mine = fingerprint(model)
    if file.metadata.get("model") != mine:
        raise ArgumentError(
            f"the cache is of another model, {file.metadata.get('model', 'unknown')[:80]}; this one is {mine}",
            where=path,
            next="load the model that filled it, in the same dtype",
        )
    whole = parse_json(file.metadata.get("description", "").encode(), path)
    try:
        if not isinstance(whole, dict):
            raise Broken("no description")
        cache = restored({name: file.tensor(name) for name in file.entries}, whole.get("cache"), model.device)
        _check(cache, model)
        return cache, _ids(whole.get("ids"), len(cache))
    except Broken as error:
        raise WeightsError(f"a broken cache: {error}", where=path, next="save it again") from None


def _ids(value: object, rows: int) -> list[list[int]] | None:
    if value is None:
        return None
    lists = isinstance(value, list) and len(value) == rows and all(isinstance(row, list) for row in value)
    if not isinstance(value, list) or not lists or not all(type(token) is int for row in value for token in row):
        raise Broken("the ids are not one list of numbers for each row")
    return value


def _check(cache: Cache, model: Model) -> None:
    """That every attention layer finds its keys, in its shape."""
    for module in model.blocks.modules():
        if not isinstance(module, Attention) or module.spec.kv_from is not None:
            continue
        kind: Kind = "memory" if module.cross else module.spec.window or module.spec.chunk
        group = cache.pages.groups.get(kind)
        pool = group.pools.get(module.layer) if group is not None else None
        shape = (module.spec.kv_heads, module.spec.head_dim)
        if isinstance(module, LatentAttention):
            shape = (1, module.latent.kv_rank + module.latent.rope_dim)
        fits = pool is not None and pool[0].shape[2:] == shape
        filled = [row for row in cache.rows if (row.memory if module.cross else row.length)]
        if filled and not (fits and all(kind in row.tables for row in filled)):
            raise Broken(f"no keys {list(shape)} for layer {module.layer}")


# ---------------------------------------------------------------------------------------------- which model


def fingerprint(model: Model) -> str:
    """Which model fills a cache: family, dtype, a hash of the architecture and of some numbers of each parameter."""
    found = hashlib.sha256(repr(model.spec).encode())
    for name, module in model.named_modules():
        for own in module._parameters:
            parameter = _read(module, own)
            if parameter is not None:
                found.update(f"{name}.{own} {parameter.dtype} {tuple(parameter.shape)}".encode())
                some = parameter.detach().flatten()[:SAMPLE].float().cpu()
                found.update(some.numpy().tobytes())
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{model.spec.family} {dtype} {found.hexdigest()[:32]}"


def _read(module: nn.Module, name: str) -> torch.Tensor | None:
    """A parameter, read without a mark on it (`nn/watched.py`)."""
    found: torch.Tensor | None = dict.__getitem__(module._parameters, name)
    return found
