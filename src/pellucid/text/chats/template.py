"""Chat templates: Jinja text -> rendered text, in the sandbox of `sandbox.py`.

Syntax, filters and globals are those of transformers 5.23 (`utils/chat_template_utils.py`): `trim_blocks`,
`lstrip_blocks`, `break` and `continue`, `{% generation %}`, `tojson` without HTML escapes, `raise_exception`,
`strftime_now`, `dict`, `namespace`, `range`, `cycler`, `joiner`. Missing on purpose: `lipsum`; `{% block %}`,
`{% include %}` and the other tags that need a second template; `{% autoescape %}`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import jinja2
from jinja2 import meta, nodes, pass_context

from pellucid.errors import InputError, PellucidError, TemplateError
from pellucid.text.chats.sandbox import (
    DEPTH,
    LONG,
    SCALARS,
    Budget,
    Sandbox,
    TemplateContext,
    TemplateDict,
    gather,
    refuse,
    sandbox,
)

LONGEST = 40_000  # characters of a template; compiling is quadratic in places, and the longest known has 19,000


class Rendered(NamedTuple):
    """The text, and the spans of it (start, end) that `{% generation %}` blocks wrote."""

    text: str
    spans: list[tuple[int, int]]


def render(source: str, variables: Mapping[str, Any]) -> Rendered:
    """The text that a template makes of its variables.

    Args:
        source: the template.
        variables: what it can name; rebuilt from plain JSON types (see `plain`), so it cannot reach anything else.

    Raises:
        TemplateError: the template is broken, breaks a rule of the sandbox, or refuses these messages.
        InputError: the variables contain themselves, or are nested too deep.
    """
    template = compiled(source)
    budget = Budget()
    given = {name: plain(value, budget) for name, value in variables.items()}
    budget.start()
    context = TemplateContext(template.environment, {**template.environment.globals, **given}, None, {})
    context.budget = budget
    pieces, size = [], 0
    try:
        for piece in template.root_render_func(context):
            pieces.append(piece)
            size += len(piece)
            if size > budget.size:
                budget.fits(size)
    except Exception as e:
        raise _explain(e, template) from e
    text, marks = gather(pieces)
    return Rendered(text, _spans(marks))


@functools.lru_cache(maxsize=128)
def compiled(source: str) -> jinja2.Template:
    """The template as code; kept, since a conversation renders the same one again and again."""
    if len(source) > LONGEST:
        raise TemplateError(f"a template of {len(source)} characters; {LONGEST} are allowed")
    try:
        return environment().from_string(source)
    except Exception as e:
        line = f"chat template, line {e.lineno}" if isinstance(e, jinja2.TemplateSyntaxError) else "chat template"
        raise TemplateError(f"the chat template is broken: {_message(e)}", where=line) from e


MAY_BE_ABSENT = ("defined", "undefined", "default", "d")  # tests and filters for variables that callers may give


class Names(NamedTuple):
    """The variables that a template reads."""

    read: frozenset[str]  # and may not have set itself before, so a caller can give them
    asked: frozenset[str]  # those of them that it never sets, or looks whether they are defined: what it asks callers


@functools.lru_cache(maxsize=128)
def names(source: str) -> Names:
    """The variables that a template reads."""
    own = compiled(source).environment
    tree = own.parse(source)
    read = frozenset(meta.find_undeclared_variables(tree) - own.globals.keys())
    stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    looked_at = [each.node for each in tree.find_all((nodes.Test, nodes.Filter)) if each.name in MAY_BE_ABSENT]
    tested = {name.name for name in looked_at if isinstance(name, nodes.Name)}
    return Names(read, read & tested | read - stored)


@functools.lru_cache(maxsize=128)
def literals(source: str) -> str:
    """Every text that a template may write as it stands, with a null character between two."""
    tree = compiled(source).environment.parse(source)
    texts = {node.data for node in tree.find_all(nodes.TemplateData)}
    texts |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return "\0".join(sorted(texts))


@functools.cache
def environment() -> Sandbox:
    return sandbox(
        {"tojson": tojson},
        {"raise_exception": raise_exception, "strftime_now": strftime_now, "dict": TemplateDict()},
    )


# ---- what templates call -----------------------------------------------------------------------------------------


@pass_context
def tojson(
    context: Any,
    x: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models read it in prompts: no HTML escapes, unicode as it is."""
    margin = indent if isinstance(indent, int) else len(indent or "")
    if max([margin, *map(len, separators or ())]) > 100:
        refuse("JSON is asked for with more than 100 characters between values")
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if indent is None:
        return encoder.encode(x)
    pieces, size, most = [], 0, context.budget.size
    for piece in encoder.iterencode(x):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            context.budget.fits(size)
    return "".join(pieces)


