"""The engine of a model's own calls on an accelerator: what it recorded serves the next call, too.

Recording a step costs as much as several steps, and pages for all of a card's memory are not what a call of `generate`
should take. So such a call has pages for what it may write, and leaves its engine with the model. The next one takes it
if the pages are enough; what was read is forgotten, for weights may have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pellucid.cache.group import PAGE
from pellucid.cache.pages import Pages
from pellucid.engine.admission import room
from pellucid.engine.captured import fixed_pages
from pellucid.engine.decoding.plain import Plain
from pellucid.engine.engine import Engine
from pellucid.engine.request import Request
from pellucid.models.model import Model

SPARE = 4  # pages of a row beside those of its tokens
LEAST = 64  # pages


@dataclass
class Left:
    """What a model keeps: an engine that nobody uses, and the form of its pages. Copies of the model keep nothing."""

    engine: Engine | None = None
    form: object = None

    def __deepcopy__(self, memo: Any) -> Left:
        return Left()

    def __reduce__(self) -> Any:
        return Left, ()


@contextmanager
def engine_for(model: Model, pages: Pages | None, requests: Sequence[Request]) -> Iterator[Engine]:
    """An engine for a call: over `pages` where they are given; on an accelerator perhaps the one of the last call."""
    if pages is not None or not _records(model) or not all(map(_plain, requests)):
        yield Engine(model, pages)
        return
    left = model.__dict__.setdefault("_left", Left())
    engine, left.engine = left.engine, None  # two threads never have the same one
    wanted, form = sum(_pages(model, request) for request in requests), (model.device, model.dtype)
    if engine is None or left.form != form or engine.main.pages.total < wanted:
        engine = None  # its memory first
        most = max(LEAST, 1 << (wanted - 1).bit_length())
        engine = Engine(model, fixed_pages(model, most=most))
    yield engine
    if engine.main.captured is not None and not engine.busy:
        engine.main.pages.forget()
        left.engine, left.form = engine, form


def _records(model: Model) -> bool:
    """Whether steps of the model may be recorded."""
    return model.device.type == "cuda" and model.placement is None


def _plain(request: Request) -> bool:
    """Whether one can say how many pages a request takes, and none are kept."""
    ways = request.decoding, request.reading, request.speculation
    return ways[0] in (None, Plain()) and ways[1:] == (None, None) and "row" not in request.keep


def _pages(model: Model, request: Request) -> int:
    most = room(model)
    tokens = len(request.prompt) + request.max_new
    tokens = tokens if most is None else min(tokens, most)
    return request.n * (-(-max(tokens, len(request.ids)) // PAGE) + SPARE)
