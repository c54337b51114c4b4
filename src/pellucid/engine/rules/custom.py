"""A user's logits processor, an object of the reference's signature, as a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.engine.rules.penalties import Following
from pellucid.engine.rules.rule import Rule
from pellucid.errors import ArgumentError, InputError


@dataclass(frozen=True)
class Custom(Following):
    """Calls `processor(input_ids [1, N], scores [1, V]) -> [1, V]`; rows that fork share the object."""

    processor: Any

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        found = self.processor(self._trail.follow(ids)[None].clone(), logits_V[None].clone())
        name = type(self.processor).__name__
        if not isinstance(found, Tensor) or found.numel() != logits_V.numel():
            what = f"{name} returned {list(found.shape) if isinstance(found, Tensor) else type(found).__name__}"
            raise InputError(what, where="logits_processor", next=f"return scores [1, {len(logits_V)}]")
        return found.reshape(-1).float().cpu()


def as_rule(processor: Any, row: int = 0) -> Rule:
    """A rule of a rule, of one of ours under the reference's name (`compat.logits`), or of any such callable.

    Raises:
        ArgumentError: it is none of these.
    """
    if hasattr(processor, "rule_of"):
        made: Rule = processor.rule_of(row)
        return made
    if hasattr(processor, "took") and hasattr(processor, "fork"):
        rule: Rule = processor
        return rule
    if callable(processor):
        return Custom(processor)
    what = f"a logits processor is a {type(processor).__name__}"
    raise ArgumentError(what, where="logits_processor", next="give callables (input_ids, scores) -> scores")
