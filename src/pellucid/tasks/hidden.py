"""Texts through a model once, packed by a budget of tokens: what fill-mask and feature-extraction share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.models.model import Model
from pellucid.text.tokenizer import Tokenizer

BUDGET = 8192  # tokens in one forward


def encode(model: Model, tokenizer: Tokenizer, texts: Sequence[str], *, truncate: bool = False) -> list[list[int]]:
    """Ids of each text.

    Raises:
        InputError: a text that is no string, is empty, or is longer than the model's context.
    """
    rows = []
    room = model.spec.context
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is a {type(text).__name__}", where="input", next="give a string")
        ids = tokenizer.encode(text, truncation=True, max_length=room) if truncate else tokenizer.encode(text)
        if not ids:
            raise InputError(f"text {row} is empty", where="input", next="give some text")
        if room is not None and len(ids) > room:
            raise InputError(
                f"text {row} has {len(ids)} tokens, the model's context {room}",
                where="input",
                next="shorten it, or pass truncation=True",
            )
        rows.append(ids)
    return rows


@torch.inference_mode()
def forward(model: Model, rows: Sequence[Sequence[int]], value: str) -> Iterator[Tensor]:
    """One of the model's results for each row, without pads, in the rows' order.

    Rows of like length go together; nothing is computed for padding, and company does not change a row.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    results: dict[int, Tensor] = {}
    while order:
        group = [order.pop()]
        width = len(rows[group[0]])
        while order and (len(group) + 1) * width <= BUDGET:
            group.append(order.pop())
        output: Any = model(**rectangle([rows[i] for i in group], model.device))
        for row, i in enumerate(group):
            results[i] = output[value][row, : len(rows[i])]
    yield from (results[i] for i in range(len(rows)))


def rectangle(rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, Tensor]:
    """Ids and mask, [B, T], filled up on the right."""
    width = max(map(len, rows))
    ids = [[*row, *[0] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
