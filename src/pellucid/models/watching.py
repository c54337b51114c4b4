"""Values that can be read or replaced while a model runs."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, nearest
from pellucid.nn.tapped import Listener, Tapped
from pellucid.nn.tower import Tower


class Watchable(Tower):
    """A tower whose taps go by their full names."""

    def tap_names(self) -> list[str]:
        """Every value that can be read or replaced, by its full name."""
        return [
            f"{path}.{tap}".lstrip(".")
            for path, module in self.named_modules()
            if isinstance(module, Tapped)
            for tap in module.TAPS
        ]

    def tapped(self, name: str) -> list[str]:
        """The full names of the taps that a name, or a pattern, means.

        Raises:
            ArgumentError: no tap has that name.
        """
        found = fnmatch.filter(self.tap_names(), self.canonical(name))
        if not found:
            next = nearest(name, self.tap_names()) or "see model.tap_names()"
            raise ArgumentError(f"there is no tap {name!r}", where="taps", next=next)
        return found

    @contextmanager
    def taps(self, listeners: Mapping[str, Listener]) -> Iterator[None]:
        """Reads or replaces values while the block runs.

        Args:
            listeners: tap name, or a pattern (`blocks.*.resid_post`), or the module's name in the file
                (`model.layers.3.self_attn.q`) -> a function of the value, [N, …] packed, that returns what to put in
                its place, or None to leave it.

        Raises:
            ArgumentError: no tap has that name.
        """
        with ExitStack() as stack:
            for name, listener in listeners.items():
                for full in self.tapped(name):
                    path, _, tap = full.rpartition(".")
                    module = self.get_submodule(path)
                    assert isinstance(module, Tapped)
                    stack.callback(module.listen(tap, listener))
            yield

    @contextmanager
    def record(self, *names: str) -> Iterator[dict[str, Tensor]]:
        """Collects values by tap name while the block runs; the last one where a tap is passed more than once."""
        found: dict[str, Tensor] = {}

        def keeper(name: str) -> Callable[[Tensor], None]:
            def keep(x: Tensor) -> None:
                found[name] = x

            return keep

        wanted = [full for name in names for full in fnmatch.filter(self.tap_names(), self.canonical(name))]
        with self.taps({name: keeper(name) for name in wanted or names}):
            yield found

    @contextmanager
    def patterns(self, tower: Tower, wanted: bool) -> Iterator[dict[str, list[Tensor]]]:
        """Attention patterns of a tower, in the order in which they are computed, while this thread runs a forward."""
        found: dict[str, list[Tensor]] = {"attn": [], "cross": []}
        with ExitStack() as stack:
            for path, module in tower.named_modules() if wanted else ():
                if isinstance(module, Tapped) and "pattern" in module.TAPS and not path.startswith("encoder."):
                    kept = found["cross" if path.rpartition(".")[2] == "cross" else "attn"]
                    stack.callback(module.listen("pattern", _of_this_thread(kept.append)))
            yield found

    def canonical(self, name: str) -> str:
        """The canonical form of a name that may be the file's: see `Holding`."""
        return name


def _of_this_thread(listener: Listener) -> Listener:
    """A listener that other threads' forwards do not reach; a compiled forward has no others."""
    if torch.compiler.is_compiling():
        return listener
    mine = threading.get_ident()
    return lambda x: listener(x) if threading.get_ident() == mine else None
