"""Templates of attackers end in an error, within bounded time and 200 MB (attacks.py has the table)."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attacks import ATTACKS

from pellucid.errors import TemplateError
from pellucid.text.chats import prompt as chat
from pellucid.text.chats import template


@cache
def results() -> dict[str, dict[str, Any]]:
    script = Path(__file__).with_name("attacks.py")
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr[-2000:]
    return {each["name"]: each for each in map(json.loads, out.stdout.splitlines())}


@pytest.mark.xdist_group("attacks")
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_in_bounded_time_and_memory(name: str) -> None:
    found = results()[name]
    assert found["error"].startswith("TemplateError: "), found
    # A second is the limit; compiling takes as long as the machine lets it, here as much again at most.
    assert found["seconds"] < 1.1 + 100 * found["pace"], found
    assert found["mb"] < 200, found


def test_limits_grow_with_the_input() -> None:
    """A long conversation is no attack: 20 MB of text, copied by the template several times."""
    content = "words and spaces" * 1_200_000
    source = (
        "{% set ns = namespace(x='') %}{% for m in messages %}{% set c = m.content | trim %}"
        "{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}{{ '<|' + m.role + '|>' + c + '\n' }}"
        "{% endfor %}"
    )
    text = template.render(source, {"messages": [{"role": "user", "content": content}] * 2}).text
    assert len(text) == 2 * (len(content) + len("<|user|>\n"))


def test_many_messages_are_no_attack() -> None:
    source = (Path(__file__).parents[1] / "data" / "chat_templates" / "qwen3.jinja").read_text("utf-8")
    messages = [{"role": role, "content": "Hello there."} for _ in range(5000) for role in ("user", "assistant")]
    text = chat._render(source, messages, {"tools": None, "add_generation_prompt": True}, False).text
    assert text.count("Hello there.") == 10_000


def test_a_refused_rendering_leaves_nothing_behind() -> None:
    for _ in range(3):
        with pytest.raises(TemplateError):
            template.render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {})
        assert template.render(
            "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(9) }}", {}
        ).text
