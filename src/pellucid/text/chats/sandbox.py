"""What a chat template may do, and how much of it: Jinja with an allowlist and a budget.

A template is a program that came with a model, so it is treated as hostile. jinja2's own sandbox refuses attributes
that are known to be dangerous; this one allows those that are known to be safe (`ATTRIBUTES`), and bounds the work:

- `Generator` compiles a call of `tick` into every loop, comparison and call, so no path through a template
  avoids the count of steps and the clock. No signals, no tracing: it works in any thread.
- Every string and container that a template makes is weighed (`Budget.made`), a container with all that it contains
  as if written out, so that `[x, x]` forty times over is refused before anything walks it.
- What could grow by a factor is computed before it is made: `*`, `**`, `%`, `join`, `replace`, `center`, ...
- The clock is the CPU time of this thread: a suspended machine is not a slow template.
"""

# ruff: noqa: N802, N805 (jinja2's names)
from __future__ import annotations

import functools
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import BuiltinFunctionType, MethodType
from typing import Any, NoReturn, cast

from jinja2 import nodes, runtime
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_context
from markupsafe import Markup

STEPS = 1_000_000  # turns of loops, comparisons, calls, filters; a message takes 20 to 100
SECONDS = 1.0  # of CPU; a conversation of 1,000 messages takes about 0.02
SIZE = 1_000_000  # characters or elements of one value, and of the text
BUILT = 30_000_000  # characters of everything that is made on the way, garbage included
DEPTH = 100  # macros that call macros, lists in lists
LONG = 1000  # of an argument that names or separates something
SLOW = 10_000  # characters for the filters in SLOW_FILTERS


