"""Taps: named intermediate values that can be read or replaced while the model runs.

A module says `x = self.tap("resid_pre", x)`. Nothing listens: the call returns its argument. A listener gets the
value and may return another one in its place. The full name is the module's canonical path and the tap's:
`blocks.3.attn.pattern`. The list of names is public: `Model.tap_names()`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from torch import Tensor, nn

Listener = Callable[[Tensor], "Tensor | None"]
CHANGING = threading.Lock()  # held while somebody begins or ends to listen
NUMBERED: WeakValueDictionary[int, Tapped] = WeakValueDictionary()  # by which a compiled graph finds it: see apart.py
_numbers = count()


class Tapped(nn.Module):
    """A module with named values."""

    TAPS: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._listeners: dict[str, list[Listener]] | None = None
        self._take_number()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy has a number of its own."""
        super().__setstate__(state)
        self._take_number()

    def _take_number(self) -> None:
        self.number = next(_numbers)
        NUMBERED[self.number] = self

    @property
    def listening(self) -> bool:
        """Whether anybody listens to any of its values."""
        return self._listeners is not None

    def tap(self, name: str, x: Tensor) -> Tensor:
        """`x`, or what a listener to `name` put in its place."""
        listeners = self._listeners  # another thread may end its listening meanwhile
        if listeners is None:
            return x
        for listener in tuple(listeners.get(name, ())):
            replaced = listener(x)
            x = x if replaced is None else replaced
        return x

    def listened(self, name: str) -> bool:
        """Whether anybody wants this value: patterns are computed only then."""
        listeners = self._listeners
        return listeners is not None and bool(listeners.get(name))

    def listen(self, name: str, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with each value of tap `name`; returns what ends it."""
        with CHANGING:
            self._listeners = self._listeners if self._listeners is not None else {}
            self._listeners.setdefault(name, []).append(listener)

        def stop() -> None:
            with CHANGING:
                assert self._listeners is not None
                self._listeners[name].remove(listener)
                if not any(self._listeners.values()):
                    self._listeners = None

        return stop
