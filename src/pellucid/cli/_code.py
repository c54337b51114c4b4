"""The one page per model: a small copy of it runs once, and every function that was called is printed."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch

from pellucid.cli._folder import Known
from pellucid.cli._parts import walk
from pellucid.cli._walk import needed
from pellucid.models.loading import initialise
from pellucid.models.model import Model
from pellucid.spec import Custom

HOMES = ("pellucid.nn.", "pellucid.ops.", "pellucid.cache.", "pellucid.families.")
PLUMBING = "pellucid.nn.tapped"
# Sizes on which no other part of a spec depends: the same functions run. Three tokens go past a window of 2.
SMALL = {"vocab": 16, "rows": 16, "hidden": 16, "window": 2}
WIDTH = {
    "width": 16,
    "memory_width": 16,
    "out": 16,
}  # likewise, but for code of a family's own, which may have options of that size

LENDERS = ("kv_from", "source")  # fields that hold the number of an earlier layer


@dataclass(frozen=True)
class Function:
    """One function that ran."""

    file: str
    name: str
    line: int
    source: str


def functions(known: Known) -> list[Function]:
    """What a prompt of three tokens and one decode step call, in the order of first calls."""
    spec = known.spec.of(known.task)
    own = any(isinstance(part, Custom) for part in walk(spec))
    little = small(spec, SMALL if own else SMALL | WIDTH)
    model = Model(little, known.config, known.table(known.task), known.task).eval()
    initialise(model, torch.Generator().manual_seed(0))
    with torch.inference_mode(), watched() as called:
        exercise(model)
    return [function(code, sys.modules[module]) for code, module in called.items()]


def page(known: Known, found: list[Function]) -> str:
    """The functions under their names."""
    what = f"{known.spec.family}{f', {known.task}' if known.task else ''}"
    head = f"# {what}: what a prompt and a decode step run, in call order ({len(found)} functions)"
    return "\n\n\n".join([head, *(f"# {one.file}: {one.name}\n\n{one.source}" for one in found)])


def small(part: Any, sizes: Mapping[str, int]) -> Any:
    """A spec of the same parts that is cheap to run; equal blocks are kept once."""
    if is_dataclass(part) and not isinstance(part, type):
        changed: dict[str, Any] = {}
        for f in fields(part):
            value = getattr(part, f.name)
            if f.name in sizes and type(value) is int:
                changed[f.name] = sizes[f.name]
            elif f.name == "blocks":
                changed[f.name] = distinct(value, sizes)
            else:
                changed[f.name] = None if f.name == "depth" else small(value, sizes)
        return replace(part, **changed)
    if isinstance(part, Mapping):
        return {key: small(value, sizes) for key, value in part.items()}
    return part


def distinct(blocks: Sequence[Any], sizes: Mapping[str, int]) -> tuple[Any, ...]:
    """Equal blocks once, and those whose keys or choice they take, at their new places."""
    lenders = {block: lender(block) for block in blocks}
    kept = sorted({*(blocks.index(block) for block in lenders), *(i for i in lenders.values() if i is not None)})
    places = [lenders[blocks[i]] for i in kept]
    moved = [{} if place is None else dict.fromkeys(LENDERS, kept.index(place)) for place in places]
    return tuple(small(blocks[i], {**sizes, **change}) for i, change in zip(kept, moved))


def lender(block: Any) -> int | None:
    """The earlier layer that a block reads from."""
    found = (getattr(part, name, None) for part in walk(block) for name in LENDERS)
    return next((i for i in found if type(i) is int), None)


def exercise(model: Model) -> None:
    """A prompt, and where the model has a cache, one token behind it."""
    ids_BT = torch.tensor([[1, 2, 3]])
    plain: dict[str, Any] = {"output_attentions": False, "output_hidden_states": False}
    if model.encoder is not None:
        cache = model(ids_BT, decoder_input_ids=ids_BT, use_cache=True, **plain).past_key_values
        model(decoder_input_ids=ids_BT[:, :1], past_key_values=cache, **plain)
        return
    cache = model(ids_BT, use_cache=True, **plain, **needed(model, ids_BT)).past_key_values
    if cache is not None:
        model(ids_BT[:, :1], past_key_values=cache, **plain)


@contextmanager
def watched() -> Iterator[dict[CodeType, str]]:
    """Collects the functions of `HOMES` that are called meanwhile: code -> module."""
    found: dict[CodeType, str] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        if event == "call" and code not in found and module.startswith(HOMES) and wanted(code, module):
            found[code] = module

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)


def wanted(code: CodeType, module: str) -> bool:
    """No taps, no constructors and attribute access; what is nested stands in the source of its function."""
    name = code.co_name
    special = name.startswith("__") and name != "__call__"
    return module != PLUMBING and not special and not code.co_flags & inspect.CO_NESTED


def function(code: CodeType, module: ModuleType) -> Function:
    """A function's source, and the name by which a reader finds it."""
    file = Path(code.co_filename).as_posix()
    return Function(
        file=file[file.rindex("pellucid/") :],
        name=qualified(code, module),
        line=code.co_firstlineno,
        source=textwrap.dedent(inspect.getsource(code)).rstrip(),
    )


def qualified(code: CodeType, module: ModuleType) -> str:
    """`Attention.forward` (Python 3.11 has this as `co_qualname`)."""
    for cls in vars(module).values():
        for member in vars(cls).values() if isinstance(cls, type) else ():
            if getattr(getattr(member, "fget", member), "__code__", None) is code:
                return f"{cls.__name__}.{code.co_name}"
    return code.co_name
