"""A model's first blocks as a model: the same weights, no copy."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace

from torch import nn

from pellucid.errors import ArgumentError, Unsupported
from pellucid.models.model import Model

_MADE: weakref.WeakKeyDictionary[Model, dict[int, Model]] = weakref.WeakKeyDictionary()


def first_blocks(model: Model, blocks: int) -> Model:
    """The model without its later blocks: its last norm and its head read what the first ones leave.

    The same object for the same model and number, so that requests that draft with it run together.

    Raises:
        ArgumentError: not between 1 and one less than the model has.
        Unsupported: its blocks are no chain.
    """
    stack = model.stack
    if stack.body is not None or stack.depth is not None:
        what = f"the blocks of {model.spec.family} are no chain, of which the first could answer"
        raise Unsupported(what, where="assistant_early_exit", next="draft with another model, or from the prompt")
    if not 1 <= blocks < len(stack.blocks):
        what = f"assistant_early_exit={blocks}, and the model has {len(stack.blocks)} blocks"
        raise ArgumentError(what, where="assistant_early_exit", next=f"use 1 to {len(stack.blocks) - 1}")
    made = _MADE.setdefault(model, {})
    if blocks not in made:
        made[blocks] = _cut(model, blocks)
    return made[blocks]


def _cut(model: Model, blocks: int) -> Model:
    short = copy.copy(model)  # a second module over the same parameters
    short._modules = {**model._modules, "blocks": nn.ModuleList(list(model.blocks)[:blocks])}
    short.stack = replace(model.stack, blocks=model.stack.blocks[:blocks])
    return short
