"""Checks the shape suffixes of tensor names while code runs: `x_BTD` is 3-d, and a letter has one size in a call."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

SUFFIX = re.compile(r"_([A-Z]+)$")


@contextmanager
def checked(*folders: str) -> Iterator[list[str]]:
    """Collects what names lie about, in the functions of some folders, when they return."""
    lies: list[str] = []

    def on_return(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            lies.extend(_lies(frame))
        return on_return

    old = sys.gettrace()
    sys.settrace(lambda frame, *_: on_return if any(f in frame.f_code.co_filename for f in folders) else None)
    try:
        yield lies
    finally:
        sys.settrace(old)


def _lies(frame: FrameType) -> Iterator[str]:
    sizes: dict[str, int] = {}
    for name, value in frame.f_locals.items():
        found = SUFFIX.search(name)
        if not found or not isinstance(value, torch.Tensor):
            continue
        where = f"{frame.f_code.co_name}: {name} is {tuple(value.shape)}"
        letters = found[1]
        if value.dim() != len(letters):
            yield where
            continue
        for letter, n in zip(letters, value.shape):
            if sizes.setdefault(letter, n) != n:
                yield f"{where}, but {letter}={sizes[letter]} elsewhere in the call"
