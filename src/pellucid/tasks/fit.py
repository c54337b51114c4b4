"""Whether a model and a tokenizer can do a task together: asked once, before anything runs."""

from __future__ import annotations

import logging

from pellucid.errors import WeightsError
from pellucid.models.model import Model
from pellucid.text.tokenizer import Tokenizer

log = logging.getLogger("pellucid")


def require_trained(model: Model, task: str) -> None:
    """Refuses a head that the checkpoint did not have: its answers would be noise that looks right.

    Raises:
        WeightsError: names the parameters that were initialised.
    """
    new = model.report.initialised
    if new:
        raise WeightsError(
            f"{task}: {len(new)} parameter(s) of the head are not trained: {', '.join(new[:3])}",
            where=model.config.where,
            next="give a checkpoint that was trained for this task",
        )


def report_misfit(model: Model, tokenizer: Tokenizer) -> None:
    """Says when a tokenizer has ids that the model has no vector for; a text that needs them is refused later."""
    if len(tokenizer) > model.spec.vocab:
        log.warning(
            "the tokenizer has %d ids, the model %d: a text that needs the others is refused",
            len(tokenizer),
            model.spec.vocab,
        )
