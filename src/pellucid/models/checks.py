"""What a forward may be given besides ids: shapes and ranges, checked before they cost an index error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.nn.heads import IGNORE
from pellucid.spec import ChoiceHead, Custom, Head, LmHead, PairHead, PretrainingHead, SequenceHead, SpanHead, TokenHead

WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def describe(value: object) -> str:
    """A value in a message: `[2, 5] torch.float32`, or its type."""
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def whole_numbers(
    name: str,
    value: Any,
    shapes: tuple[tuple[int, ...], ...],
    *,
    least: int | None = None,
    below: int | None = None,
    besides: int | None = None,
) -> None:
    """Refuses what is not a tensor of whole numbers in one of the shapes, from `least` up to `below`.

    Args:
        besides: a value that is right although it is outside.

    Raises:
        InputError: names the argument with what it is.
    """
    wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
    if not isinstance(value, Tensor) or value.dtype not in WHOLE or tuple(value.shape) not in shapes:
        what = f"{name} is {describe(value)}, not whole numbers of shape {wanted}"
        raise InputError(what, where=name, next=f"give a tensor of shape {wanted}")
    if torch.compiler.is_compiling() or not value.numel():
        return
    counted = value if besides is None else value[value != besides]
    low, high = (int(x) for x in counted.aminmax()) if counted.numel() else (0, 0)
    if (least is not None and counted.numel() and low < least) or (below is not None and high >= below):
        bad = low if least is not None and low < least else high
        limit = f"from {least} to {below - 1}" if below is not None else f"at least {least}"
        what = f"{name} holds {bad}"
        raise InputError(what, where=name, next=f"use {limit}" + ("" if besides is None else f", or {besides}"))


def labels_of(
    head: Head | None, labels: Any, batch: int, time: int, vocab: int, problem: str | None, choices: int = 1
) -> None:
    """Refuses labels that the head cannot take.

    Raises:
        InputError: another shape, another dtype, or a number that is no label.
    """
    match head:
        case None | SpanHead():
            named = "start_positions and end_positions" if head else "no labels"
            raise InputError("labels given", where="labels", next=f"this model takes {named}")
        case LmHead(vocab=int() as said):
            whole_numbers("labels", labels, ((batch, time),), least=0, below=said, besides=IGNORE)
        case LmHead() | PretrainingHead(lm=LmHead()):
            whole_numbers("labels", labels, ((batch, time),), least=0, below=vocab, besides=IGNORE)
        case PretrainingHead():
            whole_numbers("labels", labels, ((batch, time),), least=0, below=2)
        case TokenHead(labels=count):
            whole_numbers("labels", labels, ((batch, time),), least=0, below=count, besides=IGNORE)
        case ChoiceHead():
            whole_numbers("labels", labels, ((batch,), (batch, 1)), least=0, below=choices, besides=IGNORE)
        case PairHead(labels=count):
            whole_numbers("labels", labels, ((batch,), (batch, 1)), least=0, below=count, besides=IGNORE)
        case SequenceHead(labels=count):
            classes(labels, batch, count, problem)


def classes(labels: Any, batch: int, count: int, problem: str | None) -> None:
    """Refuses labels that are none of a sequence classifier."""
    if not isinstance(labels, Tensor):
        raise InputError(f"labels is {describe(labels)}", where="labels", next="give a tensor")
    single = count > 1 and (labels.dtype in WHOLE if problem is None else problem.startswith("single"))
    if single:
        whole_numbers("labels", labels, ((batch,), (batch, 1)), least=0, below=count, besides=IGNORE)
        return
    shapes = ((batch, count), (batch,)) if count == 1 else ((batch, count),)
    if tuple(labels.shape) not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        what = f"labels is {describe(labels)}, not {wanted} ({problem or 'no problem_type'})"
        raise InputError(what, where="labels", next="give one number for each label")


def spans_of(head: Head | None, start: Any, end: Any, batch: int) -> None:
    """Refuses where an answer starts and ends, unless the head wants both.

    Raises:
        InputError: one of the two is missing, or of another shape; the model has no such head.
    """
    if start is None and end is None:
        return
    if not isinstance(head, SpanHead | Custom):
        what = "start_positions or end_positions given"
        raise InputError(what, where="start_positions", next="load it with AutoModelForQuestionAnswering")
    for name, value in (("start_positions", start), ("end_positions", end)):
        if value is None:
            raise InputError(f"no {name}", where=name, next="give both, or none")
        whole_numbers(name, value, ((batch,), (batch, 1)))
