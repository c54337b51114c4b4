"""Constraints of a beam search, under the reference's names: `generate(constraints=[…], num_beams=4)`."""

from __future__ import annotations

from pellucid.engine.decoding.constraints import Constraint, OneOf, Phrase

__all__ = ["Constraint", "DisjunctiveConstraint", "PhrasalConstraint"]


class PhrasalConstraint(Phrase):
    """The output contains `token_ids`, uninterrupted."""


class DisjunctiveConstraint(OneOf):
    """The output contains one of the phrases `nested_token_ids`."""
