"""`get_json_schema`: the same as the reference's over a table of functions, and an error for the same ones."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from typing import Any, Literal, Optional, Union

import pytest
import torch
from transformers.utils import get_json_schema as reference

from pellucid.errors import InputError
from pellucid.text.chats.schema import get_json_schema

# ruff: noqa: E501, UP006, UP007, UP035, UP045 (hints as people write them)


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


class Level(enum.IntEnum):
    LOW = 1


class Mixed(enum.Enum):
    A = 1
    B = "b"
    NONE = None


class Nothing(enum.Enum):
    pass


class Bad(enum.Enum):
    A = (1, 2)


HINTS = [
    int, float, str, bool, Any, None, type(None), list, dict, tuple, list[int], dict[str, int], dict[str, list[float]],
    tuple[int, str], list[tuple[int, int]], Optional[int], int | None, Union[int, str], int | str | None, list | tuple,
    Union[list[int], str], Optional[list[int]], Literal["a", "b"], Literal[1, "x", None], Optional[Literal["a"]], Unit, Level,
    Mixed, Nothing, Bad, Optional[Unit], list[Unit], Unit | int, typing.List[int], typing.List, typing.Dict[str, int],
    typing.Dict, typing.Tuple[int, int], typing.Tuple, tuple[int], tuple[int, ...], set, set[int], bytes, object, complex,
    Callable, Callable[[int], int], typing.TypeVar("T"), torch.Tensor, Union[dict[str, int], list[str], int],
    list[int | None], dict[str, Any], list[Any], typing.Annotated[int, "x"], list[list[list[str]]], "int", "list[int] | None",
    Literal[True, 1], Literal[b"x"], type, typing.Sequence[int], typing.Iterable, Optional[Any], Union[bool, int, float],
]  # fmt: skip


def made(function: Callable[..., Any], schema: Callable[..., Any]) -> Any:
    try:
        return schema(function)
    except InputError:
        return None
    except Exception:
        if schema is get_json_schema:
            raise
        return None


def same(function: Callable[..., Any]) -> Any:
    ours, theirs = made(function, get_json_schema), made(function, reference)
    assert ours == theirs
    return ours


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_hints(hint: Any) -> None:
    def f(x, y=None):  # type: ignore[no-untyped-def]
        """Does.

        Args:
            x: The x.
            y: The y.
        """

    f.__annotations__ = {"x": hint, "y": hint, "return": hint}
    same(f)
    f.__annotations__ = {"x": int, "y": int, "return": hint}
    assert same(f) is not None


def documented(doc: str | None) -> Callable[..., Any]:
    def f(a: int, long_name: str = "x") -> str:
        return ""

    f.__doc__ = doc
    return f


DOCS = [
    None, "", "   ", "Only a description.", "D.\n\nArgs:\n    a: A.\n    long_name: B.", "D.\nArgs:\n    a: A.\n    long_name: B.",
    "D.\n\nMore of it.\n\n    indented\n\nArgs:\n    a: A.\n    long_name: B.\n\nReturns:\n    What it returns.",
    "D.\n\nArgs:\n    a: A\n        goes on\n        and on.\n    long_name: B.\n\nReturns: On the line.",
    "D.\n\nArgs:\n    a: A.\n\n    long_name: B.\n\nReturns:\n    R1\n    R2\n\nRaises:\n    ValueError: never.",
    "D.\n\nArgs:\n    a: A (choices: [1, 2]).\n    long_name: B (choices: [\"x\", \" y \"])",
    "D.\n\nArgs:\n    a: A (choices: [1, 2])\n    long_name: B (Choices:   [\"x\"])  ",
    "D.\n\nArgs:\n    a: A: with: colons\n    long_name: see http://x.y/z: here",
    "D.\n\nArgs:\n    a: A.\n    long_name: B.\n    unknown: C.", "D.\n\nArgs:\n    a: A.", "D.\n\nArgs:\n    a (int): A.\n    long_name: B.",
    "D.\n\nArgs:\n    a:\n        A below.\n    long_name:\n        B below.", "D.\n\nArgs:\n    a: \n    long_name: B.",
    "D.\n\nArguments:\n    a: A.\n    long_name: B.", "Args:\n    a: A.\n    long_name: B.",
    "\n    D.\n\n    Args:\n        a: A.\n        long_name: B.\n    ",
    "D.\n\nArgs:\n    a: A.\n        nested: not an argument\n    long_name: B.\n\nReturns:\n    a dict:\n        x: 1",
    "D.\n\nArgs:\n\ta: tabs\n\tlong_name: B.", "D.\n\nArgs:\n  a: two spaces\n  long_name: ünï 😀.", "D.\n\nArgs:\n    a: A.\n    long_name: B.\n\nExample:\n    f(1)",
    "D.\n\nRaises:\n    X: y.", "D.\n\nArgs:\n    a: \"quoted\" text\\n\n    long_name: {braces}", "D.\n\nArgs:\n    a: A (choices: nonsense)\n    long_name: B.",
]  # fmt: skip


@pytest.mark.parametrize("doc", DOCS, ids=range(len(DOCS)))
def test_docstrings(doc: str | None) -> None:
    same(documented(doc))


def test_sections_in_another_order() -> None:
    """The reference takes `Args:` for a part of what is returned."""
    schema = get_json_schema(documented("D.\n\nReturns:\n    R.\n\nArgs:\n    a: A.\n    long_name: B."))["function"]
    assert schema["return"] == {"type": "string", "description": "R."}
    assert schema["parameters"]["properties"]["a"] == {"type": "integer", "description": "A."}


class Tools:
    def method(self, x: int) -> int:
        """M.

        Args:
            x: X.
        """
        return x

    @classmethod
    def made(cls, x: int) -> int:
        """C.

        Args:
            x: X.
        """
        return x

    @staticmethod
    def free(x: int) -> int:
        """S.

        Args:
            x: X.
        """
        return x


def no_hint(x):  # type: ignore[no-untyped-def]
    """D.

    Args:
        x: X.
    """


def no_arguments() -> None:
    """D."""


def keywords(a: int, *, b: str, c: float = 1.0) -> dict[str, int]:
    """D.

    Args:
        a: A.
        b: B.
        c: C.

    Returns:
        A dict.
    """
    return {}


@pytest.mark.parametrize(
    "function", [Tools().method, Tools.method, Tools.made, Tools.free, no_hint, no_arguments, keywords], ids=range(7)
)
def test_kinds_of_functions(function: Callable[..., Any]) -> None:
    same(function)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(InputError, match="argument 'x' has no type hint"):
        get_json_schema(no_hint)
    with pytest.raises(InputError, match="does not describe 'long_name'"):
        get_json_schema(documented("D.\n\nArgs:\n    a: A."))
    with pytest.raises(InputError, match="no docstring"):
        get_json_schema(documented(None))
