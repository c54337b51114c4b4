"""Keys: how a graph that was compiled finds a cache, and the forward that runs over it.

A graph knows tensors, and neither pages nor rows. So a cache has a key, a tensor of one number, which is an input of
the graph; operators (`nn/apart.py`) that take it read and write the cache as an uncompiled forward does. They say that
they write to the key, which keeps them in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.cache.batch import Batch
    from pellucid.cache.cache import Cache

KEPT = 64  # caches that graphs have made, and that nobody has looked at yet

_numbers = count()
_caches: WeakValueDictionary[int, Cache] = WeakValueDictionary()
_fresh: dict[int, Cache] = {}


def new(cache: Cache) -> Tensor:
    """A key for a cache."""
    number = next(_numbers)
    _caches[number] = cache
    with torch.inference_mode(False):
        return torch.tensor(number)


def of(key: Tensor) -> Cache:
    """The cache of a key.

    Raises:
        ArgumentError: it is gone: too many others were made since, and nobody looked at it.
    """
    found = _caches.get(int(key))
    if found is None:
        raise ArgumentError("a cache that is gone", where="past_key_values", next="keep what a compiled call returned")
    return found


def keep(cache: Cache) -> Tensor:
    """The key of a cache that a graph has made: it lives until somebody looks at what the graph returned."""
    while len(_fresh) >= KEPT:
        del _fresh[next(iter(_fresh))]
    _fresh[int(cache.key)] = cache
    return cache.key


def claim(key: Tensor) -> Cache | None:
    """The cache that a graph has made under this key; None where it is known already, or forgotten."""
    return _fresh.pop(int(key), None)


def rename(key: Tensor, cache: Cache) -> None:
    """From now on the key is this cache's."""
    _caches[int(key)] = cache


@dataclass
class Running:
    """A forward of a graph over a cache.

    Args:
        kept: indices of the tokens among all places that the graph computes; None for all.
        types: of the tokens.
    """

    batch: Batch
    kept: Tensor | None
    types: Tensor | None


running: dict[int, Running] = {}  # by key, from an operator to the next
