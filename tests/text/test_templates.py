"""Rendering: every template in tests/data/chat_templates, and the language itself, against the reference's renderer."""

# ruff: noqa: E501 (templates on one line)
from __future__ import annotations

import dataclasses
import enum
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talks
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from transformers.utils.chat_template_utils import render_jinja_template

from pellucid.errors import InputError, PellucidError, TemplateError
from pellucid.text.chats import prompt as chat
from pellucid.text.chats import template

FOLDER = Path(__file__).parents[1] / "data" / "chat_templates"
TEMPLATES = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def reference(source: str, messages: Any, **variables: Any) -> tuple[str, list[tuple[int, int]]]:
    texts, spans = render_jinja_template([messages], chat_template=source, **variables)
    return texts[0], spans[0] if spans else []


def ours(source: str, messages: Any, **variables: Any) -> template.Rendered:
    shared = {"tools": None, "documents": None, "add_generation_prompt": False, **variables}
    return chat._render(source, messages, shared, False)


def both(source: str, messages: Any, **variables: Any) -> tuple[Any, Any]:
    """The two texts; None for a library that refuses."""
    try:
        theirs: Any = reference(source, messages, **variables)[0]
    except Exception:
        theirs = None
    try:
        return theirs, ours(source, messages, **variables).text
    except PellucidError:
        return theirs, None


