"""A Python function -> the JSON schema that chat templates get for a tool, from its type hints and docstring.

Same output as transformers 5.23 `get_json_schema`. The docstring is Google's style: a description, `Args:` with a line
for each argument (more lines are indented deeper; `(choices: ["a", "b"])` at the end of one becomes an `enum`), and
`Returns:`, which few templates read.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pellucid.errors import InputError

SIMPLE = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
SIMPLE |= {list: "array", tuple: "array", dict: "object"}
SCALARS = (int, float, str, bool, type(None))
SECTION = re.compile(r"^(Args|Returns|Raises):", re.M)
ARGUMENT = re.compile(r"^([ \t]*)(\w+):\s*", re.M)
CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.I)


def get_json_schema(func: Callable[..., Any]) -> dict[str, Any]:
    """`{"type": "function", "function": {"name": …, "description": …, "parameters": …}}`.

    Args:
        func: a function or method with type hints and a docstring that describes each argument. A first parameter
            `self` or `cls` without a hint is left out.

    Raises:
        InputError: a hint or a description is missing, or a hint has no equal in JSON.
    """
    name = getattr(func, "__name__", "operation")
    doc = (inspect.getdoc(func) or "").strip()
    if not doc:
        raise _cannot(name, "it has no docstring")
    description, described, returned = parse_docstring(doc)
    if not description:
        raise _cannot(name, "its docstring does not say what it does")
    parameters, answer = _parameters(func, name)
    for argument, schema in parameters["properties"].items():
        if not described.get(argument):
            raise _cannot(name, f"its docstring does not describe {argument!r}", "add it to the section `Args:`")
        text = described[argument]
        if found := CHOICES.search(text):
            schema["enum"] = _choices(name, argument, found[1])
            text = text[: found.start()].strip()
        schema["description"] = text
    function = {"name": name, "description": description, "parameters": parameters}
    if answer is not None:
        function["return"] = answer | ({"description": returned} if returned is not None else {})
    return {"type": "function", "function": function}


def parse_docstring(doc: str) -> tuple[str, dict[str, str], str | None]:
    """The description, the arguments by name, and what is returned (None if it does not say)."""
    parts = SECTION.split(doc)
    sections: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2]):
        sections.setdefault(name, text)
    lines = [line for line in sections.get("Args", "").split("\n") if line.strip()]
    returned = sections.get("Returns", "")
    return parts[0].strip(), _arguments(lines), returned.strip() if returned.startswith("\n") else None


def _arguments(lines: list[str]) -> dict[str, str]:
    """`name: text` at one indentation each; lines that are indented deeper belong to the text before."""
    found: dict[str, str] = {}
    name, margin = "", ""
    for line in lines:
        match = ARGUMENT.match(line)
        if match and not (name and re.match(rf"{margin}[ \t]", line)):
            margin, name = match[1], match[2]
            found[name] = line[match.end() :].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _choices(name: str, argument: str, text: str) -> list[Any]:
    try:
        values = json.loads(text)
    except ValueError as e:
        raise _cannot(name, f"the choices of {argument!r} are no JSON list: {text} ({e})") from None
    return [value.strip() if isinstance(value, str) else value for value in values]


def _parameters(func: Callable[..., Any], name: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The schema of the arguments, and of what is returned where that has one."""
    given = dict(inspect.signature(func).parameters)
    first = next(iter(given), None)
    if first in ("self", "cls") and given[first].annotation is inspect.Parameter.empty:
        del given[first]
    for argument, parameter in given.items():
        if parameter.annotation is inspect.Parameter.empty:
            raise _cannot(name, f"argument {argument!r} has no type hint")
    hints = get_type_hints(func)
    answer = None
    if "return" in hints:
        try:
            answer = of_hint(hints["return"])
        except InputError:  # the model never writes it, so it may be anything
            answer = None
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {argument: of_hint(hint) for argument, hint in hints.items() if argument in given}
    required = [argument for argument, parameter in given.items() if parameter.default is inspect.Parameter.empty]
    return schema | ({"required": required} if required else {}), answer


def of_hint(hint: Any) -> dict[str, Any]:
    """The schema of a type hint."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is None:
        return _of_type(hint)
    if origin is Union or origin is types.UnionType:
        return _of_union(inner)
    if origin is Literal:
        return _enum(hint, inner)
    if origin is list:
        return {"type": "array"} | ({"items": of_hint(inner[0])} if inner else {})
    if origin is tuple:
        if len(inner) == 1 or ... in inner:
            raise _no_schema(hint, "use list[...] for any number of elements, or the element itself for one")
        return {"type": "array"} | ({"prefixItems": [of_hint(each) for each in inner]} if inner else {})
    if origin is dict:
        return {"type": "object"} | ({"additionalProperties": of_hint(inner[1])} if len(inner) == 2 else {})
    raise _no_schema(hint)


def _of_type(hint: Any) -> dict[str, Any]:
    if hint is Any:
        return {}
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            return _enum(hint, [member.value for member in hint])
        if hint in SIMPLE:
            return {"type": SIMPLE[hint]}
        # By name, since neither library is imported for a hint.
        if (hint.__module__, hint.__name__) == ("PIL.Image", "Image"):
            return {"type": "image"}
        if (hint.__module__, hint.__name__) == ("torch", "Tensor"):
            return {"type": "audio"}
    raise _no_schema(hint)


def _of_union(inner: Iterable[Any]) -> dict[str, Any]:
    """One type; a list of simple types; or `anyOf`. None becomes `nullable`."""
    kinds = [of_hint(each) for each in inner if each is not type(None)]
    found: dict[str, Any]
    if len(kinds) == 1:
        found = kinds[0]
    elif all(kind.keys() == {"type"} and isinstance(kind["type"], str) for kind in kinds):
        names = sorted({kind["type"] for kind in kinds})
        found = {"type": names[0] if len(names) == 1 else names}
    else:
        found = {"anyOf": kinds}
    return found | ({"nullable": True} if type(None) in inner else {})


def _enum(hint: Any, values: Iterable[Any]) -> dict[str, Any]:
    values = list(values)
    if not values or any(type(value) not in SCALARS for value in values):
        raise _no_schema(hint, "its values are to be numbers, strings, bools or None")
    names = list(dict.fromkeys(SIMPLE[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": values}


def _no_schema(hint: Any, next: str = "") -> InputError:
    known = "hints are int, float, str, bool, Any, Enum, Literal, and list, tuple, dict and unions of those"
    return InputError(
        f"no JSON schema for the type hint {hint!r}", next=next or f"{known}; or write the schema by hand"
    )


def _cannot(name: str, why: str, next: str = "") -> InputError:
    return InputError(f"no JSON schema for {name}: {why}", next=next or "or give the schema as a dict")
