"""The parser: text in pieces -> deltas, after a `Format`. See reader.py for why it is made of generators."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pellucid.text.answers.deltas import Arguments, CallEnd, CallStart, Content, Delta, Malformed, Reasoning, ToolCall
from pellucid.text.answers.formats import (
    NAME,
    BraceCalls,
    Code,
    Format,
    JsonCalls,
    NamedCalls,
    NestedCalls,
    ParamCalls,
    PythonCalls,
    Syntax,
    Tags,
    matches,
)
from pellucid.text.answers.reader import (
    DEPTH,
    SHORT,
    WHITE,
    Broken,
    NotACall,
    Reader,
    Wait,
    escaped,
    stops,
)
from pellucid.text.answers.values import (
    IDENTIFIER,
    PYTHON,
    WORD,
    Style,
    dumps,
    literal,
    loads,
    schemas_of,
    typed,
    types_of,
)

NAME_KEYS = ("name", "tool_name", "function")
ARGUMENT_KEYS = ("arguments", "parameters", "args")
ID_KEYS = ("id", "tool_call_id")
MARKS = re.compile(r'["\\\x00-\x1f]')


class Text:
    """Content or reasoning: white space around it is the template's, inside it is the model's."""

    def __init__(self, say: Callable[[str], None], strip: bool) -> None:
        self._say, self._strip = say, strip
        self._gap: list[str] = []  # white space that is given out when text follows
        self.blank = True  # nothing but white space so far
        self._fresh = True

    def add(self, text: str) -> None:
        if not self._strip:
            self.blank = self.blank and not text.strip(WHITE)
            self._say(text)
            return
        if self._fresh:
            text = text.lstrip(WHITE)
        if body := text.rstrip(WHITE):
            self._say("".join(self._gap) + body)
            self._gap.clear()
            self.blank = self._fresh = False
        if len(text) > len(body):
            self._gap.append(text[len(body) :])

    def forget(self) -> None:
        """White space that waits is not ours."""
        self._gap.clear()

    def part(self) -> None:
        """What follows is a part of its own, on a line of its own."""
        if not self.blank and self._strip:
            self._gap, self._fresh = ["\n"], True


class Call:
    """A call that is being read. It is given out from the moment when its name is known."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.index: int | None = None
        self.id, self.name = "", ""
        self._parts: list[str] = []

    def named(self, name: Any, id: str | None = None) -> None:
        if not isinstance(name, str) or not name.strip() or len(name) > SHORT:
            raise Broken(f"{str(name)[:40]!r} is no name of a tool")
        self.name = name.strip()
        self.id = id or self.id

    def feed(self, text: str) -> None:
        """A piece of the arguments, as JSON."""
        self._parts.append(text)
        if self.index is not None and text:
            self._machine.say(Arguments(self.index, text))

    def start(self) -> None:
        if self.index is None:
            self._machine.admit(self.name)
            self.index = self._machine.begun = self._machine.count
            self._machine.count += 1
            self.id = self.id or self._machine.new_id(self.index)
            self._machine.say(CallStart(self.index, self.id, self.name))
            if text := "".join(self._parts):
                self._machine.say(Arguments(self.index, text))

    def finish(self) -> None:
        if not self.name:
            raise Broken("the call has no name")
        self.start()
        if not self._parts:
            self.feed("{}")
        arguments = loads("".join(self._parts))
        if not isinstance(arguments, dict):
            raise Broken(f"the arguments are no object but {type(arguments).__name__}")
        raw = "".join(self._machine.r.raw).strip(WHITE + ",;")
        assert self.index is not None
        self._machine.say(CallEnd(self.index, ToolCall(self.id, self.name, arguments, raw)))
        self._machine.begun = None
        if not self._machine.tentative:
            self._machine.r.record()


