"""Arguments of a call: JSON, the literals of Python and of Gemma, and plain text typed by the tool's JSON schema.

Everything is bounded: nesting by `DEPTH`, numbers to what is finite. Twice the same key, NaN, infinities and halves
of surrogate pairs are `Broken`, not repaired. Literals are read here, not by `ast`: the parser of Python recurses on
hostile input, and models write strings over several lines and `true` beside `True`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.text.answers.reader import DEPTH, Broken, Reader, Wait, stops

STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)  # an open string ends with the text
WORD = re.compile(r"[^\s,:=()\[\]{}\"'<]*")
IDENTIFIER = re.compile(r"[\w.\-]*")
NUMBER = re.compile(r"[+-]?(\d[\d_]*+)?\.?\d*+([eE][+-]?\d+)?")
WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
PYTHON_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\n|.)", re.DOTALL)
PYTHON_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "\n": "", "0": "\0"}


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def loads(text: str) -> Any:
    """JSON as the standard has it, but for line breaks inside strings."""
    depth = 0
    for found in STRING_OR_BRACKET.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
        if depth > DEPTH:
            raise Broken(f"JSON nested deeper than {DEPTH}")
    try:
        value = json.loads(
            text, strict=False, parse_float=_finite, parse_constant=_refused, object_pairs_hook=_without_repetition
        )
        if "\\ud" in text.lower():
            dumps(value).encode()
    except ValueError as error:
        raise Broken(f"no valid JSON: {error}") from None
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _refused(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


@dataclass(frozen=True)
class Style:
    """How literals are written. `quotes` open and close a string; `raw`: nothing is escaped in it."""

    quotes: tuple[str, ...]
    raw: bool


PYTHON = Style(quotes=('"""', "'''", '"', "'"), raw=False)


def literal(r: Reader, style: Style, depth: int = 0) -> Wait[Any]:
    """Reads one value: a string, number, True, None, list, tuple or dict."""
    if depth > DEPTH:
        raise Broken(f"nested deeper than {DEPTH}")
    yield from r.space()
    if quote := (yield from r.starts(*style.quotes)):
        r.take(len(quote))
        return (yield from _string(r, quote, style))
    if bracket := (yield from r.starts("[", "(", "{")):
        r.take(1)
        read = _object if bracket == "{" else _list
        return (yield from read(r, style, depth, {"[": "]", "(": ")", "{": "}"}[bracket]))
    return _word((yield from r.run(WORD, 4096)))


def _list(r: Reader, style: Style, depth: int, close: str) -> Wait[list[Any]]:
    items: list[Any] = []
    while True:
        yield from r.space()
        if (yield from r.starts(close)):
            r.take(1)
            return items
        items.append((yield from literal(r, style, depth + 1)))
        yield from _comma(r, close)


def _object(r: Reader, style: Style, depth: int, close: str) -> Wait[dict[str, Any]]:
    items: dict[str, Any] = {}
    while True:
        yield from r.space()
        if (yield from r.starts(close)):
            r.take(1)
            return items
        if (yield from r.starts(*style.quotes)):
            key = yield from literal(r, style, depth + 1)
        else:
            key = (yield from r.run(WORD, 4096)).strip()
        if key in items:
            raise Broken(f"the key {key!r} occurs twice")
        yield from r.space()
        yield from r.expect(":")
        items[key] = yield from literal(r, style, depth + 1)
        yield from _comma(r, close)


def _comma(r: Reader, close: str) -> Wait[None]:
    """A comma is read; the bracket that closes stays."""
    yield from r.space()
    if not (yield from r.starts(close)):
        yield from r.expect(",")


def _string(r: Reader, quote: str, style: Style) -> Wait[str]:
    """To the quote that something follows which can follow a string: templates forget to escape quotes."""
    parts: list[str] = []
    marks = stops(quote) if style.raw else stops(quote, "\\")
    while True:
        mark = yield from r.scan(marks, parts.append)
        if mark is None:
            raise Broken("the text ends inside a string")
        if mark == "\\":
            if not (yield from r.more()):
                raise Broken("the text ends inside a string")
            parts.append("\\" + r.take(1))
            continue
        white = yield from r.space()
        if style.raw or not (yield from r.more()) or r.text[r.at] in ",)]}:;":
            text = "".join(parts)
            return text if style.raw else PYTHON_ESCAPE.sub(_unescaped, text)
        parts.append(mark + white)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] not in "xuU" or len(code) == 1:
        return PYTHON_ESCAPES.get(code, found[0])
    number = int(code[1:], 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise Broken(f"\\{code} is no character")
    return chr(number)


def _word(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    if text and text[-1] != "_" and NUMBER.fullmatch(text) and any(map(str.isdigit, text)):
        try:
            return _finite(text) if set(text) & set(".eE") else int(text)
        except ValueError as error:
            raise Broken(str(error)) from None
    raise Broken(f"{text[:40]!r} is neither a number nor a quoted string")


def literal_of(text: str) -> Any:
    """The one Python literal that `text` is."""
    r = Reader()
    r.feed(text)
    r.final = True
    parser = literal(r, PYTHON)
    try:
        next(parser)
    except StopIteration as found:
        if r.text[r.at :].strip():
            raise Broken("text after the value") from None
        return found.value
    raise AssertionError("a reader that is final does not wait")


def schemas_of(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    """Name -> the properties of the tool's parameters. A tool is `{"type": "function", "function": …}` or that."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools or ():
        function = tool.get("function", tool)
        parameters = function.get("parameters") or function.get("input_schema") or {}
        found[str(function.get("name"))] = parameters.get("properties") or {}
    return found


NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def types_of(schema: Any) -> frozenset[str]:
    """The JSON types that a schema allows; empty where it does not say."""
    if not isinstance(schema, Mapping):
        return frozenset()
    kind = schema.get("type")
    found = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, list) else set()
    for each in ("anyOf", "oneOf", "allOf"):
        for choice in schema.get(each) or ():
            found |= types_of(choice)
    if not found and isinstance(schema.get("enum"), list):
        found = {NAMES.get(type(value), "object") for value in schema["enum"]}
    return frozenset(found | ({"null"} if schema.get("nullable") else set()))


def typed(text: str, types: frozenset[str]) -> Any:
    """A parameter that was written as plain text.

    Where the schema says what it is, it becomes that, or stays text if it cannot. Where it does not say, what reads
    as a JSON number, boolean, null, list or object is one, and everything else is text.
    """
    bare = text.strip()
    if types == {"string"}:
        return text
    if not bare and types:
        return text if "string" in types else [] if "array" in types else {} if "object" in types else text
    try:
        value = loads(bare) if bare[:1] != '"' else text
    except Broken:
        value = _python(bare, text)
    return value if not types or _allowed(value, types) else text


def _python(bare: str, text: str) -> Any:
    """Some templates write `True` and `{'a': 1}`."""
    if bare in WORDS or bare[:1] in ("{", "["):
        try:
            return literal_of(bare)
        except Broken:
            return text
    return text


def _allowed(value: Any, types: frozenset[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and "integer" in types):
        return bool({"integer", "number"} & types)
    kinds = {float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    return kinds[type(value)] in types