def cases(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each talk with and without tools and a generation prompt; some with each argument that the template reads."""
    read = template.names(source).read
    for name, tools, prompt in itertools.product(talks.TALKS, (None, talks.TOOLS), (False, True)):
        yield name, {"tools": tools, "add_generation_prompt": prompt}
    options = [{name: value} for name in read & talks.ARGUMENT_VALUES.keys() for value in talks.ARGUMENT_VALUES[name]]
    options += [{"documents": talks.DOCUMENTS}] if "documents" in read else []
    for name, option in itertools.product(("system and turns", "reasoning", "call, result, answer"), options):
        yield name, {"tools": talks.TOOLS, "add_generation_prompt": True, **option}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_in_the_reference(name: str) -> None:
    rendered = 0
    for talk, options in cases(TEMPLATES[name]):
        messages = [{k: v for k, v in each.items() if v is not None} for each in talks.TALKS[talk]]
        theirs, text = both(TEMPLATES[name], messages, **TOKENS, **options)
        assert text == theirs, (talk, options)
        rendered += text is not None
    assert rendered >= 10


def test_the_folder_holds_the_common_families() -> None:
    nine = "deepseek-r1-distill gemma2 hermes2-tool llama3.1 mistral-nemo phi3.5 qwen2.5 qwen3 smollm3".split()
    assert set(nine) <= TEMPLATES.keys()


# ---- the language -----------------------------------------------------------------------------------------------

MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": " Hi ü <b>&\n", "n": 3, "list": [1, 2.5, None, True], "items": "shadowed"},
    {"role": "assistant", "content": "", "d": {"b": 1, "a": [{"x": "y"}], "B": "\u2028"}},
]
LANGUAGE = """
{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}
{{ messages[0].items() | list }} {{ messages[0]['items'] }} {{ messages[1].get('d', {}).keys() | list }}
{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ messages | tojson(ensure_ascii=true, sort_keys=true) }}
{{ messages[1].d | tojson(separators=(',', ':')) }} {{ 'é<&>' | tojson }} {{ none | tojson }} {{ 1.0 | tojson }}
{% set ns = namespace(a=1, self=2) %}{% set ns.b = ns.a + 1 %}{{ ns.a }}{{ ns.b }}{{ ns.self }}{{ ns.c is defined }}
{{ dict(a=1, **{'b': 2}) }} {{ dict.fromkeys(['a', 'b'], 0) }} {{ dict([('a', 1)]) }}
{% macro f(a, b='x') %}[{{ a }}|{{ b }}|{{ varargs }}|{{ kwargs }}]{% endmacro %}{{ f(1) }}{{ f(1, 2, 3, k=4) }}
{% macro g() %}({{ caller('z') }}){% endmacro %}{% call(x) g() %}in {{ x }}{% endcall %}
{% set block %}  set {{ messages | length }} {% endset %}[{{ block }}][{{ block | trim }}]
{% filter upper %}filtered {{ messages[0].role }}{% endfilter %}
{% for a, b in {'x': 1, 'y': 2}.items() %}{{ loop.index }}/{{ loop.length }}:{{ a }}{{ b }}{{ loop.cycle('-', '+') }}
{%- if loop.changed(a) %}!{% endif %}{{ loop.previtem }}{{ loop.nextitem is defined }}{% else %}none{% endfor %}
{% for x in [] %}{% else %}empty{% endfor %}{% for x in messages if x.content %}{{ x.role }}{% endfor %}
{% for x in [[1, [2]], [3]] recursive %}{% if x is iterable %}<{{ loop(x) }}>{% else %}{{ x }}{% endif %}{% endfor %}
{{ [3, 1, 2] | sort }} {{ ['b', 'A'] | sort }} {{ [1, 2, 1] | unique | list }} {{ [1, 2, 3, 4] | batch(3, 0) | list }}
{{ messages | groupby('role') }} {% for g in messages | groupby('role') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}
{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('n', 'defined') | list | length }}
{{ messages | rejectattr('role', 'equalto', 'user') | map('length') | list }} {{ [1, 2] | sum }} {{ [1, 3] | max }}
{{ 'abc'[1:] }} {{ [1, 2, 3][::-1] }} {{ 'abc'[-1] }} {{ messages[5] is defined }} {{ messages[0][1:] is defined }}
"""
LINES = [line for line in LANGUAGE.strip().split("\n") if not line.startswith("{%- ")] + [
    "{{ 'a' + 'b' * 3 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ -3 }} {{ 1 + 2 * 3 }} {{ [1] + [2] }}",
    "{{ 'a' ~ 1 ~ none ~ [1] ~ undefined_thing }} {{ 1 < 2 <= 2 }} {{ 'a' in 'abc' and not 'x' in ['y'] }}",
    "{{ '%s is %05.1f' % ('x', 2.345) }} {{ '%d%%' | format(5) }} {{ '{} {a:>5} {{}}'.format(1, a='b') }}",
    "{{ ' x '.strip() }} {{ 'a,b'.split(',') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'aXb'.replace('X', '-', 1) }}",
    "{{ 'a\nb'.splitlines() }} {{ 'a b c'.rsplit(' ', 1) }} {{ 'ab'.center(6, '*') }} {{ 'x'.join(['1', '2']) }}",
    "{{ 'Hello'.title() }} {{ 'a-b'.partition('-') }} {{ 'abc'.rfind('c') }} {{ 'x'.zfill(3) }} {{ '1'.isdigit() }}",
    "{{ 'a' | indent(4, true) }} {{ 'a\nb' | indent }} {{ 'a' | center(5) }} {{ 'ab c' | title }} {{ 'a' | safe }}",
    "{{ '<a>' | e }} {{ '<a>' | e + '<b>' }} {{ ('<a>' | safe) ~ '<b>' }} {{ '<a>' + ('x' | safe) + '<b>' }}",
    "{{ 'abc' | first }} {{ [1, 2] | last }} {{ 'x' | default('y') }} {{ q | default('y') }} {{ '' | d('y', true) }}",
    "{{ '12' | int + 1 }} {{ '1.5' | float }} {{ 'zz' | int(7) }} {{ 2.567 | round(1) }} {{ -5 | abs }}",
    "{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1} | items | list }} {{ 'abc' | reverse }} {{ 'a b' | urlencode }}",
    "{{ 'a b c' | wordcount }} {{ 'a long text here' | truncate(8) }} {{ 'x y' | wordwrap(1) }} {{ 'ü' | upper }}",
    "{{ 'abc' | list }} {{ (1, 2) | list }} {{ range(3) | list }} {{ range(1, 10, 3) | list }} {{ 'a' | string }}",
    "{{ x is defined }} {{ none is none }} {{ 1 is number }} {{ 'a' is string }} {{ {} is mapping }} {{ 3 is odd }}",
    "{{ 4 is divisibleby(2) }} {{ 'a' is in 'ab' }} {{ [] is sequence }} {{ true is boolean }} {{ 1 is sameas 1 }}",
    "{{ cycler('a', 'b').next() }} {% set j = joiner('; ') %}{{ j() }}{{ j() }} {{ true }} {{ none }} {{ 1e3 }}",
    "{{ messages[0].nope }}|{{ messages[0]['nope'] }}|{{ nope }}|{{ 'a' if false }}|{{ 'a' if true else 'b' }}",
    "{{ nope.deeper }}", "{{ nope() }}", "{{ messages.append(1) }}", "{{ 1 + 'a' }}", "{{ 1 / 0 }}", "{{ [] | nofilter }}",
    "{{ raise_exception('no') }}", "{% set messages.x = 1 %}", "{{ messages[0].n.foo }}", "{{ dict(1) }}", "{% if %}",
    "a\n  {% if true %}\n  b\n  {%- endif -%}  \n c {# comment #}\n{{- ' d' -}} \n e\n",
    "{% with a = 1 %}{{ a }}{% endwith %}{{ a }} {% set a, b = 1, [2, 3] %}{{ a }}{{ b }} {% raw %}{{ x }}{% endraw %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }} {% do 1 %}",
    "{% generation %}{% set y = 2 %}{{ y }}{% endgeneration %}{{ y is defined }}",
]  # fmt: skip


@pytest.mark.parametrize("source", LINES)
def test_the_language_is_the_references(source: str) -> None:
    theirs, text = both(source, MESSAGES)
    assert text == theirs


WORDS = st.sampled_from(["m.content", "m['role']", "'a'", "'<b> '", "1", "-2", "2.5", "m.n", "m.list", "m.d", "none", "true",
                         "nope", "m.nope", "[1, 'x']", "{'k': 'v'}", "('t', 1)", "messages", "loop.index", "ns.x", "''"])  # fmt: skip
BINARY = st.sampled_from("+ ~ * % - / // and or == != < >= in".split() + ["not in"])
FILTERS = st.sampled_from(
    "trim upper lower length list string first last tojson join e safe int sort reverse title capitalize unique|list"
    " default('x') indent(2) replace('a','bb') map('string')|list abs round sum max items|list dictsort center(7)".split()
)
TESTS = st.sampled_from("defined none string mapping iterable number sequence true in('abc') eq(1) boolean".split())
METHODS = st.sampled_from("strip() split('a') upper() startswith('<') items()|list keys()|list get('k') index(1) count('a') "
                          "replace('a','cc') format(1) join(['x','y']) rstrip('> ') splitlines()".split(" "))  # fmt: skip


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, BINARY, inner).map(" ".join).map("({})".format),
        st.tuples(inner, FILTERS).map(" | ".join).map("({})".format),
        st.tuples(inner, TESTS).map(" is ".join).map("({})".format),
        st.tuples(inner, METHODS).map(".".join),
        st.tuples(inner, st.sampled_from(["[0]", "[-1]", "['k']", ".k"])).map("".join),
        # The reference's compiler takes a slice of a constant number for undefined; of a variable it is an error.
        st.tuples(inner, st.sampled_from(["[1:]", "[::-1]", "[:2]"])).map(
            lambda each: "({} if m else 0){}".format(*each)
        ),
        st.tuples(inner, inner, inner).map(lambda each: "({} if {} else {})".format(*each)),
        st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.recursive(WORDS, grown, max_leaves=6), min_size=1, max_size=3))
def test_random_expressions_mean_the_same(expressions: list[str]) -> None:
    body = "|".join(f"{{{{ {each} }}}}" for each in expressions)
    source = f"{{% set ns = namespace(x='q') %}}{{% for m in messages %}}{body}{{% set ns.x = m.role %}}{{% endfor %}}"
    theirs, text = both(source, MESSAGES)
    if theirs is not None and text is not None:  # iterators print their address
        theirs, text = (re.sub(r" at 0x[0-9a-f]+", "", each) for each in (theirs, text))
    assert text == theirs


# ---- what goes wrong --------------------------------------------------------------------------------------------


def test_a_refusal_says_what_the_template_says_and_where() -> None:
    source = "{% for m in messages %}\n{% if m.role == 'x' %}\n{{ raise_exception('roles: user only') }}\n{% endif %}{% endfor %}"
    with pytest.raises(TemplateError) as e:
        ours(source, [{"role": "x"}])
    assert e.value.what == "the chat template refuses: roles: user only"
    assert e.value.where == "chat template, line 3"
    with pytest.raises(TemplateError, match="Conversation roles must alternate"):
        ours(TEMPLATES["gemma2"], [talks.USER, talks.USER], **TOKENS)


@pytest.mark.parametrize(
    "source, what, where",
    [
        ("a\n{{ x.y }}", "fails: 'x' is undefined", "line 2"),
        ("a\n\n{{ 1 / 0 }}", "fails: ZeroDivisionError", "line 3"),
        ("a\n{% if %}", "is broken: Expected an expression", "line 2"),
        ("{{ x | nope }}", "is broken: No filter named 'nope'", "line 1"),
        ("{% include 'x' %}", "stands alone", "line 1"),
        ("{% extends 'x' %}", "stands alone", "line 1"),
        ("{% block x %}{% endblock %}", "stands alone", "line 1"),
        ("{% autoescape true %}{% endautoescape %}", "stands alone", "line 1"),
    ],
)
def test_an_error_names_the_line(source: str, what: str, where: str) -> None:
    with pytest.raises(TemplateError) as e:
        ours(source, [])
    assert what in e.value.what
    assert where in e.value.where


# ---- what a template sees ---------------------------------------------------------------------------------------


class Colour(str, enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    TWO = 2


class Text(str):
    def secret(self) -> str:
        return "secret"


@dataclasses.dataclass
class Part:
    type: str
    value: Any


class Model(BaseModel):
    name: str
    size: float


class Opaque:
    content = "leaked"

    def __str__(self) -> str:
        return "leaked"


VALUES = [
    Colour.RED, Number.TWO, Text("t"), Part("text", np.float32(1.5)), Model(name="n", size=2), np.int64(3), np.bool_(False),
    np.arange(3), np.array(1), Opaque(), Opaque, print, {1: (2, [3])}, {"a", "b"}, b"bytes", 1 + 2j, float("nan"), Ellipsis,
    [Opaque()], {"k": Part("x", Opaque())}, np.str_("s"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_become_plain(value: Any) -> None:
    source = "{{ messages[0].content }} {{ messages[0].content is mapping }} {{ messages[0].content is string }}"
    theirs, text = both(source, [{"content": value}])
    assert text == theirs
    assert "leaked" not in str(text)


def test_methods_of_callers_do_not_reach_a_template() -> None:
    with pytest.raises(TemplateError, match="secret"):
        ours("{{ messages[0].content.secret() }}", [{"content": Text("t")}])


def test_a_conversation_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"content": loop})
    with pytest.raises(InputError, match="contain themselves"):
        ours("x", loop)


def test_callers_messages_stay_as_they_are() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}], "reasoning": "r"}]
    before = [dict(each) for each in messages]
    ours(TEMPLATES["gemma3"], messages, **TOKENS)
    assert messages == before


# ---- generation blocks ------------------------------------------------------------------------------------------

MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}!{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
)


def test_generation_blocks_are_spans_of_the_text() -> None:
    messages = [talks.USER, talks.ANSWER, talks.USER, talks.ANSWER]
    found = ours(MARKED, messages)
    text, spans = reference(MARKED, messages, return_assistant_tokens_mask=True)
    assert found == (text, [tuple(span) for span in spans])
    assert [found.text[a:b] for a, b in found.spans] == [talks.ANSWER["content"] + "!"] * 2


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f(m) %}[{% generation %}{{ m.content }}{% endgeneration %}]{% endmacro %}"
        "{% for m in messages %}{{ f(m) }}{% endfor %}",
        "{% for m in messages %}{% set x %}[{% generation %}{{ m.content }}{% endgeneration %}]{% endset %}{{ x }}{% endfor %}",
        "{% for m in messages %}[{% generation %}{% for c in m.content %}{{ c }}{% endfor %}{% endgeneration %}]{% endfor %}",
        "{% macro f() %}({{ caller() }}){% endmacro %}{% for m in messages %}"
        "{% call f() %}{% generation %}{{ m.content }}{% endgeneration %}{% endcall %}{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% continue %}{% endgeneration %}{% endfor %}",
    ],
)
def test_generation_blocks_are_found_through_macros_and_sets(source: str) -> None:
    """The reference counts from the last piece that was written, so it is wrong inside of these."""
    messages = [talks.USER, talks.ANSWER]
    found = ours(source, messages)
    if "continue" not in source:
        assert [found.text[a:b] for a, b in found.spans] == [each["content"] for each in messages]
    assert found.text == both(source, messages)[0] or "continue" in source


# ---- around it --------------------------------------------------------------------------------------------------


def test_threads_do_not_share_a_budget() -> None:
    source = TEMPLATES["qwen3"]
    want = {n: ours(source, [talks.USER, talks.ANSWER] * n + [talks.USER]).text for n in range(8)}
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(8):
            if ours(source, [talks.USER, talks.ANSWER] * n + [talks.USER]).text != want[n]:
                wrong.append(n)
            with pytest.raises(TemplateError):
                ours("{% for i in range(99) %}{{ [[0] * 100000] * 100 }}{% endfor %}", [])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_jinja_is_imported_when_a_template_is_rendered() -> None:
    code = "import sys, pellucid.text.tokenizer; assert 'jinja2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
