"""Texts, or pairs of texts, to scores of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, nearest
from pellucid.models.model import Model
from pellucid.tasks.flow import forwards
from pellucid.tasks.rows import REFUSE, Cut, Row, encode
from pellucid.text.tokenizer import Tokenizer

Scoring = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Label:
    """A label and its score: a probability, 0 to 1, where the scoring makes one."""

    name: str
    score: float


@dataclass(frozen=True)
class Classified:
    """All labels of a text, in the order of the model's config.

    Args:
        dropped: tokens of the text that were cut off.
    """

    labels: list[Label]
    dropped: int = 0

    def best(self, most: int | None = None) -> list[Label]:
        """The labels with the highest scores, the highest first; all of them for None."""
        return sorted(self.labels, key=lambda label: -label.score)[:most]


def classify(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str | tuple[str, str]],
    *,
    scoring: Scoring | None = None,
    cut: Cut = REFUSE,
) -> list[Classified]:
    """Scores of every label, for each text or pair.

    Args:
        scoring: what makes scores of logits; None for what the config says that the model was trained for.

    Raises:
        InputRefused: a text that is no string, is empty, or is longer than the model's context.
    """
    rows = encode(model, tokenizer, texts, cut=cut, pairs=True)
    share_RC = scored(logits_of(model, rows), scoring or scoring_of(model))
    names = labels_of(model)
    return [
        Classified([Label(name, score) for name, score in zip(names, scores)], row.dropped)
        for scores, row in zip(share_RC.tolist(), rows)
    ]


def logits_of(model: Model, rows: Sequence[Row], **options: Any) -> Tensor:
    """One vector of logits for each row, [R, C], float32 on the CPU."""
    found = torch.empty(len(rows), len(labels_of(model)))
    for group, output in forwards(model, rows, **options):
        found[group] = output.logits.float().cpu()
    return found


def scored(logits_RC: Tensor, scoring: Scoring) -> Tensor:
    """Logits as scores."""
    match scoring:
        case "softmax":
            return logits_RC.softmax(-1)
        case "sigmoid":
            return logits_RC.sigmoid()
        case "none":
            return logits_RC


def scoring_of(model: Model) -> Scoring:
    """What a config's `problem_type` and number of labels ask for."""
    match model.config.problem_type:
        case "regression":
            return "none"
        case "multi_label_classification":
            return "sigmoid"
        case _:
            return "sigmoid" if model.config.num_labels == 1 else "softmax"


def check_scoring(name: str, value: Any) -> Scoring | None:
    """A scoring by its name, in any case; None for none given.

    Raises:
        ArgumentError: there is no such scoring.
    """
    known: Mapping[str, Scoring] = {each: each for each in get_args(Scoring)}
    text = value.lower() if isinstance(value, str) else value
    if text is not None and text not in known:
        raise ArgumentError(
            f"{name}={value!r}", where=name, next=nearest(str(text), known) or f"use {', '.join(known)}"
        )
    return None if text is None else known[text]


def labels_of(model: Model) -> list[str]:
    """The names of a model's labels, by index; LABEL_0 … where its config has none."""
    names = model.config.id2label
    return [names.get(i, f"LABEL_{i}") for i in range(model.config.num_labels)]