class Budget:
    """The limits of one rendering, and what is left of them. The input's own size comes on top of each."""

    def __init__(self) -> None:
        self.weights: dict[int, tuple[int, int, Any]] = {}  # id -> weight, height, the object (which keeps the id)
        self.input = 0
        self.depth = 0
        self.markup = False  # whether a value knows that it is HTML, which changes what `+` does

    def start(self) -> None:
        """Set the limits, once the input was taken in and counted."""
        self.size = SIZE + 4 * self.input
        self.left = BUILT + 16 * self.input
        self.end = time.thread_time() + SECONDS + self.input * 2e-6
        self.tick = itertools.chain.from_iterable(self.steps()).__next__

    def steps(self) -> Iterator[Iterable[None]]:
        """`tick()` is one step: the next of these. Each 64 the clock is looked at; the rest is no Python code."""
        for _ in range((STEPS + 20 * self.input) // 64):
            self.check()
            yield itertools.repeat(None, 64)
        refuse("it takes more steps than a template may")

    def check(self) -> None:
        """Look at the clock."""
        if time.thread_time() > self.end:
            refuse("it takes more time than a template may")

    def fits(self, size: int) -> None:
        """Before something of that size is made."""
        if size > self.size:
            refuse(f"it makes a value of {size} characters or elements; {self.size} are allowed")

    def made(self, value: Any) -> Any:
        """Count what a template has just made; gives it back."""
        if isinstance(value, str):
            size = len(value)
            self.left -= size + 50
            self.markup = self.markup or isinstance(value, Markup)
        elif type(value) in CONTAINERS or isinstance(value, tuple):
            size = self.weigh(value)[0]
            self.left -= 8 * len(value)
        else:
            return value
        if size > SLOW or self.left < 0:
            self.large(size)
        return value

    def large(self, size: int) -> None:
        """After something of that size was made."""
        self.fits(size)
        self.check()
        if self.left < 0:
            refuse("it makes more text and lists than a template may")

    def weigh(self, value: Any) -> tuple[int, int]:
        """Characters and elements of a value as if written out, and how deep it is nested."""
        if isinstance(value, str):
            return len(value), 0
        if type(value) not in CONTAINERS and not isinstance(value, tuple):
            return 0, 0
        if (known := self.weights.get(id(value))) is not None:
            return known[0], known[1]
        inner: list[Any] = [*value, *value.values()] if isinstance(value, dict) else list(value)
        weight, height = 1 + len(inner), 1
        kinds = set(map(type, inner))
        if kinds == {str}:
            weight += sum(map(len, inner))
        elif not kinds <= SCALARS:
            for each in inner:
                more, deep = self.weigh(each)
                weight, height = weight + more, max(height, deep + 1)
        if height > DEPTH:
            refuse(f"it nests lists more than {DEPTH} deep")
        self.weights[id(value)] = weight, height, value
        return weight, height

    def text(self, value: Any) -> str:
        """What `{{ value }}` prints, for anything but a str."""
        return value if type(value) is Marked else self.made(str(value))

    def joined(self, pieces: Iterable[str]) -> str:
        """One text from the pieces that a macro or a `set` block printed; marks of generation blocks stay in it."""
        pieces = list(pieces)
        self.fits(sum(map(len, pieces)))
        text, marks = gather(pieces)
        return self.made(Marked(text, marks) if marks else text)

    def tilde(self, values: Iterable[Any]) -> str:
        """`a ~ b`."""
        return self.joined(value if type(value) is str else self.text(value) for value in values)

    def plus(self, terms: tuple[Any, ...]) -> Any:
        """`a + b + c`; nearly always texts."""
        if len(terms) <= 16 and not self.markup:
            try:
                text = "".join(terms)
            except TypeError:
                pass
            else:
                self.left -= len(text) + 50
                if len(text) > SLOW or self.left < 0:
                    self.large(len(text))
                return text
        return functools.reduce(self.add, terms)

    def add(self, left: Any, right: Any) -> Any:
        """`a + b`."""
        return self.made(left + right)

    def mul(self, left: Any, right: Any) -> Any:
        """`a * b`."""
        if isinstance(left, int) and isinstance(right, int):
            self.fits(100 * (left.bit_length() + right.bit_length()))
        many, times = (left, right) if isinstance(right, int) else (right, left)
        if isinstance(many, str | list | tuple) and isinstance(times, int):
            self.fits((len(many) + self.weigh(many)[0]) * max(times, 0))
        return self.made(left * right)

    def pow(self, left: Any, right: Any) -> Any:
        """`a ** b`."""
        if isinstance(left, int) and isinstance(right, int):
            self.fits(100 * left.bit_length() * max(right, 1))
        return left**right

    def mod(self, left: Any, right: Any) -> Any:
        """`a % b`: a remainder, or a format."""
        if isinstance(left, str):
            _percent(self, left, right)
            return self.made(left % right)
        return left % right

    def nested(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something that can call itself."""
        self.depth += 1
        if self.depth > DEPTH:
            refuse(f"its macros or loops call each other more than {DEPTH} deep")
        try:
            return function(*args, **kwargs)
        finally:
            self.depth -= 1


SCALARS = frozenset({int, float, bool, type(None)})
CONTAINERS = frozenset({list, tuple, dict, set, frozenset, type({}.keys()), type({}.values()), type({}.items())})


def refuse(why: str) -> NoReturn:
    raise SecurityError(why)


# ---- marks: where the text of a generation block begins and ends ------------------------------------------------


class Marked(str):
    """A text that knows where generation blocks begin (+1) and end (-1) in it."""

    marks: tuple[tuple[int, int], ...]

    def __new__(cls, text: str, marks: Iterable[tuple[int, int]] = ()) -> Marked:
        self = super().__new__(cls, text)
        self.marks = tuple(marks)
        return self

    def __str__(self) -> str:
        return self


BEGIN, END = Marked("", [(0, 1)]), Marked("", [(0, -1)])


def gather(pieces: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """The pieces as one text, and the marks at their places in it."""
    marks: list[tuple[int, int]] = []
    if Marked in set(map(type, pieces)):
        at = 0
        for piece in pieces:
            if isinstance(piece, Marked):
                marks += [(at + place, step) for place, step in piece.marks]
            at += len(piece)
    return "".join(pieces), marks


class GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}`: what the assistant said. A scope of its own, as in transformers."""

    tags = {"generation"}

    def parse(self, parser: Any) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([nodes.ImportedName(f"{__name__}.{name}")]) for name in ("BEGIN", "END"))
        return [begin.set_lineno(line), nodes.Scope(body, lineno=line), end.set_lineno(line)]


# ---- the compiler: every path counts ----------------------------------------------------------------------------


class Generator(CodeGenerator):
    """jinja2's code generator, with the budget written into the code. Names in a template cannot hide these."""

    def write_commons(self) -> None:
        super().write_commons()
        for name in ("tick", "made", "text", "tilde", "plus", "add", "mul", "pow", "mod"):
            self.writeline(f"{name} = context.budget.{name}")
        self.writeline("concat = context.budget.joined")

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        if frame.loop_frame and not frame.soft_frame:  # the body of a loop
            self.writeline("tick()")
        super().blockvisit(nodes, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        self.writeline("tick()")
        super().visit_For(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        sides = [node.expr, *(each.expr for each in node.ops)]
        quick = any(isinstance(side, nodes.Const) for side in sides) and node.ops[0].op in ("eq", "ne")
        self.write("(" if quick else "(tick() or ")
        super().visit_Compare(node, frame)
        self.write(")")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("(_text if type(_text := ")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(") is str else text(_text))")

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        left: nodes.Expr = node
        terms: list[nodes.Expr] = []
        while isinstance(left, nodes.Add):
            terms.insert(0, left.right)
            left = left.left
        terms.insert(0, left)
        if any(isinstance(each, nodes.Const) and isinstance(each.value, str) for each in terms):
            self._written("plus((", terms, "))", frame)
        else:
            self._written("add(", [node.left, node.right], ")", frame)

    def visit_Mul(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._written("mul(", [node.left, node.right], ")", frame)

    def visit_Pow(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._written("pow(", [node.left, node.right], ")", frame)

    def visit_Mod(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._written("mod(", [node.left, node.right], ")", frame)

    def _written(self, begin: str, items: Iterable[nodes.Expr], end: str, frame: Frame) -> None:
        self.write(begin)
        for each in items:
            self.visit(each, frame)
            self.write(", ")
        self.write(end)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._written("tilde((", node.nodes, "))", frame)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        self._looked_up(node, node.attr, "getattr", frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        key = node.arg.value if isinstance(node.arg, nodes.Const) else None
        if isinstance(key, str):
            self._looked_up(node, key, "getitem", frame)
        else:
            self._weighed(isinstance(node.arg, nodes.Slice), super().visit_Getitem, node, frame)

    def _looked_up(self, node: nodes.Getattr | nodes.Getitem, key: str, function: str, frame: Frame) -> None:
        """`x.key` or `x["key"]`: nearly always an item of a dict, so that case is written out."""
        if key in ATTRIBUTES[dict] and function == "getattr":
            super().visit_Getattr(cast(nodes.Getattr, node), frame)
            return
        self.write(f"(_from[{key!r}] if type(_from := ")
        self.visit(node.node, frame)
        self.write(f") is dict and {key!r} in _from else environment.{function}(_from, {key!r}))")

    def visit_Block(self, node: nodes.Node, frame: Frame) -> None:
        self.fail(f"a chat template stands alone and writes text, so it has no {type(node).__name__}", node.lineno)

    visit_Extends = visit_Include = visit_Import = visit_FromImport = visit_Block
    visit_EvalContextModifier = visit_ScopedEvalContextModifier = visit_Block

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._weighed(not _constant(node.items), super().visit_List, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        self._weighed(node.ctx == "load" and not _constant(node.items), super().visit_Tuple, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._weighed(bool(node.items), super().visit_Dict, node, frame)

    def _weighed(self, weigh: bool, visit: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        self.write("made(" if weigh else "(")
        visit(node, frame)
        self.write(")")


def _constant(items: Iterable[nodes.Node]) -> bool:
    return all(isinstance(each, nodes.Const) for each in items)


# ---- what may be looked at and called ---------------------------------------------------------------------------

STR = """capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal isdigit
    isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition removeprefix
    removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title
    upper zfill"""
LOOP = """index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle changed"""
ATTRIBUTES: dict[type, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        str: STR,
        Markup: STR,
        Marked: STR,
        dict: "get items keys values copy",
        list: "index count copy",
        tuple: "index count",
        int: "bit_length real imag",
        float: "is_integer real imag",
        runtime.LoopContext: LOOP,
        Cycler: "next current reset",
    }.items()
}
INDEXED = (dict, list, str, tuple, range)


class TemplateNamespace(Namespace):
    """`namespace(...)`, whose names are not Python's own and which prints nothing of what it holds."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` is a name that a template may use
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            _public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class TemplateDict:
    """`dict(...)` and `dict.fromkeys(...)`, without the class behind."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


ATTRIBUTES[TemplateDict] = frozenset({"fromkeys"})


def _public(name: object) -> None:
    if str(name).startswith("_"):
        refuse(f"a namespace cannot hold {name!r}: names do not begin with an underscore")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of every chat template: syntax as in transformers, look-ups by `ATTRIBUTES`."""

    code_generator_class = Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})  # so that they are not done while compiling

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: a method that is allowed, else an item."""
        kind = type(obj)
        if kind is dict and attribute in obj and attribute not in ATTRIBUTES[dict]:
            return obj[attribute]
        if attribute in ATTRIBUTES.get(kind, ()):
            return getattr(obj, attribute)
        if kind is TemplateNamespace and not attribute.startswith("_"):
            return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
        if isinstance(obj, tuple) and attribute in getattr(obj, "_fields", ()):
            return getattr(obj, attribute)  # of `groupby`
        if isinstance(obj, runtime.Undefined):
            obj._fail_with_undefined_error()
        if hasattr(obj, attribute):
            refuse(f"{kind.__name__}.{attribute} is not for templates")
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`: an item, else a method that is allowed."""
        if isinstance(obj, INDEXED) and type(argument) is not tuple:
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        if isinstance(obj, runtime.Undefined):
            obj._fail_with_undefined_error()
        return self.undefined(obj=obj, name=argument)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """`obj(...)`. What a template can name is safe to call; what it makes is counted."""
        budget: Budget = __context.budget
        budget.tick()
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        kind = type(__obj)
        if kind is runtime.Macro:
            return budget.nested(__obj, __context.eval_ctx, *args, **kwargs)
        if kind is runtime.LoopContext:
            return budget.nested(__obj, *args, **kwargs)
        if kind is BuiltinFunctionType or kind is MethodType:
            name = __obj.__name__
            if (guard := METHOD_GUARDS.get(name)) is not None:
                guard(budget, __obj.__self__, *args, **kwargs)
            if name == "format":
                __obj = __self.wrap_str_format(__obj)
        return budget.made(__obj(*args, **kwargs))


class TemplateContext(runtime.Context):
    """The variables of one rendering, and its budget."""

    budget: Budget


Sandbox.context_class = TemplateContext


# ---- what could grow by a factor: computed before it is made ----------------------------------------------------


def _format(budget: Budget, text: Any, *args: Any, **kwargs: Any) -> None:
    """`text.format(args)`: each field at most as wide as the widest number or argument."""
    fields = re.findall(r"\{[^{}]*[{}]?", str(text).replace("{{", "").replace("}}", ""))
    _fields(budget, text, fields, "{", [*args, *kwargs.values()])


def _percent(budget: Budget, text: Any, *args: Any, **kwargs: Any) -> None:
    """`text % args`, and the filter `format`."""
    fields = re.findall(r"%(?:\([^)]*\))?([^a-zA-Z%]*)", str(text))
    values = [*args, *kwargs.values()]
    _fields(budget, text, fields, "*", list(values[0]) if len(values) == 1 and type(values[0]) is tuple else values)


def _fields(budget: Budget, text: str, fields: list[str], variable: str, values: list[Any]) -> None:
    if any(variable in field[1:] if variable == "{" else variable in field for field in fields):
        refuse("a width in a format is to be written out")
    widest = max((int(digits[:9]) for field in fields for digits in re.findall(r"\d+", field)), default=0)
    largest = max((budget.weigh(value)[0] for value in values), default=0)
    budget.fits(len(text) + len(fields) * (widest + largest))


def _width(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    """Arguments that are sizes or paddings."""
    for each in (*args, *kwargs.values()):
        size = abs(each) if isinstance(each, int) else len(each) if isinstance(each, str) else 0
        if size > SLOW:
            refuse(f"a width of {size} is too much; {SLOW} are allowed")


def _indent(budget: Budget, value: Any, width: Any = 4, *args: Any, **kwargs: Any) -> None:
    _width(budget, value, width, *args, **kwargs)
    budget.fits(len(str(value)) + str(value).count("\n") * (width if isinstance(width, int) else len(str(width))))


def _replace(budget: Budget, value: Any, old: Any, new: Any, *args: Any) -> None:
    text, old, new = str(value), str(old), str(new)
    budget.fits(len(text) + text.count(old) * len(new))


def _join(budget: Budget, separator: Any, items: Iterable[Any] = (), *args: Any) -> None:
    count = len(items) if isinstance(items, Sized) else SIZE // LONG
    budget.fits(budget.weigh(items)[0] + count * len(str(separator)))


def _join_filter(budget: Budget, items: Any, d: Any = "", attribute: Any = None) -> None:
    _join(budget, d, items)
    _names(budget, items, attribute)


def _strip(budget: Budget, value: Any, chars: Any = None) -> None:
    """Stripping and searching backwards compare each character with each."""
    if isinstance(chars, str) and len(chars) > LONG:
        refuse(f"a search for {len(chars)} characters is too long; {LONG} are allowed")


def _search(budget: Budget, value: Any, what: Any = None, *args: Any, **kwargs: Any) -> None:
    _strip(budget, value, what)


def _names(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    """Arguments that name something."""
    for each in (*args, *kwargs.values()):
        if isinstance(each, str) and len(each) > LONG:
            refuse(f"an argument of {len(each)} characters is too long; {LONG} are allowed")


def _number(budget: Budget, value: Any, attribute: Any = None, start: Any = 0) -> None:
    """Lists added up one by one are copied as often."""
    if not isinstance(start, int | float):
        refuse("sum() is for numbers")
    _names(budget, value, attribute)


def _short(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    if (size := budget.weigh(value)[0]) > SLOW:
        refuse(f"a filter that is slow on long texts gets {size} characters or elements; {SLOW} are allowed")
    _width(budget, value, *args, **kwargs)


METHOD_GUARDS: dict[str, Callable[..., None]] = {
    "format": _format,
    "replace": _replace,
    "join": _join,
    "strip": _strip, "lstrip": _strip, "rstrip": _strip,
    "rfind": _search, "rindex": _search, "rsplit": _search, "rpartition": _search,
    "center": _width, "ljust": _width, "rjust": _width, "zfill": _width,
}  # fmt: skip
FILTER_GUARDS: dict[str, Callable[..., None]] = {
    "batch": _width, "center": _width, "round": _width, "slice": _width,
    "format": _percent,
    "indent": _indent,
    "join": _join_filter,
    "replace": _replace,
    "sum": _number,
    "trim": _strip,
}  # fmt: skip
FILTER_GUARDS |= dict.fromkeys("groupby map max min reject rejectattr select selectattr sort unique".split(), _names)
# Quadratic somewhere, or far slower than the rest. No chat template is known to need them on long texts.
SLOW_FILTERS = ("pprint", "striptags", "truncate", "urlize", "wordcount", "wordwrap", "xmlattr")
FILTER_GUARDS |= dict.fromkeys(SLOW_FILTERS, _short)
# These make nothing and look at one element at most.
FREE_FILTERS = ("abs", "count", "d", "default", "first", "float", "int", "last", "length")
# Tests that compare or search; the others look at a type.
COSTLY_TESTS = "!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lt ne lower upper".split()


def counted(function: Callable[..., Any], guard: Callable[..., None] | None) -> Callable[..., Any]:
    """A filter or test that counts as a step, whose arguments are looked at and whose result is weighed."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    @pass_context
    def run(context: Any, value: Any = "", *args: Any, **kwargs: Any) -> Any:
        budget: Budget = context.budget
        budget.tick()
        if guard is not None:
            guard(budget, value, *args, **kwargs)
        if not passed:
            return budget.made(function(value, *args, **kwargs))
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}[passed]
        return budget.made(function(first, value, *args, **kwargs))

    return run


def sandbox(filters: dict[str, Callable[..., Any]], globals: dict[str, Any]) -> Sandbox:
    """The environment, with these filters and globals besides those of Jinja."""
    own = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"])
    for name, function in {**own.filters, **filters}.items():
        if name not in FREE_FILTERS:
            own.filters[name] = counted(function, FILTER_GUARDS.get(name))
    for name in COSTLY_TESTS:
        own.tests[name] = counted(cast(Any, own.tests[name]), None)
    own.globals = {"range": own.globals["range"], "cycler": Cycler, "joiner": Joiner, "namespace": TemplateNamespace}
    own.globals |= globals
    return own
