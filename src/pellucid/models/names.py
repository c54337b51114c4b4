"""File names of modules, for scripts written for the reference: `model.model.layers[3].self_attn.q_proj`.

The paths come from the weight table, so they exist for every family and cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


class FileName:
    """A place in the tree of file names. Behaves as the module that lives there, where there is one.

    Args:
        path: `model.layers.3.self_attn`.
        paths: file path of a module -> canonical path.
    """

    def __init__(self, root: nn.Module, path: str, paths: dict[str, str]) -> None:
        self.__dict__.update(_root=root, _path=path, _paths=paths)

    def __getattr__(self, name: str) -> Any:
        step = descend(self._root, f"{self._path}.{name}", self._paths)
        if step is not None:
            return step
        module = module_at(self._root, self._path, self._paths)
        if module is not None and hasattr(module, name):
            return getattr(module, name)
        raise AttributeError(
            f"no parameter of this model is called {self._path}.{name}.* in its file"
            " (fused matrices are separate modules here: see model.named_modules())"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        canonical = self._paths.get(f"{self._path}.{name}")
        if canonical is None:
            raise AttributeError(f"there is no module {self._path}.{name} to replace")
        parent, _, last = canonical.rpartition(".")
        setattr(self._root.get_submodule(parent), last, value)

    def __getitem__(self, index: int) -> Any:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"{self._path} has {count} entries, no {index}")
        return descend(self._root, f"{self._path}.{index % count}", self._paths)

    def __len__(self) -> int:
        prefix = f"{self._path}."
        entries = {p[len(prefix) :].split(".")[0] for p in self._paths if p.startswith(prefix)}
        return len([entry for entry in entries if entry.isdigit()])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = module_at(self._root, self._path, self._paths)
        if module is None:
            raise TypeError(f"{self._path} is a place in the file, not a module")
        return module(*args, **kwargs)

    def __repr__(self) -> str:
        module = module_at(self._root, self._path, self._paths)
        return f"{self._path} -> {module!r}"


def descend(root: nn.Module, path: str, paths: dict[str, str]) -> Any:
    """The module at a full file path, a `FileName` on the way to one, or None."""
    if path in paths:
        return root.get_submodule(paths[path])
    if any(known.startswith(f"{path}.") for known in paths):
        return FileName(root, path, paths)
    return None


def module_at(root: nn.Module, path: str, paths: dict[str, str]) -> nn.Module | None:
    """The canonical module whose parts are exactly the ones below a file path: `…self_attn` -> `blocks.3.attn`."""
    below = [canonical.rpartition(".")[0] for known, canonical in paths.items() if known.startswith(f"{path}.")]
    if not below:
        return None
    shared = below[0].split(".")
    for other in below[1:]:
        steps = other.split(".")
        while steps[: len(shared)] != shared:
            shared.pop()
    return root.get_submodule(".".join(shared)) if shared and shared != [""] else None
