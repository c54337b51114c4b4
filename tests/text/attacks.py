"""Templates that came with a malicious model. `python attacks.py` renders each and prints what became of it.

    {"name": …, "pace": CPU time of a fixed loop, "seconds": CPU time, "mb": growth of the peak of memory, "error": what was raised, "text": …}

It runs in a process of its own with 1.5 GB of address space, so that an attack that works does not take the tests along.
"""

# ruff: noqa: E501
from __future__ import annotations

import json
import resource
import time

from pellucid.errors import PellucidError, TemplateError
from pellucid.text.chats.template import render

BIG = "'a' * 900000"
ATTACKS: dict[str, str] = {
    "endless ranges": "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
    "ranges filtered": "{% for a in range(100000) %}{% for b in range(100000) if false %}{% endfor %}{% endfor %}",
    "range huge": "{{ range(10**12)|list }}",
    "mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class item": "{{ ''['__class__'] }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "map attribute": "{{ ['']|map(attribute='__class__')|list }}",
    "cycler globals": "{{ cycler.__init__.__globals__ }}",
    "cycler2": "{{ cycler('a').__init__.__globals__.os.popen('id').read() }}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "lipsum2": "{{ lipsum(n=1000000) }}",
    "joiner": "{{ joiner.__init__.__globals__ }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "namespace class": "{% set ns = namespace(a=1) %}{{ ns.__class__ }}",
    "namespace dunder": "{{ namespace(__class__=1) }}",
    "namespace set": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%1000000000d'|format(5) }}",
    "percent": "{{ '%1000000000d' % 5 }}",
    "percent star": "{{ '%*d' % (1000000000, 5) }}",
    "format width": "{{ '{:>1000000000}'.format('x') }}",
    "format nested": "{{ '{:{}}'.format(5, 1000000000) }}",
    "mul str": "{{ 'a' * 10**10 }}",
    "mul list": "{{ [0] * 10**9 }}",
    "mul list list": "{{ [[0] * 1000] * 100000 }}",
    "pow": "{{ 9**(9**9) }}",
    "pow2": "{% set ns = namespace(x=3) %}{% for i in range(100) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "round": "{{ 1.5|round(1000000000, 'ceil') }}",
    "doubling": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling tilde": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling set": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "doubling join": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
    "doubling replace": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('a', 'aa') %}{% endfor %}",
    "doubling method": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', 'aa') %}{% endfor %}",
    "doubling list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "laughs": "{% set ns = namespace(x='lol') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "laughs dict": "{% set ns = namespace(x='lol') %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x|tojson }}",
    "laughs tuple": "{% set ns = namespace(x='lol') %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
    "laughs views": "{% set ns = namespace(x={'a':1}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x.values(), 'b': ns.x.values()} %}{% endfor %}{{ ns.x }}",
    "laughs dict()": "{% set ns = namespace(x='lol') %}{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}",
    "laughs batch": "{% set ns = namespace(x='lol') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|batch(2)|list %}{% endfor %}{{ ns.x }}",
    "laughs items": "{% set ns = namespace(x={'a':1}) %}{% for i in range(60) %}{% set ns.x = dict.fromkeys(['a', 'b'], ns.x) %}{% endfor %}{{ ns.x }}",
    "laughs varargs": "{% macro f() %}{{ varargs }}{% endmacro %}{% set ns = namespace(x='lol') %}{% for i in range(60) %}{% set ns.x = f(ns.x, ns.x) %}{% endfor %}",
    "deep tuple": "{% set ns = namespace(x=()) %}{% for i in range(100000) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}",
    "deep dict": "{% set ns = namespace(x={}) %}{% for i in range(100000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x|tojson }}",
    "deep generators": "{% set ns = namespace(x=['a']) %}{% for i in range(100000) %}{% set ns.x = ns.x|map('upper') %}{% endfor %}{{ ns.x|list }}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "mutual": "{% macro f(x) %}{{ g(x) }}{% endmacro %}{% macro g(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "recursion wide": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "caller": "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
    "loop recursive": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "center": "{{ 'a'|center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "translate": "{{ 'a'.translate({97: 'b'}) }}",
    "indent": "{{ ('\n' * 100000)|indent(10000, true) }}",
    "wordwrap": "{{ (" + BIG + ")|wordwrap(1) }}",
    "batch": "{{ [1]|batch(1000000000, 0)|list }}",
    "slice": "{{ [1]|slice(1000000000)|list }}",
    "replace empty": "{{ (" + BIG + ").replace('', 'b' * 100000) }}",
    "join": "{{ ('a' * 100000).join('b' * 100000) }}",
    "join filter": "{{ range(100000)|join('a' * 10000) }}",
    "tojson indent": "{% set ns = namespace(x=[1]*100000) %}{% for i in range(90) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson(indent=90) }}",
    "tojson indent2": "{{ [1]|tojson(indent=1000000000) }}",
    "tojson sep": "{{ ([1]*1000)|tojson(separators=('a' * 100000, ':')) }}",
    "sum": "{{ ([[1]] * 300000)|sum(start=[])|length }}",
    "output": "{% set x = " + BIG + " %}{% for i in range(100000) %}{{ x }}{% endfor %}",
    "output macro": "{% set x = "
    + BIG
    + " %}{% macro f() %}{% for i in range(100000) %}{{ x }}{% endfor %}{% endmacro %}{{ f()|length }}",
    "hoard": "{% set ns = namespace() %}" + "".join(f"{{% set ns.a{i} = 'é' * 900000 %}}" for i in range(850)),
    "hoard slices": "{% set x = " + BIG + " %}" + "".join(f"{{% set a{i} = x[1:] %}}" for i in range(1300)),
    "hoard str": "{% set x = range(100000)|list %}{% set y %}" + "{{ x }}" * 4900 + "{% endset %}",
    "strip": "{{ (" + BIG + ").strip('b' * 900000 ~ 'a') }}",
    "rfind": "{{ (" + BIG + ").rfind('b' ~ 'a' * 400000) }}",
    "rsplit": "{{ (" + BIG + ").rsplit('b' ~ 'a' * 400000) }}",
    "compare": "{% set x = "
    + BIG
    + " %}{% set y = "
    + BIG
    + " %}"
    + "{{ "
    + " and ".join(["x == y"] * 400)
    + " }}"
    + "{% for i in range(100000) %}{% if x == y %}{% endif %}{% endfor %}",
    "in": "{% set x = range(100000)|list %}{% for i in range(100000) %}{% if -1 in x %}{% endif %}{% endfor %}",
    "select in": "{% set x = range(100000)|list %}{{ x|select('in', x)|list|length }}",
    "map attr": "{{ range(100000)|map(attribute='a' ~ '.a' * 100000)|list }}",
    "sort": "{% for i in range(100000) %}{% set x = range(100000)|sort(reverse=true) %}{% endfor %}",
    "compile elifs": "{% if a %}"
    + "".join(f"{{% elif a{i} %}}{{% set b{i}=1 %}}" for i in range(1050))
    + "{% endif %}{{ 1/0 }}",
    "compile arguments": "{{ f(" + "a," * 19900 + ") }}",
    "compile tildes": "{{ a" + "~a" * 19900 + " }}{{ 1/0 }}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    "mutate": "{{ messages.append(1) }}",
    "pop": "{{ messages.pop() }}",
    "update": "{{ messages[0].update({'role': 'x'}) }}",
    "syntax": "{% if %}",
    "unclosed": "{{ 'a",
    "parens": "{{ " + "(" * 18900 + ")" * 18900 + " }}",
    "nested ifs": "{% if a %}" * 1700 + "{% endif %}" * 1700,
    "nested for": "{% for a in b %}" * 30 + "{% endfor %}" * 30,
    "nots": "{{ " + "not " * 9000 + "a }}",
    "adds": "{{ " + "a + " * 9000 + "a }}",
    "brackets": "{{ " + "[" * 18900 + "]" * 18900 + " }}",
    "long": "x" * 200000,
    "encode": "{{ 'a'.encode('utf-8') }}",
    "int bytes": "{{ (5).to_bytes(1000000000, 'BIG') }}",
    "striptags": "{{ ('<!---->' * 100000)|striptags }}",
    "urlize": "{{ ('http://a.b ' * 80000)|urlize }}",
    "pprint": "{{ (range(100000)|list)|pprint }}",
    "list chars": "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = ns.x + [('中' * 900000)|list] %}{% endfor %}",
    "split": "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = ns.x + [('ab ' * 300000).split()] %}{% endfor %}",
    "strftime": "{{ strftime_now('%c' * 10000000) }}",
    "strftime2": "{{ strftime_now('%0999999999d' * 80) }}{{ 1/0 }}",
    "self": "{{ self.__class__ }}",
    "loop attr": "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "undefined": "{{ x.y }}",
    "undef call": "{{ foo() }}",
    "generator throw": "{{ ([1]|map('upper')).gi_frame }}",
    "macro globals": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "macro": "{% macro f() %}{% endmacro %}{{ f.__call__ }}",
    "safe markup": "{{ ('a'|safe) * 10**10 }}",
    "markup join": "{{ ('a' * 100000)|safe|join('b' * 10000) }}",
    "markup replace": "{{ ('a' * 100000)|safe|replace('a', 'b' * 100000) }}",
    "markup method": "{{ (('a' * 100000)|safe).replace('a', 'b' * 100000) }}",
    "markup format": "{{ ('{0.__class__}'|safe).format(1) }}",
    "markup unescape": "{{ ('a'|safe).unescape.__globals__ }}",
    "map format": "{{ (['{0.__class__}']|map(attribute='format')|first)(1) }}",
    "raise long": "{{ raise_exception('a' * 900000) }}",
    "zero": "{{ 1/0 }}",
    "sort mixed": "{{ ['a', 1]|sort }}",
    "unpack": "{% set a, b = [1] %}",
    "wide if": "{% if 1 %}{% for a in range(99999) if 0 %}{% endfor %}{% endif %}" * 550 + "{{ 1/0 }}",
}


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attack(name: str) -> dict[str, object]:
    start = time.thread_time()
    sum(i * i for i in range(200_000))
    pace = time.thread_time() - start
    before, start = peak_kb(), time.thread_time()
    result: dict[str, object] = {"name": name, "error": "", "text": ""}
    try:
        result["text"] = render(ATTACKS[name], {"messages": [{"role": "user", "content": "x"}]}).text[:100]
    except PellucidError as e:
        result["error"] = f"{type(e).__name__ if isinstance(e, TemplateError) else 'other'}: {e.what}"[:300]
    except BaseException as e:
        result["error"] = f"escaped: {e!r}"[:300]
    return result | {"pace": pace, "seconds": time.thread_time() - start, "mb": (peak_kb() - before) / 1024}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))
    for name in ATTACKS:
        print(json.dumps(attack(name)), flush=True)
