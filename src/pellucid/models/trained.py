"""What a checkpoint was trained for, by its own word, and whether a head of it is taken for another."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid import families
from pellucid.errors import PellucidError
from pellucid.models.model import Model
from pellucid.spec import Task

# Heads whose parameters files call alike (`classifier`): with as many labels, one loads in another's place.
CALLED_ALIKE: tuple[Task, ...] = ("sequence-classification", "token-classification", "multiple-choice")


def trained_for(model: Model) -> list[Task]:
    """The tasks that a checkpoint's `architectures` say it was trained for."""
    try:
        known = families.find(model.spec.family).classes
    except PellucidError:
        return []
    named = model.config.get("architectures") or []
    return [task for task, name in known.items() if task is not None and name in named]


def another_head(task: Task | None, trained: Sequence[Task | None]) -> bool:
    """Whether a head for `task` would be the one of another task that its checkpoint was trained for."""
    return task in CALLED_ALIKE and task not in trained and not set(trained).isdisjoint(CALLED_ALIKE)