def raise_exception(message: Any) -> None:
    """A template's way to refuse a conversation."""
    raise jinja2.TemplateError(str(message))


def strftime_now(format: str) -> str:
    """The local time."""
    if len(format) > LONG:
        refuse("a format of a date is too long")
    return datetime.now().strftime(format)


# ---- what templates see ------------------------------------------------------------------------------------------


def plain(value: Any, budget: Budget, depth: int = 0) -> Any:
    """`value` rebuilt from exact JSON types, and weighed. Templates get nothing else, so nothing else has methods.

    Subclasses of str, int and float become these; dataclasses and pydantic models become dicts; numpy's scalars
    become numbers; anything else, such as a picture, becomes the name of its type: "<Image>".
    """
    kind = type(value)
    if kind is str:
        budget.input += len(value)
        return value
    if kind in SCALARS:
        return value
    if depth > DEPTH:
        raise InputError(f"messages, tools or documents are nested more than {DEPTH} deep, or contain themselves")
    before = budget.input
    new: Any
    if kind is dict or isinstance(value, Mapping):
        new = {}
        for name, each in value.items():
            key = name if type(name) is str else plain(name, budget, depth + 1)
            if type(each) is str:
                budget.input += len(each)
                new[key] = each
            else:
                new[key] = plain(each, budget, depth + 1)
    elif isinstance(value, list):
        new = [plain(each, budget, depth + 1) for each in value]
    elif isinstance(value, tuple):
        new = tuple([plain(each, budget, depth + 1) for each in value])
    else:
        return plain(_simple(value), budget, depth + 1)
    budget.input += 1 + 8 * len(new)
    budget.weights[id(new)] = budget.input - before, 1, new
    return new


def _simple(value: Any) -> Any:
    """One step towards JSON types."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return getattr(kind, f"__{kind.__name__}__")(value)
    if any((base.__module__, base.__name__) == ("numpy", "generic") for base in type(value).__mro__):
        return value.item()
    made = as_dict(value)
    return f"<{type(value).__name__}>" if made is None else made


def as_dict(value: Any) -> Mapping[str, Any] | None:
    """A dataclass's fields or what a pydantic model dumps; None for other values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        return found if isinstance(found := dump(), Mapping) else None
    return None


# ---- what comes out ----------------------------------------------------------------------------------------------


def _spans(marks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Outermost pairs of marks."""
    spans, open, start = [], 0, 0
    for place, step in marks:
        if step > 0 and open == 0:
            start = place
        open += step
        if open == 0:
            spans.append((start, place))
    return spans


def _explain(error: Exception, template: jinja2.Template) -> PellucidError:
    """What went wrong in a template, and in which line of it."""
    if isinstance(error, PellucidError):
        return error
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    where = f"chat template, line {line}" if line else "chat template"
    if type(error) is jinja2.TemplateError:
        return TemplateError(f"the chat template refuses: {_message(error)}", where=where)
    if isinstance(error, jinja2.exceptions.SecurityError):
        return TemplateError(f"the chat template breaks a rule of the sandbox: {_message(error)}", where=where)
    missing = isinstance(error, jinja2.UndefinedError)
    next = "give the message, or the template's argument, what the template looks for" if missing else ""
    return TemplateError(f"the chat template fails: {_message(error)}", where=where, next=next)


def _message(error: Exception) -> str:
    text = str(error) or type(error).__name__
    text = text if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {text}"
    return text if len(text) <= LONG else text[:LONG] + "…"
