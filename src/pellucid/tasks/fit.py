"""Whether a model and a tokenizer can do a task together: asked once, before anything runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pellucid.errors import Unsupported, WeightsError
from pellucid.models.model import Model
from pellucid.models.trained import another_head, trained_for
from pellucid.spec import Task
from pellucid.text.tokenizer import Tokenizer

log = logging.getLogger("pellucid")


def require_head(model: Model, task: str, heads: Sequence[Task | None]) -> None:
    """Refuses a model that was loaded for another task.

    Raises:
        Unsupported: says which head the model has, and which its checkpoint.
    """
    if model.task in heads:
        return
    wanted = " or ".join(str(head or "no") for head in heads)
    what = f"{task} needs a model with {wanted} head, and this one was loaded with {model.task or 'no'} head"
    has = trained_for(model)
    known = f"; its checkpoint was trained for {', '.join(map(str, has))}" if has else ""
    raise Unsupported(what + known, where="model", next="give the folder or id of a checkpoint for this task")


def require_trained(model: Model, task: str) -> None:
    """Refuses a head that the checkpoint did not have: its answers would be noise that looks right.

    Raises:
        WeightsError: names the parameters that were initialised, and what the checkpoint was trained for.
    """
    new, has = model.report.initialised, trained_for(model)
    known = f"the checkpoint has a head for {', '.join(map(str, has))}" if has else ""
    next = "give a checkpoint that was trained for this task"
    if new:
        what = f"{task}: {len(new)} parameter(s) of the head are not trained: {', '.join(new[:3])}"
        raise WeightsError("; ".join(filter(None, [what, known])), where=model.config.where, next=next)
    if another_head(model.task, has):
        what = f"{task}: {known}, whose parameters are only called like those of {model.task}"
        raise WeightsError(what, where=model.config.where, next=next)


def report_misfit(model: Model, tokenizer: Tokenizer) -> None:
    """Says when a tokenizer has ids that the model has no vector for; a text that needs them is refused later."""
    if len(tokenizer) > model.spec.vocab:
        log.warning(
            "the tokenizer has %d ids, the model %d: a text that needs the others is refused",
            len(tokenizer),
            model.spec.vocab,
        )
