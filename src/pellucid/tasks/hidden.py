"""Texts to the hidden states of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pellucid.models.model import Model
from pellucid.tasks.flow import forwards
from pellucid.tasks.rows import REFUSE, Cut, Row, encode
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Hidden:
    """Of one text: the last hidden state of each token, [T, D].

    Args:
        dropped: tokens that were cut off.
    """

    states: Tensor
    dropped: int = 0


def extract(model: Model, tokenizer: Tokenizer, texts: Sequence[str], *, cut: Cut = REFUSE) -> list[Hidden]:
    """The hidden states of texts.

    Raises:
        InputRefused: a text that is no string, is empty, or is longer than the model's context.
    """
    rows = encode(model, tokenizer, texts, cut=cut)
    return [Hidden(states, row.dropped) for states, row in zip(of_tokens(model, rows, "last_hidden_state"), rows)]


def of_tokens(model: Model, rows: Sequence[Row], value: str) -> list[Tensor]:
    """One of the model's results that has a place for each token, [T, …] of each row."""
    found: list[Tensor] = [Tensor()] * len(rows)
    for group, output in forwards(model, rows):
        for i, each in zip(group, output[value]):
            found[i] = each[: len(rows[i].ids)]
    return found
