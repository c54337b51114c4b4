"""Every error a user can cause, in one tree.

    PellucidError(what, where=, next=)
    ├── NotAModel       a path or id that does not lead to a model folder
    ├── ConfigError     config.json: missing, broken, of an unknown family, or with a key nobody reads
    ├── WeightsError    a weight file that is broken, or tensors that do not fit the model
    ├── TokenizerError  tokenizer files that are missing, broken, or do not fit the model
    ├── TemplateError   a chat template that is broken, hostile, or refuses the messages
    ├── ArgumentError   an argument that does not exist, or a value out of range   (also a ValueError)
    ├── InputError      ids, masks or texts a model cannot take                    (also a ValueError)
    └── Unsupported     something the field knows and Pellucid does not do

The command line prints the three parts and exits with 2; a traceback is a bug of ours.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class PellucidError(Exception):
    """What happened (with the values), where, and the one thing to do next."""

    def __init__(self, what: str, *, where: object = "", next: str = "") -> None:
        self.what, self.where, self.next = what, str(where), next
        lines = [what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if next:
            lines.append(f"  next:  {next}")
        super().__init__("\n".join(lines))

    def to_dict(self) -> dict[str, str]:
        """The same facts for `--json`."""
        return {"error": type(self).__name__, "what": self.what, "where": self.where, "next": self.next}


class NotAModel(PellucidError):
    """A path or id that does not lead to a model folder."""


class ConfigError(PellucidError):
    """config.json is missing, broken, of an unknown family, or holds a key nobody reads."""


class WeightsError(PellucidError):
    """A weight file is broken, or its tensors do not fit the model."""


class TokenizerError(PellucidError):
    """Tokenizer files are missing, broken, or do not fit the model."""


class TemplateError(PellucidError):
    """A chat template is broken, breaks a rule of the sandbox, or refuses the messages."""


class ArgumentError(PellucidError, ValueError):
    """An argument does not exist, or its value is out of range."""


class InputError(PellucidError, ValueError):
    """Ids, masks or texts that the model cannot take."""


class Unsupported(PellucidError):
    """Something the field knows and Pellucid does not do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean …?` for a misspelt name, or the empty string when nothing is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]!r}?" if found else ""


def strict(function: Callable[P, R]) -> Callable[P, R]:
    """A keyword that `function` does not have is an ArgumentError with the nearest name, not a TypeError."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                options = [each for each in known if each not in ("self", "cls")]
                raise ArgumentError(
                    f"{function.__name__}() has no argument {name!r}",
                    next=nearest(name, options) or f"arguments: {', '.join(options)}",
                )
        return function(*args, **kwargs)

    return checked