class Machine:
    """`feed` pieces, then `finish`; deltas collect in `out`."""

    def __init__(self, format: Format, tools: Sequence[Mapping[str, Any]] | None, new_id: Callable[[int], str]) -> None:
        self.format, self.new_id = format, new_id
        self.tools = schemas_of(tools)
        self.r, self.out = Reader(), list[Delta]()
        self.count = 0  # calls begun so far
        self.begun: int | None = None  # the call that is being given out
        self.tentative = False  # nothing is given out before a call is complete: it may yet be text
        self._waiting: list[Delta] = []
        self.content = Text(lambda text: self.say(Content(text)), format.strip)
        self.reasoning = Text(lambda text: self.say(Reasoning(text)), format.strip)
        self._bare = tuple(each for each in format.calls if not isinstance(each, Code) and not each.open)
        self._openers = openers(format)
        self._tags = {tags.open: tags for tags in format.reasoning}
        self._ends = format.ends + ((*format.channels.ends, format.channels.start) if format.channels else ())
        self._closers = {tags.close for tags in format.reasoning} - {*self._ends}
        self._markers = stops(*self._ends, *format.drops, *self._tags, *self._closers, *self._openers)
        self._task = self._messages() if format.channels else self._body()
        self._done = False
        self._advance()

    def feed(self, piece: str) -> None:
        if not self._done and piece:
            self.r.feed(piece)
            self._advance()

    def finish(self) -> None:
        self.r.final = True
        if not self._done:
            self._advance()

    def leave_out_text(self) -> None:
        """What was read so far stands in the prompt: its text is not the answer's. Calls are."""
        self.out = [each for each in self.out if not isinstance(each, Content | Reasoning)]
        self.content.forget()
        self.reasoning.forget()

    def _advance(self) -> None:
        try:
            next(self._task)
        except StopIteration:
            self._done = True

    def say(self, delta: Delta) -> None:
        (self._waiting if self.tentative else self.out).append(delta)

    def admit(self, name: str) -> None:
        """A call that nothing but its shape tells from text has to be of a tool that exists."""
        if self.tentative and self.tools and name not in self.tools:
            raise NotACall

    # Content and reasoning

    def _body(self) -> Wait[str | None]:
        """Content with reasoning and calls in it, up to an end marker, which is returned."""
        while True:
            if self._bare and self.content.blank:
                yield from self._beginning()
            marker = yield from self.r.scan(self._markers, self.content.add)
            if marker is None or marker in self._ends:
                return marker
            if tags := self._tags.get(marker):
                if tags.anywhere or self.content.blank:
                    if end := (yield from self._thought(tags)):
                        return end
                else:
                    self.content.add(marker)
            elif marker in self._closers:
                if not self.content.blank:  # else it closes reasoning that was not written
                    self.content.add(marker)
            elif marker not in self.format.drops:
                yield from self._calls(marker, self._openers[marker])

    def _thought(self, tags: Tags) -> Wait[str | None]:
        self.reasoning.part()
        self.reasoning.add((yield from self.r.space()))
        if (yield from self.r.starts(tags.open)):  # the prompt began it, and the model once more
            self.r.take(len(tags.open))
        closers = stops(tags.close, *tags.until, *self._ends)
        marker = yield from self.r.scan(closers, self.reasoning.add)
        if marker is None or marker == tags.close:
            return None
        if marker in tags.until:
            self.r.push_back(marker)
            return None
        return marker

    def _messages(self) -> Wait[None]:
        """Messages with headers; the first header's beginning is in the prompt."""
        channels = self.format.channels
        assert channels is not None
        while True:
            head: list[str] = []
            ends = tuple(each for each in self._ends if each != channels.start)
            found = yield from self._short(stops(channels.header_end, *ends), head)
            header = "".join(head)
            if found != channels.header_end:
                self.content.add(header)  # no header: what a model says that does not know the format
                end = found or (yield from self._body())
            elif call := re.search(channels.call, header):
                end = yield from self._called(call["name"], header)
            elif re.search(channels.reasoning, header):
                self.reasoning.part()
                end = yield from self.r.scan(stops(*self._ends), self.reasoning.add)
            else:
                self.content.part()
                end = yield from self._body()
            if end is None or end in self.format.ends:
                return
            yield from self.r.space()
            if end != channels.start and (yield from self.r.starts(channels.start)):
                self.r.take(len(channels.start))

    def _called(self, name: str, header: str) -> Wait[str | None]:
        """A message that is a call."""
        assert self.format.channels is not None
        self.r.record(header + self.format.channels.header_end)
        try:
            call = Call(self)
            call.named(name)
            yield from self._json_or_code(call, code=name == "python")
            call.finish()
        except Broken as problem:
            yield from self._broken(str(problem), "")
        self.r.recorded()
        return (yield from self.r.scan(stops(*self._ends), self.content.add))

    # Calls

    def _beginning(self) -> Wait[None]:
        """A call that begins an answer without any marker."""
        self.content.add((yield from self.r.space()))
        bracket = yield from self.r.starts("{", "[")
        fits = tuple(each for each in self._bare if bracket and (bracket == "[" or isinstance(each, JsonCalls)))
        if fits:
            yield from self._calls("", fits)

    def _calls(self, opener: str, fits: tuple[Syntax, ...]) -> Wait[None]:
        """The calls after `opener`, in the first syntax that fits; if none does, it was content."""
        for nth, syntax in enumerate(fits):
            self.r.record(opener)
            self.tentative = not opener or (nth < len(fits) - 1 and isinstance(syntax, PythonCalls))
            try:
                yield from self._section(syntax, opener)
            except NotACall:
                self._withdraw(opener)
                continue
            except Broken as problem:
                if self.tentative:
                    self._withdraw(opener)
                    continue
                yield from self._broken(str(problem), closer(syntax, opener))
            self.tentative = False
            rest = self.r.recorded()
            self.content.add(rest[len(rest.rstrip(WHITE)) :])
            return
        if opener:
            self.content.add(opener)
        else:
            self.content.add(self.r.take(1))

    def _withdraw(self, opener: str) -> None:
        """It was no call: all of it but the opener is unread."""
        self.tentative = False
        if self._waiting:
            self.count -= sum(isinstance(each, CallStart) for each in self._waiting)
            self._waiting.clear()
        self.begun = None
        self.r.push_back(self.r.recorded()[len(opener) :])

    def _commit(self) -> None:
        """A complete call: from here on it is one."""
        if self.tentative:
            self.r.record()
        self.tentative = False
        self.out += self._waiting
        self._waiting.clear()

    def _broken(self, reason: str, close: str) -> Wait[None]:
        """Up to where the calls end, or the answer, all is malformed."""
        markers = (close,) if close else tuple(self._openers)
        marker = yield from self.r.scan(stops(*markers, *self._ends), lambda text: None)
        text = self.r.recorded()
        if marker and marker != close:
            self.r.push_back(marker)
            text = text.removesuffix(marker)
        if text.strip(WHITE):
            self.out.append(Malformed(text.strip(WHITE), reason, self.begun))
        self.begun = None

    def _section(self, syntax: Syntax, opener: str) -> Wait[None]:
        match syntax:
            case JsonCalls():
                yield from self._json_calls(syntax)
            case NamedCalls() | ParamCalls():
                yield from self._items(syntax, opener)
            case PythonCalls():
                yield from self._python_calls(syntax)
            case BraceCalls():
                yield from self._brace_call(syntax)
            case NestedCalls():
                yield from self._nested_calls(syntax)
            case Code():
                yield from self._code(syntax.name)

    def _json_calls(self, syntax: JsonCalls) -> Wait[None]:
        """Objects, one after another or in lists, to `close`; or as long as they come, where there is none."""
        in_list = found = False
        while True:
            yield from self.r.space()
            if in_list and (yield from self.r.starts("]")):
                self.r.take(1)
                in_list = False
            elif found and (yield from self.r.starts(",", ";")):
                self.r.take(1)
            elif not in_list and (yield from self.r.starts("[")):
                self.r.take(1)
                in_list = found = True
            elif (yield from self.r.starts("{")):
                yield from self._json_call(syntax)
                self._commit()
                found = True
            elif in_list:
                raise Broken("neither an object nor the end of the list")
            elif not found:
                raise NotACall
            else:
                break
        if syntax.close:
            yield from self._close(syntax.close)

    def _close(self, close: str) -> Wait[None]:
        """The closing marker. Where the answer ends or goes on without it, the calls were complete anyway."""
        if (yield from self.r.starts(close)):
            self.r.take(len(close))
            self.r.record()
        elif (yield from self.r.more()) and not (yield from self.r.starts(*self._ends, *self._openers)):
            raise Broken(f"text between the call and {close}")

    def _over(self, close: str) -> Wait[bool]:
        """Whether the calls end here: at `close`, at the end of the answer or of the text."""
        return not (yield from self.r.more()) or bool((yield from self.r.starts(close, *self._ends)))

    def _json_call(self, syntax: JsonCalls) -> Wait[None]:
        """`{"name": …, "arguments": {…}}`, in any order."""
        call = Call(self)
        yield from self.r.expect("{")
        seen = set[str]()
        while True:
            yield from self.r.space()
            if (yield from self.r.starts("}")):
                self.r.take(1)
                break
            key = yield from self._json_value()
            if not isinstance(key, str) or key in seen:
                raise Broken(f"{str(key)[:40]!r} is no key, or twice one")
            seen.add(key)
            yield from self.r.space()
            yield from self.r.expect(":")
            yield from self.r.space()
            if syntax.keyed and not call.name:
                call.named(key)
                yield from self._arguments(call)
            elif key in ARGUMENT_KEYS:
                yield from self._arguments(call)
            else:
                self._field(call, key, (yield from self._json_value()))
            yield from self.r.space()
            if not (yield from self.r.starts("}")):
                yield from self.r.expect(",")
        call.finish()

    def _field(self, call: Call, key: str, value: Any) -> None:
        if key in NAME_KEYS and isinstance(value, str):
            call.named(value)
        elif key in ID_KEYS and isinstance(value, str | int) and call.index is None:
            call.id = str(value)[:SHORT]
        elif self.tentative and key != "type":
            raise NotACall

    def _json_value(self) -> Wait[Any]:
        parts: list[str] = []
        yield from self.r.json(parts.append)
        return loads("".join(parts))

    def _arguments(self, call: Call) -> Wait[None]:
        """The value of "arguments": an object, null, or an object written as a string."""
        if call.name:
            if self.tentative:
                self.admit(call.name)
                self.tentative = False
            call.start()
        if (yield from self.r.starts("{")):
            yield from self.r.json(call.feed)
            return
        value = yield from self._json_value()
        if isinstance(value, str):
            value = loads(value or "{}")
        if value is not None:
            call.feed(dumps(value))

    def _items(self, syntax: NamedCalls | ParamCalls, opener: str) -> Wait[None]:
        """Calls between markers of their own, inside a section or not."""
        inside = opener == syntax.section[0] != ""
        if inside:
            yield from self.r.space()
            if not (yield from self.r.starts(syntax.open)):
                raise NotACall
            self.r.take(len(syntax.open))
        first = True
        while True:
            if isinstance(syntax, NamedCalls):
                yield from self._named_call(syntax, first)
            else:
                yield from self._param_call(syntax, first)
            first = False
            yield from self.r.space()
            if not (yield from self.r.starts(syntax.open)):
                break
            self.r.take(len(syntax.open))
        if inside and syntax.section[1]:
            yield from self._close(syntax.section[1])

    def _head(self, ends: tuple[str, ...], pattern: str, first: bool) -> Wait[re.Match[str]]:
        """The short text up to one of `ends`. Where the first of several is none, there was no call."""
        head: list[str] = []
        marker = yield from self._short(stops(*ends), head)
        found = matches(pattern, "".join(head)) if marker else None
        if not found and first:
            raise NotACall
        if not found:
            raise Broken(f"{''.join(head)[:40]!r} is no name")
        return found

    def _short(self, markers: Any, head: list[str]) -> Wait[str | None]:
        """Like `scan`, but gives up where what comes before a marker gets too long. Nothing is lost."""
        size = 0
        while True:
            found = markers.find(self.r.text, self.r.at, self.r.at + 2 * SHORT)
            end = found.start() if found else len(self.r.text) - markers.held(self.r.text, self.r.at)
            piece = self.r.take(min(end - self.r.at, SHORT - size))
            size += len(piece)
            head.append(piece)
            if found and self.r.at == end:
                return self.r.take(len(found[0]))
            if size >= SHORT:
                return None
            if self.r.final:
                head.append(self.r.take(len(self.r.text) - self.r.at))
                return None
            yield

    def _named_call(self, syntax: NamedCalls, first: bool) -> Wait[None]:
        ends = (syntax.head_end, "{") if syntax.or_brace else (syntax.head_end,)
        found = yield from self._head(ends, syntax.head, first)
        if self.r.raw[-1] == "{":
            self.r.push_back(self.r.raw.pop())
        call = Call(self)
        call.named(found["name"], found.groupdict().get("id"))
        yield from self._json_or_code(call)
        if syntax.close:
            junk: list[str] = []
            marker = yield from self.r.scan(stops(syntax.close, *self._ends), junk.append)
            if marker and marker != syntax.close:
                self.r.push_back(marker)
                self.r.raw[-1] = ""
            if "".join(junk).strip(WHITE + "`"):
                raise Broken(f"text between the arguments and {syntax.close}")
        call.finish()

    def _json_or_code(self, call: Call, code: bool = False) -> Wait[None]:
        """The arguments of a call with a name; `code`: what is no JSON is source code."""
        call.start()
        yield from self.r.space()
        if (yield from self.r.starts("{")):
            yield from self.r.json(call.feed)
        elif code:
            yield from self._source(call)
        else:
            raise Broken("the arguments are no object")

    def _code(self, name: str) -> Wait[None]:
        call = Call(self)
        call.named(name)
        call.start()
        yield from self._source(call)
        call.finish()

    def _source(self, call: Call) -> Wait[None]:
        """All that follows, as the argument `code`."""
        call.feed('{"code": "')
        text = Text(lambda piece: call.feed(quoted(piece)), strip=True)
        marker = yield from self.r.scan(stops(*self._ends), text.add)
        call.feed('"}')
        if marker:
            self.r.push_back(marker)
            self.r.raw[-1] = ""

    def _param_call(self, syntax: ParamCalls, first: bool) -> Wait[None]:
        ends = (syntax.head_end, syntax.close) if syntax.head_stays else (syntax.head_end,)
        found = yield from self._head(ends, syntax.head, first)
        if syntax.head_stays:
            self.r.push_back(self.r.raw.pop())
        call = Call(self)
        call.named(found["name"])
        call.start()
        call.feed("{")
        separator = ""
        while True:
            yield from self.r.space()
            marker = yield from self.r.starts(syntax.param, syntax.close)
            if not marker:
                raise Broken(f"neither a parameter nor {syntax.close}")
            self.r.take(len(marker))
            if marker == syntax.close:
                break
            key = yield from self._head((syntax.key_end,), syntax.key, first=False)
            call.feed(f"{separator}{dumps(key['key'])}: ")
            yield from self._param(call, syntax, key)
            separator = ", "
        call.feed("}")
        call.finish()

    def _param(self, call: Call, syntax: ParamCalls, key: re.Match[str]) -> Wait[None]:
        """One value, as JSON: text as it comes, everything else when it is complete."""
        types = self._types(call.name, key)
        if types == {"string"}:
            call.feed('"')
            yield from self._value(syntax, lambda text: call.feed(quoted(text)))
            call.feed('"')
            return
        parts: list[str] = []
        yield from self._value(syntax, parts.append)
        call.feed(dumps(typed("".join(parts), types)))

    def _types(self, name: str, key: re.Match[str]) -> frozenset[str]:
        """The types that the marker tells, or else the tool's schema."""
        told = key.groupdict()
        if told.get("string"):
            return frozenset({"string"} if told["string"] == "true" else ())
        if told.get("type"):
            return frozenset({told["type"]})
        return types_of(self.tools.get(name, {}).get(key["key"]))

    def _value(self, syntax: ParamCalls, emit: Callable[[str], object]) -> Wait[None]:
        """To the marker after which a parameter or the end of the call follows: elsewhere it is part of the value."""
        write = Lines(emit).add if syntax.wrapped else emit
        end = syntax.value_end
        if syntax.quotes[0] and (yield from self.r.starts(syntax.quotes[0])):
            self.r.take(len(syntax.quotes[0]))
            end = syntax.quotes[1] + end
        while True:
            marker = yield from self.r.scan(stops(end), write)
            if marker is None:
                raise Broken("the text ends inside a parameter")
            white = yield from self.r.space()
            if (yield from self.r.starts(syntax.param, syntax.close)):
                return
            write(marker + white)

    def _python_calls(self, syntax: PythonCalls) -> Wait[None]:
        """`[f(a=1), g()]`, or the same without brackets."""
        yield from self.r.space()
        bracket = yield from self.r.starts("[")
        self.r.take(len(bracket))
        found = False
        while True:
            yield from self.r.space()
            if bracket and (yield from self.r.starts("]")):
                self.r.take(1)
                break
            if not bracket and found and (yield from self._over(syntax.close)):
                break
            name = yield from self.r.run(IDENTIFIER, SHORT)
            if not name or not (yield from self.r.starts("(")):
                raise Broken("a name and a bracket are expected") if found else NotACall
            self.r.take(1)
            call = Call(self)
            call.named(name.removesuffix(".call"))
            call.start()
            yield from self._pairs(call, PYTHON, "=", ")")
            call.finish()
            found = True
            yield from self.r.space()
            if (yield from self.r.starts(",", ";")):
                self.r.take(1)
            elif bracket and not (yield from self.r.starts("]")):
                raise Broken("neither a comma nor the end of the list")
            self._commit()
        if syntax.close:
            yield from self.r.space()
            yield from self._close(syntax.close)

    def _brace_call(self, syntax: BraceCalls) -> Wait[None]:
        found = yield from self._head(("{",), NAME, first=True)
        call = Call(self)
        call.named(found["name"])
        call.start()
        yield from self._pairs(call, Style((syntax.quote,), raw=True), ":", "}")
        call.finish()
        yield from self.r.space()
        yield from self._close(syntax.close)

    def _nested_calls(self, syntax: NestedCalls) -> Wait[None]:
        """One call after another, arguments as elements inside elements."""
        yield from self.r.space()
        first = True
        while (yield from self.r.starts(start := f'{syntax.mark}<invoke name="')):
            self.r.take(len(start))
            found = yield from self._head(('">',), NAME, first)
            first = False
            call = Call(self)
            call.named(found["name"])
            call.start()
            call.feed("{")
            separator = ""
            while key := (yield from self._tag(syntax, "invoke")):
                schema = self.tools.get(call.name, {}).get(key)
                value = yield from self._element(syntax, key, schema, depth=0)
                call.feed(f"{separator}{dumps(key)}: {dumps(value)}")
                separator = ", "
            call.feed("}")
            call.finish()
            yield from self.r.space()
        if first:
            raise NotACall
        yield from self._close(syntax.close)

    def _tag(self, syntax: NestedCalls, parent: str) -> Wait[str]:
        """The name of the element that begins; nothing where `parent` ends."""
        yield from self.r.space()
        if (yield from self.r.starts(end := f"{syntax.mark}</{parent}>")):
            self.r.take(len(end))
            return ""
        yield from self.r.expect(f"{syntax.mark}<")
        name: list[str] = []
        if (yield from self._short(stops(">"), name)) is None:
            raise Broken("a tag without an end")
        return "".join(name)

    def _element(self, syntax: NestedCalls, name: str, schema: Any, depth: int) -> Wait[Any]:
        """What stands between `<name>` and `</name>`: text, items of a list, or elements with names."""
        if depth > DEPTH:
            raise Broken(f"nested deeper than {DEPTH}")
        text: list[str] = []
        if (yield from self.r.scan(stops(syntax.mark), text.append)) is None:
            raise Broken("the text ends inside an argument")
        self.r.push_back(self.r.raw.pop())
        if (yield from self.r.starts(end := f"{syntax.mark}</{name}>")):
            self.r.take(len(end))
            return typed("".join(text), types_of(schema))
        schema = schema if isinstance(schema, Mapping) else {}
        items, fields = list[Any](), dict[str, Any]()
        while key := (yield from self._tag(syntax, name)):
            if key == "item" and not fields:
                items.append((yield from self._element(syntax, key, schema.get("items"), depth + 1)))
                continue
            if key in fields or items:
                raise Broken(f"the element {key!r} does not fit here")
            inner = schema.get("properties") or {}
            fields[key] = yield from self._element(syntax, key, inner.get(key), depth + 1)
        return items or fields

    def _pairs(self, call: Call, style: Style, sign: str, close: str) -> Wait[None]:
        """`a=1, b="text")`: arguments, each given out when it is complete. The opening bracket is read."""
        call.feed("{")
        separator = ""
        while True:
            yield from self.r.space()
            if (yield from self.r.starts(close)):
                self.r.take(1)
                break
            key = yield from self.r.run(WORD, SHORT)
            yield from self.r.space()
            if not key or not (yield from self.r.starts(sign)):
                raise Broken("an argument without a name")
            self.r.take(1)
            value = yield from literal(self.r, style)
            types = types_of(self.tools.get(call.name, {}).get(key))
            if isinstance(value, str) and types and "string" not in types:
                value = typed(value, types)
            call.feed(f"{separator}{dumps(key)}: {dumps(value)}")
            separator = ", "
            yield from self.r.space()
            if not (yield from self.r.starts(close)):
                yield from self.r.expect(",")
        call.feed("}")


