"""Many inputs through a task: windows of them, forwards by a budget of tokens, results in the inputs' order.

A task is a function of a list of inputs. `stream` makes it one of any iterable: it looks ahead by a window, so that
rows of like length can go together, and keeps no more than that. Nothing is computed for padding: the model packs what
a mask leaves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, InputError
from pellucid.models.model import Model
from pellucid.models.output import Output
from pellucid.spec import LmHead
from pellucid.tasks.rows import InputRefused, Row
from pellucid.text.lines import PAUSE

T = TypeVar("T")
R = TypeVar("R")

WINDOW, FIRST = 4096, 64  # inputs read ahead: the most, and at the beginning, so that the first results come soon
BUDGET = {"cpu": 2048}  # tokens of one forward (measured with MiniLM: benchmarks/embeddings.py)
ELSEWHERE = 16384  # on accelerators


def stream(run: Callable[[list[T]], Sequence[R]], inputs: Iterable[T], first: int = FIRST) -> Iterator[R]:
    """Results of a task, one for each input, in their order.

    Args:
        run: the task, for a list of inputs.
        inputs: a PAUSE among them ends a window.
        first: inputs of the first window; every window is twice the one before, up to `WINDOW`.

    Raises:
        InputError: an input that cannot be used, with its number among all, behind the results of those before it.
    """
    source, done, size = iter(inputs), 0, min(first, WINDOW)
    while True:
        window, end = ahead(source, size)
        yield from answers(run, window, done)
        if end is not None:
            if isinstance(end, StopIteration):
                return
            raise end
        done, size = done + len(window), min(2 * size, WINDOW)


def ahead(source: Iterator[T], size: int) -> tuple[list[T], Exception | None]:
    """Inputs up to a PAUSE, and what ended them: their end, or an error of theirs, which waits for their results."""
    window: list[T] = []
    while len(window) < size:
        try:
            one = next(source)
        except Exception as error:
            return window, error
        if one is PAUSE:
            break
        window.append(one)
    return window, None


def answers(run: Callable[[list[T]], Sequence[R]], window: list[T], done: int) -> Iterator[R]:
    """The results of a window behind so many inputs; where one is refused, of those before it, and then the error."""
    try:
        found = run(window) if window else ()
    except InputRefused as error:
        yield from answers(run, window[: error.row], done)
        raise error.at(done + error.row) from None
    yield from found


@torch.inference_mode()
def forwards(model: Model, rows: Sequence[Row], **options: Any) -> Iterator[tuple[list[int], Output]]:
    """Which rows went together, and what the model returned for them, [rows, …]; the longest first.

    Args:
        options: further arguments of the forward.
    """
    budget = BUDGET.get(model.device.type, ELSEWHERE)
    for group in groups([len(row.ids) for row in rows], budget):
        yield group, ask(model, **batch(model, [rows[i] for i in group]), **options)


def ask(model: Model, **given: Any) -> Output:
    """What a model returns for a batch.

    Raises:
        InputError: that is no number, of which every task would make an answer that looks like one.
    """
    output = model(**given)
    for name in ("logits", "start_logits", "last_hidden_state"):
        value = output.get(name)
        # a sum tells at a tenth of the cost that there is none
        if value is not None and bool(value.sum().isnan()) and bool(value.isnan().any()):
            next = "look at the model's weights; if they are right, 16 bits overflow: dtype='float32'"
            raise InputError(f"NaN in the model's {name}", where="forward", next=next)
    return output


@torch.inference_mode()
def logits_at(model: Model, rows: Sequence[Row], places: Sequence[Sequence[int]]) -> Iterator[tuple[int, Tensor]]:
    """The number of a row, and a language model's logits at its places [K, V], which alone are computed.

    A family whose head is its own computes all.
    """
    budget = BUDGET.get(model.device.type, ELSEWHERE)
    for group in groups([len(row.ids) for row in rows], budget):
        given = batch(model, [rows[i] for i in group])
        keep_BT = torch.zeros_like(given["input_ids"], dtype=torch.bool)
        for row_T, i in zip(keep_BT, group):
            row_T[list(places[i])] = True
        if isinstance(model.head_spec, LmHead):
            logits_NV = ask(model, **given, logits_to_keep=keep_BT).logits
        else:
            logits_NV = ask(model, **given).logits[keep_BT]
        yield from zip(group, logits_NV.split([len(places[i]) for i in group]))


def groups(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of rows that go together, the longest first: of `budget` tokens, or one row that is longer.

    What is left of a budget is filled with the longest row that fits: most forwards then have exactly as many tokens,
    and the libraries below make and keep what they need for one size (oneDNN keeps a thousand sizes: 0.3 GB).
    """
    rows: dict[int, list[int]] = {}
    for i in reversed(range(len(lengths))):
        rows.setdefault(lengths[i], []).append(i)
    sizes = sorted(rows)
    while sizes:
        group: list[int] = []
        left = budget
        while sizes:
            at = bisect_right(sizes, left) if group else len(sizes)
            if at == 0:
                break
            size = sizes[at - 1]
            group.append(rows[size].pop())
            if not rows[size]:
                sizes.pop(at - 1)
            left -= size
        yield group


def batch(model: Model, rows: Sequence[Row]) -> dict[str, Tensor]:
    """Arguments of a forward: ids, the mask of what counts, types where a row has any but the first. [B, T] each."""
    given = rectangle([row.ids for row in rows], model.device)
    if any(row.types is not None for row in rows):
        types = [row.types or [0] * len(row.ids) for row in rows]
        given["token_type_ids"] = rectangle(types, model.device)["input_ids"]
    return given


def rectangle(rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, Tensor]:
    """Ids and mask, [B, T], filled up on the right."""
    lengths = torch.tensor([len(row) for row in rows])
    mask_BT = torch.arange(int(lengths.max())) < lengths[:, None]
    flat = torch.tensor([value for row in rows for value in row])
    ids_BT = torch.zeros(mask_BT.shape, dtype=torch.int64).masked_scatter_(mask_BT, flat)
    return {"input_ids": ids_BT.to(device), "attention_mask": mask_BT.long().to(device)}


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """An option that counts something.

    Raises:
        ArgumentError: it is no whole number, or too small.
    """
    if type(value) is not int or value < least:
        raise ArgumentError(f"{name}={value!r}", where=name, next=f"use a whole number, at least {least}")
    return value
