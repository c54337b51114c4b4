"""Whether a model is still the one that was recorded: the same modules, weights where they were, no hooks.

What lies in a weight's memory may have changed: a recording reads it there. Copies that a layer keeps in another layout
may not (`nn/linear.py`), so the marks that tell whether they may be out of date are looked at here too.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import torch
from torch import nn

from pellucid.nn.linear import Linear
from pellucid.nn.watched import Handed, stored
from pellucid.ops.packed import PackedTensor

CONTENTS = ("_modules", "_parameters", "_buffers")
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


class Unchanged:
    """A model as it was when this was made. No reference to a weight is kept: nobody shall seem to hold it."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._own = [module.__dict__ for module in modules]
        self._contents = [own[name] for own in self._own for name in CONTENTS]
        self._hooks = [own[name] for own in self._own for name in HOOKS]
        self._hooks += [getattr(torch.nn.modules.module, name) for name in GLOBAL_HOOKS]
        self._layers = [layer for layer in modules if isinstance(layer, Linear) and layer._packed is not None]
        self._copies = [layer._packed for layer in self._layers]
        parts = self._parts()
        self._ids = list(map(id, parts))
        self._dense = [at for at, part in enumerate(parts) if type(part) in (nn.Parameter, torch.Tensor)]
        self._packed = [at for at, part in enumerate(parts) if isinstance(part, PackedTensor)]
        self._means = self._means_of(parts)  # alive, so that no other takes the place of one
        self._places = [parts[at].data_ptr() for at in self._dense]
        self._modes = [own["training"] for own in self._own]
        self._times = Handed.times
        self.plain = not any(self._hooks) and not any("forward" in own for own in self._own)

    def _parts(self) -> list[Any]:
        """All modules, parameters and buffers, read without a mark."""
        return list(chain.from_iterable(map(dict.values, self._contents)))

    def _means_of(self, parts: list[Any]) -> list[Any]:
        """What multiplies by each packed matrix, chosen anew after a write; where nothing does, what is unpacked."""
        return [parts[at]._way or tuple(map(id, parts[at].parts.values())) for at in self._packed]

    def holds(self) -> bool:
        """Whether it still is, and nothing of it is replaced, hooked or perhaps out of date."""
        parts = self._parts()
        same = (
            not any(self._hooks)
            and list(map(id, parts)) == self._ids
            and [parts[at].data_ptr() for at in self._dense] == self._places
            and self._means_of(parts) == self._means
            and [layer._packed for layer in self._layers] == self._copies
            and [own["training"] for own in self._own] == self._modes
            and not any("forward" in own for own in self._own)
        )
        if same and Handed.times != self._times:
            seen = ((stored(layer), copy) for layer, copy in zip(self._layers, self._copies))
            same = all(copy is not None and getattr(weight, "handed", math.inf) <= copy.seen for weight, copy in seen)
            self._times = Handed.times
        return same