class Lines:
    """A value that stands on lines of its own: one line break before and one behind are not part of it."""

    def __init__(self, emit: Callable[[str], object]) -> None:
        self._emit = emit
        self._first, self._held = True, ""

    def add(self, text: str) -> None:
        if self._first and text:
            text, self._first = text.removeprefix("\n"), False
        if not text:
            return
        text = self._held + text
        self._held = "\n" if text[-1] == "\n" else ""
        if ready := text.removesuffix("\n"):
            self._emit(ready)


def quoted(text: str) -> str:
    """`text` as it stands inside a JSON string."""
    return MARKS.sub(lambda found: "\\" + found[0] if found[0] in '"\\' else escaped(found), text)


def closer(syntax: Syntax, opener: str) -> str:
    """What ends the calls that `opener` began."""
    match syntax:
        case NamedCalls() | ParamCalls():
            return syntax.section[1] if opener == syntax.section[0] != "" else syntax.close
        case Code():
            return ""
        case _:
            return syntax.close


def openers(format: Format) -> dict[str, tuple[Syntax, ...]]:
    """Marker -> the syntaxes that it may begin."""
    found: dict[str, tuple[Syntax, ...]] = {}
    for syntax in format.calls:
        marks = {syntax.open, *(syntax.section[:1] if isinstance(syntax, NamedCalls | ParamCalls) else ())}
        for mark in marks - {""}:
            found[mark] = (*found.get(mark, ()), syntax)
    return found
