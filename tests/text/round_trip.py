"""Templates rendered and parsed back: what a test and the table in docs/chat-formats.md share.

`python tests/text/round_trip.py` writes the table.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
from pellucid.text.answers import FORMATS, Answer, AnswerStream, Format, format_of, parse
from pellucid.text.answers.formats import STARTS
from pellucid.text.chats.template import render

DATA = Path(__file__).parents[1] / "data" / "chat_templates"
DOCS = Path(__file__).parents[2] / "docs" / "chat-formats.md"
SPECIAL = {"bos_token": "<BOS>", "eos_token": "<EOS>", "pad_token": "<PAD>", "unk_token": "<UNK>"}
USER = {"role": "user", "content": "What is the weather in Zürich?"}


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    described = {key: {"description": key, **value} for key, value in properties.items()}
    parameters = {"type": "object", "properties": described, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = [
    _tool(
        "get_weather",
        city={"type": "string"},
        days={"type": "integer"},
        limit={"type": "number"},
        metric={"type": "boolean"},
        unit={"type": "string", "nullable": True},
        near={"type": "array", "items": {"type": "string"}},
        options={"type": "object"},
    ),
    _tool("now"),
    _tool("run_code", code={"type": "string"}, language={"type": "string"}),
]
CONTENT = (
    'Let me see: "a < b", {"x": [1]} and [2](y) — größer 😀.\n\n```python\nif a < 3: print(f"{a}</b>")\n```\nDone.'
)
REASONING = 'The user asks <that>; I {"think"} — first.\n\nThen: [1, 2] “ok” 日本.'
PLAIN = {"city": "Zürich", "days": 3, "limit": -1.5, "metric": True, "near": ["Baden", "Zug"]}
NESTED = {"city": "Paris", "options": {"a": {"b": [1, {"c": "d"}, True]}, "e": {}}}
CODE = {
    "code": 'def f(x):\n    """Say \'hi\'."""\n    return {"x": x < 1, \'y\': "\\n"}'
    "  # </tool_call> </parameter> ``` [/x] 日本\n",
    "language": "python",
}
EMPTY = {"city": "", "unit": None, "near": [], "days": 0}
NOT_QUOTED = "writes text without quotes"
NOT_ESCAPED = "does not escape the quotes in a text"
# Where a template itself loses what the message says, so that nothing could give it back.
LOSSES = {
    ("function-gemma", "empty values"): "writes null as the text None",
    ("hunyuan-a13b", "content"): "begins content with 助手：, which stays",
    ("hunyuan-a13b", "reasoning"): "begins content with 助手：, which stays",
    ("lfm2.5", "code"): NOT_ESCAPED,
    ("llama4-pythonic", "code"): NOT_ESCAPED,
    ("llama4-pythonic", "empty values"): "writes null as the text None",
    ("minimax-m3", "several calls"): "writes {} inside an argument as nothing",
    ("minimax-m3", "everything"): "writes {} inside an argument as nothing",
    ("minimax-m3", "empty values"): "leaves null out",
    ("nemotron-nano-v2", "content"): "writes content where reasoning belongs",
}
LOSSES |= {
    (name, case): reason
    for name, reason in {
        "gemma3-pythonic": "writes no commas between arguments",
        "llama3.2-pythonic": NOT_QUOTED,
        "toolace": NOT_QUOTED,
    }.items()
    for case in ("one call", "several calls", "code", "empty values", "everything")
}
LOSSES |= {
    (name, "everything"): "a call without any marker has to begin the answer"
    for name in ("llama4-json", "llama4-pythonic")
}
LOSSES["nemotron-nano-v2", "everything"] = "writes content as a turn of its own"
Calls = list[tuple[str, dict[str, Any]]]
CASES: dict[str, Calls] = {
    "one call": [("get_weather", PLAIN)],
    "several calls": [("get_weather", PLAIN), ("now", {}), ("get_weather", NESTED)],
    "code": [("run_code", CODE)],
    "empty values": [("get_weather", EMPTY), ("now", {})],
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a model would have written, and what was meant by it."""

    generated: str
    prompt: str
    content: str
    reasoning: str
    calls: Calls

    def equals(self, answer: Answer) -> bool:
        calls = [(call.name, call.arguments) for call in answer.tool_calls]
        return (answer.content, answer.reasoning, calls, answer.malformed) == (
            self.content,
            self.reasoning,
            self.calls,
            (),
        )


def names() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.jinja"))


@functools.cache
def source(name: str) -> str:
    return (DATA / f"{name}.jinja").read_text(encoding="utf-8")


def format_for(name: str) -> Format:
    return format_of(source(name)).ending_with(SPECIAL["eos_token"])


def rendered(name: str, messages: list[dict[str, Any]], *, prompt: bool) -> str:
    variables = {"messages": messages, "tools": TOOLS, "add_generation_prompt": prompt, "functions": "", **SPECIAL}
    return render(source(name), variables).text


def sample(name: str, content: str, reasoning: str, calls: Calls) -> Sample | None:
    """The turn, rendered; without what the template leaves out. None: the template refuses it."""
    full = None
    for message in messages(content, reasoning, calls):
        try:
            full = rendered(name, [USER, message], prompt=False)
        except PellucidError:
            continue
        if any(name not in full.split(USER["content"])[-1] for name, _ in calls):
            full = None
            continue
        break
    if full is None:
        return None
    format = format_for(name)
    prompt, generated = cut(rendered(name, [USER], prompt=True), full, format)
    if reasoning and reasoning not in generated and format.reasoning and not calls:
        tags = format.reasoning[0]  # templates that drop it from the history: as the model wrote it
        generated = f"{tags.open}\n{reasoning}\n{tags.close}\n{generated.removeprefix(tags.open).lstrip()}"
        prompt = prompt[: boundary(prompt)]
    ends = set(format.ends) - {tags.close for tags in format.reasoning}
    turn = min((generated.split(end)[0] for end in ends), key=len, default=generated)
    return Sample(
        generated,
        prompt,
        content if content in turn else "",
        reasoning if reasoning and reasoning in turn else "",
        calls,
    )


def messages(content: str, reasoning: str, calls: Calls) -> Iterator[dict[str, Any]]:
    """The same turn in the shapes that templates know: which fields hold reasoning, arguments as dicts or as text."""
    thoughts = [dict.fromkeys(("reasoning_content", "reasoning", "thinking"), reasoning)] if reasoning else [{}]
    for thought in [*thoughts, {}] if reasoning else thoughts:
        for text in (content, ""):
            for as_text in (False, True):
                message: dict[str, Any] = {"role": "assistant", "content": text, **thought}
                if calls:
                    message["tool_calls"] = [
                        {
                            "id": f"abcdef12{nth}",
                            "type": "function",
                            "function": {
                                "name": call,
                                "arguments": json.dumps(given, ensure_ascii=False) if as_text else given,
                            },
                        }
                        for nth, (call, given) in enumerate(calls)
                    ]
                yield message


def cut(prompt: str, full: str, format: Format) -> tuple[str, str]:
    """The prompt and what follows it. Where a finished turn begins otherwise than the generation prompt, the prompt
    is cut back to the marker that begins the turn."""
    if full.startswith(prompt):
        return prompt, full[len(prompt) :]
    short = prompt[: boundary(prompt)]
    if full.startswith(short):
        begun, generated = prompt[len(short) :], full[len(short) :]
        opened = any(
            tags.open.strip() == begun.strip() and tags.close in generated and not generated.startswith(tags.open)
            for tags in format.reasoning
        )
        return (prompt if opened else short), generated
    rest = full[full.index(USER["content"]) + len(USER["content"]) :]
    starts = [(rest.find(each), -len(each), each) for each in STARTS if each in rest]
    if not starts:
        raise AssertionError(f"the turn is not found: {rest[:80]!r}")
    at, _, start = min(starts)
    return start, rest[at + len(start) :]


def boundary(prompt: str) -> int:
    return max((prompt.rfind(each) + len(each) for each in STARTS if each in prompt), default=len(prompt))


def streamed(name: str, each: Sample, seed: int) -> Answer:
    """Parsed in pieces: of one character (seed 0), or of random lengths."""
    stream = AnswerStream(format_for(name), tools=TOOLS, prompt_tail=each.prompt)
    deltas, at, dice = [], 0, random.Random(seed)
    while at < len(each.generated):
        size = dice.randint(1, 12) if seed else 1
        deltas += stream.add(each.generated[at : at + size])
        at += size
    return Answer.of([*deltas, *stream.end()])


def whole(name: str, each: Sample) -> Answer:
    return parse(each.generated, format_for(name), tools=TOOLS, prompt_tail=each.prompt)


@functools.cache
def samples(name: str) -> dict[str, Sample | None]:
    found = {
        "content": sample(name, CONTENT, "", []),
        "reasoning": sample(name, CONTENT, REASONING, []),
    }
    for case, calls in CASES.items():
        found[case] = sample(name, "", "", calls)
    found["everything"] = sample(name, "I will look.", REASONING, CASES["several calls"])
    return found


def table() -> str:
    """Family and template × what comes back as it went in."""
    lines = []
    columns = ["content", "reasoning", *CASES, "everything"]
    for name in names():
        cells, streams = [], True
        for case, each in samples(name).items():
            if each is None or (case == "reasoning" and not each.reasoning):
                cells.append("–")
                continue
            got = whole(name, each)
            good = each.equals(got)
            streams = streams and all(streamed(name, each, seed) == got for seed in range(4))
            cells.append("yes" if good else "lost" if (name, case) in LOSSES else "no")
        lines.append(f"| {format_for(name).name} | {name} | {' | '.join(cells)} | {'yes' if streams else 'no'} |")
    head = ["format", "template", *columns, "streaming"]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *sorted(lines)])


def page() -> str:
    """docs/chat-formats.md."""
    lost = [f"| {name} | {case} | {reason} |" for (name, case), reason in sorted(LOSSES.items()) if name in names()]
    shown = {format_for(name).name for name in names()}
    written = ", ".join(sorted(set(FORMATS) - shown))
    return f"""# Answers: formats and round trips

Written by `python tests/text/round_trip.py`; `tests/text/test_answers.py` asserts every cell.

A chat template turns messages into a prompt; `pellucid.text.answers` turns what the model wrote into a message again:
content, reasoning, tool calls. Each row renders an assistant's turn with a published template, cuts the prompt off,
parses the rest and compares with the message. *reasoning* is content with reasoning (written by hand where a template
drops it from the history), *one call* has text, numbers, a boolean and a list as arguments, *several calls* are three,
one without arguments and one nested, *code* is source code with quotes, line breaks, a backslash and look-alikes of
markers, *empty values* are empty text and list, null and zero, *everything* is content, reasoning and three calls.
*streaming*: one character at a time and three random splits give the same answer.

`–`: the template has no such thing (one call a turn, no calls, no reasoning). `lost`: the template itself does not
write down what the message says; see below.

{table()}

Formats without a template that may be copied here ({written}) are tested with answers written by hand.

## What templates lose

| template | case | the template |
|---|---|---|
{chr(10).join(lost)}

## What is ambiguous in the text itself

- A marker that a model writes as an example cannot be told from the special token. It counts as a marker only if what
  follows fits (`<tool_call>` before `{{` or `<function=`), and reasoning begins only at the beginning of an answer
  where the marker can be typed. A marker that ends a turn ends the answer.
- An argument written as plain text becomes a number, boolean or object as the tool's schema says. Without a schema what
  reads as JSON is JSON: pass `tools`.
- A value may contain its own closing marker (`</parameter>`): it ends where a parameter or the end of the call follows.
- A call without any marker (Llama 3, pythonic, xLAM) has to begin the answer, and be of a tool that exists if `tools`
  are given.
"""


if __name__ == "__main__":
    if "-v" in sys.argv:
        for name in names():
            for case, each in samples(name).items():
                if each is not None and not each.equals(whole(name, each)) and (name, case) not in LOSSES:
                    print(f"{name} {case}\n  {each}\n  {whole(name, each)}")
    DOCS.write_text(page(), encoding="utf-8")
    print(table())
