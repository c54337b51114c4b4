"""Answers parsed: what templates render comes back, in any pieces; nothing is lost, nothing takes long."""

from __future__ import annotations

import json
import random
import time

import pytest
import round_trip
from folders import folder
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import ArgumentError, Unsupported
from pellucid.text.answers import (
    FORMATS,
    Answer,
    AnswerStream,
    AnswerTokens,
    Arguments,
    CallEnd,
    CallStart,
    Content,
    Delta,
    Malformed,
    format_of,
    parse,
)
from pellucid.text.answers.formats import ENDS, ParamCalls
from pellucid.text.answers.machine import openers
from pellucid.text.answers.values import loads, typed
from pellucid.text.tokenizer import Tokenizer

NAMES = round_trip.names()
CASES = ["content", "reasoning", *round_trip.CASES, "everything"]
TOOLS = round_trip.TOOLS

FAMILY = {
    "apertus": "apertus", "apriel-1.5": "apriel-1.6", "apriel-1.6": "apriel-1.6", "bielik-3": "qwen",
    "deepseek-r1-distill-qwen": "deepseek-v3", "deepseek-v3": "deepseek-v3", "deepseek-v3.1": "deepseek-v3.1",
    "deepseek-v3.2": "deepseek-v3.2", "deepseek-v4": "deepseek-v3.2", "devstral": "mistral",
    "functionary-v3.1": "functionary-v3.1", "functionary-v3.2": "functionary-v3.2", "function-gemma": "function-gemma",
    "gemma3": "plain", "gemma3-pythonic": "pythonic", "gemma4": "gemma-4", "gigachat-3.1": "gigachat-3.1",
    "glm-4.6": "glm", "glm-4.7": "glm", "gpt-oss": "gpt-oss", "granite-3": "granite-3", "granite-3.3": "granite-3",
    "granite-4": "qwen", "granite-20b": "granite-20b", "hunyuan-a13b": "tool-calls", "internlm2": "internlm-2",
    "kimi-k2": "kimi-k2", "kimi-k3": "kimi-k3", "lfm2": "lfm-2", "lfm2.5": "lfm-2", "ling-3": "glm",
    "llama3": "plain", "llama3.2": "llama-3", "llama3.2-pythonic": "pythonic", "llama4-json": "llama-3",
    "llama4-pythonic": "pythonic", "mimo": "qwen", "minicpm5": "minicpm-5", "minimax-m1": "tool-calls",
    "minimax-m2": "minimax-m2", "minimax-m3": "minimax-m3", "ministral-3-reasoning": "mistral",
    "mistral-7b-v0.3": "mistral", "mistral-small-3.2": "mistral", "muse-glimmer": "muse",
    "nemotron-nano-v2": "nemotron", "nemotron-3-nano": "qwen-coder", "qwen3-2507": "qwen",
    "qwen3-coder": "qwen-coder", "qwen3.5": "qwen-coder",
    "qwq": "qwen", "seed-oss": "seed-oss", "solar-open": "solar-open", "step-3.5": "qwen-coder",
    "toolace": "pythonic", "xlam": "xlam",
    # of RENDER's nine
    "qwen2.5": "qwen", "qwen3": "qwen", "llama3.1": "llama-3", "gemma2": "plain", "mistral-nemo": "mistral",
    "phi3.5": "plain", "smollm3": "smollm-3", "hermes2-tool": "qwen", "deepseek-r1-distill": "deepseek-v3",
}  # fmt: skip


def pieces(text: str, seed: int) -> list[str]:
    dice, at, found = random.Random(seed), 0, []
    while at < len(text):
        size = dice.choice((1, 1, 2, 3, 5, 9, 40)) if seed else 1
        found.append(text[at : at + size])
        at += size
    return found


def deltas_of(parts: list[str], format: str, **options: object) -> list[Delta]:
    stream = AnswerStream(format, **options)  # type: ignore[arg-type]
    return [*(delta for part in parts for delta in stream.add(part)), *stream.end()]


# Templates, there and back


@pytest.mark.parametrize("name", NAMES)
def test_format_of_a_template(name: str) -> None:
    assert round_trip.format_for(name).name == FAMILY[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_round_trip(name: str, case: str) -> None:
    each = round_trip.samples(name)[case]
    if each is None:
        pytest.skip("the template refuses such a message")
    whole = round_trip.whole(name, each)
    if (name, case) in round_trip.LOSSES:
        assert not each.equals(whole), "this works: take it out of LOSSES"
    else:
        assert each.equals(whole), (each, whole)
    for seed in range(3):
        assert round_trip.streamed(name, each, seed) == whole


def test_the_table_in_the_docs_has_every_template() -> None:
    text = round_trip.DOCS.read_text(encoding="utf-8")
    for name in NAMES:
        assert f"| {round_trip.format_for(name).name} | {name} |" in text, "python tests/text/round_trip.py"


def test_an_unknown_template_gives_content_and_says_so() -> None:
    format = format_of("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert "no known markers" in format.why
    assert parse(" <think>a</think>\n{}\n", format) == Answer(content=" <think>a</think>\n{}\n")


def test_the_vocabulary_tells_where_the_template_says_nothing() -> None:
    format = format_of(None, ("<s>", "[TOOL_CALLS]", "[ARGS]"))
    assert format.name == "mistral"
    assert "vocabulary" in format.why


def test_a_format_that_does_not_exist_is_named() -> None:
    with pytest.raises(ArgumentError, match="qwen-coder"):
        parse("", "qwen-codr")


# Answers as models write them, where no template shows it

F, G = ("f", {"a": 1}), ("g", {})
WRITTEN: list[tuple[str, str, str, str, list[tuple[str, dict[str, object]]]]] = [
    ("command-a", "<|START_THINKING|>I plan.<|END_THINKING|><|START_ACTION|>[\n"
     '{"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}\n]<|END_ACTION|>', "", "I plan.", [F]),
    ("command-a", "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Hello.<|END_RESPONSE|>", "Hello.", "Hm.", []),
    ("command-r", 'Action:```json\n[{"tool_name": "f", "parameters": {"a": 1}}, '
     '{"tool_name": "g", "parameters": {}}]```', "", "", [F, G]),
    ("hunyuan-3", "<think:opensource>Hm</think:opensource>Hi<tool_calls:opensource>\n<tool_call:opensource>f"
     "<tool_sep:opensource>\n<arg_key:opensource>a</arg_key:opensource>\n<arg_value:opensource>1</arg_value:opensource>\n"
     "</tool_call:opensource>\n</tool_calls:opensource><｜hy_eos:opensource｜>", "Hi", "Hm", [F]),
    ("olmo-3", "<think>Hm</think>\n<function_calls>f(a=1)\ng()</function_calls>", "", "Hm", [F, G]),
    ("step-3", '<steptml:toolcall><steptml:invoke name="f"><steptml:parameter name="a">1</steptml:parameter>'
     "</steptml:invoke></steptml:toolcall>", "", "", [F]),
    ("longcat", '<longcat_tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</longcat_tool_call>\n', "", "", [F]),
    ("smollm-3", '<think>\nHm\n</think>\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', "", "Hm", [F]),
    ("smollm-3", "<code>f(a=1)</code>", "", "", [F]),
    ("ernie-4.5", '<think>\nHm\n</think>\n\n<response>\nHi\n</response>\n<tool_call>\n'
     '{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n', "Hi", "Hm", [F]),
    ("functools", 'functools[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]', "", "", [F, G]),
    ("phi-4-mini", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]<|/tool_call|>', "", "", [F]),
    ("granite-3", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]', "", "", [F]),
    ("granite-3", "Here: <response>Hi</response>", "Here: Hi", "", []),
    ("gemma-3-tool-code", "Sure.\n```tool_code\nf(a=1)\n```", "Sure.", "", [F]),
    ("llama-3", '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}', "", "", [F, G]),
    ("llama-3", '{"type": "function", "name": "f", "parameters": {"a": 1}}', "", "", [F]),
    ("llama-3", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', "", "", [F]),
    ("llama-3", '<|python_tag|>brave_search.call(query="a \\"b\\"")', "", "", [("brave_search", {"query": 'a "b"'})]),
    ("llama-3", "<|python_tag|>x = f(1)\nprint(x)", "", "", [("python", {"code": "x = f(1)\nprint(x)"})]),
    ("llama-3", '{"answer": [1, 2]}', '{"answer": [1, 2]}', "", []),
    ("llama-3", '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', "", []),
    ("pythonic", '[f(a=1), g()]', "", "", [F, G]),
    ("pythonic", "[1] and [f(x)](url)", "[1] and [f(x)](url)", "", []),
    ("pythonic", "[f(a=1) for f in g]", "[f(a=1) for f in g]", "", []),
    ("pythonic", '[f(a=[1, (2, 3)], b={"c": None, \'d\': True}, e=-1.5e3, g="x\\n\\u00e9", h="""a"b""")]', "", "",
     [("f", {"a": [1, [2, 3]], "b": {"c": None, "d": True}, "e": -1500.0, "g": "x\né", "h": 'a"b'})]),
    ("functionary-v3.2", ">>>all\nHi>>>f\n{\"a\": 1}>>>python\nprint(1)", "Hi", "",
     [F, ("python", {"code": "print(1)"})]),
    ("gpt-oss", "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary to=functions.f "
     '<|constrain|>json<|message|>{"a": 1}<|call|>', "", "Hm", [F]),
    ("gpt-oss", "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>Hi",
     "I look.\nHi", "", []),
    ("gpt-oss", "<|channel|>analysis to=python code<|message|>print(1)<|call|>", "", "",
     [("python", {"code": "print(1)"})]),
    ("kimi-k2", "<think>Hm<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
     '{"a": 1}<|tool_call_end|><|tool_calls_section_end|>', "", "Hm", [F]),
    ("deepseek-v3", "Hi<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```"
     "<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "Hi", "", [F]),
    ("mistral", "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]abc[ARGS]{}", "", "", [F, G]),
    ("mistral", '[TOOL_CALLS]f{"a": 1}[TOOL_CALLS]g{}', "", "", [F, G]),
    ("gigachat-3", 'Hi<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "f", "arguments": {"a": 1}}',
     "Hi", "", [F]),
    ("qwen", '<tool_call>[{"name": "f", "arguments": "{\\"a\\": 1}"}, {"arguments": null, "name": "g"}]</tool_call>',
     "", "", [F, G]),
    ("qwen", '<tool_call>{"arguments": {"a": 1}, "name": "f"}', "", "", [F]),
    ("qwen-coder", "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>", "", "", [F]),
    ("qwen", "Use `<tool_call>` and </think>, or <function=x, [f(a=1)].",
     "Use `<tool_call>` and </think>, or <function=x, [f(a=1)].", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("format", "text", "content", "reasoning", "calls"), WRITTEN)
def test_as_models_write(
    format: str, text: str, content: str, reasoning: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    answer = parse(text, format)
    assert (answer.content, answer.reasoning, answer.malformed) == (content, reasoning, ())
    assert [(call.name, call.arguments) for call in answer.tool_calls] == calls
    for seed in range(3):
        assert Answer.of(deltas_of(pieces(text, seed), format)) == answer


def test_every_format_is_shown() -> None:
    """Every row of the table is used by a template or by an answer written here."""
    shown = {each[0] for each in WRITTEN} | {round_trip.format_for(name).name for name in NAMES}
    assert set(FORMATS) - shown == set()


def test_no_marker_is_a_part_of_another() -> None:
    """What `Stops` relies on: the first marker that is found is the one that is meant."""
    for format in FORMATS.values():
        ends = [*format.ends, *(format.channels.ends if format.channels else ())]
        tags = [mark for each in format.reasoning for mark in (each.open, each.close)]
        markers = {*ends, *tags, *format.drops, *openers(format)}
        for a in markers:
            assert not any(a != b and a in b for b in markers), (format.name, a)
        assert all(each.value_end for each in format.calls if isinstance(each, ParamCalls))
    assert not any(a != b and a in b for a in ENDS for b in ENDS)


# What a prompt begins


@pytest.mark.parametrize(
    ("format", "prompt", "text", "content", "reasoning"),
    [
        ("qwen", "<|im_start|>assistant\n<think>\n", "Hm\n</think>\n\nHi", "Hi", "Hm"),
        ("qwen", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "Hi", "Hi", ""),
        ("qwen", "<think>\n", "Hm</think>Hi", "Hi", "Hm"),
        ("qwen", "x <think> y<|im_end|>\n<|im_start|>assistant\n", "Hi", "Hi", ""),
        ("qwen", "<|im_start|>assistant\n<think>\nI thi", "nk.</think>Hi", "Hi", "nk."),
        ("qwen", "<|im_start|>assistant\nSure, ", "<think>I do.", "<think>I do.", ""),
        ("qwen", "<|im_start|>assistant\n<think>\n", "<think>\nHm</think>Hi", "Hi", "Hm"),
        ("qwen", "<|im_start|>assistant\n<think>\n", "never closed", "", "never closed"),
        ("deepseek-v3.1", "<｜Assistant｜></think>", "Hi", "Hi", ""),
        ("gpt-oss", "<|start|>assistant<|channel|>final<|message|>", "Hi<|return|>", "Hi", ""),
        ("gpt-oss", "<|start|>assistant", "Hi, I know no channels.", "Hi, I know no channels.", ""),
        ("apriel-1.6", "<|begin_assistant|>\nHere are my reasoning steps:\n", "Hm\n[BEGIN FINAL RESPONSE]\nHi", "Hi",
         "Hm"),
    ],
)  # fmt: skip
def test_what_the_prompt_began(format: str, prompt: str, text: str, content: str, reasoning: str) -> None:
    answer = parse(
        text, format_of(None) if format == "" else FORMATS[format].ending_with("<|im_end|>"), prompt_tail=prompt
    )
    assert (answer.content, answer.reasoning) == (content, reasoning)


def test_a_call_that_the_prompt_began() -> None:
    """How a named tool is forced."""
    prompt = '<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": '
    answer = parse('{"a": 1}}\n</tool_call><|im_end|>', FORMATS["qwen"].ending_with("<|im_end|>"), prompt_tail=prompt)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [F]


# Malformed calls

BROKEN = [
    ("qwen", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "NaN"),
    ("qwen", '<tool_call>{"name": "f", "arguments": {"a": 1, "a": 2}}</tool_call>', "twice"),
    ("qwen", '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>', "finite"),
    ("qwen", f'<tool_call>{{"name": "f", "arguments": {{"a": {"9" * 5000}}}}}</tool_call>', "digits"),
    ("qwen", '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 100_000, "deeper"),
    ("qwen", '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>', "surrogates"),
    ("qwen", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "object"),
    ("qwen", '<tool_call>{"name": 3, "arguments": {}}</tool_call>', "name"),
    ("qwen", '<tool_call>{"arguments": {}}</tool_call>', "name"),
    ("qwen", '<tool_call>{"name": "f", "arguments": {"a": 1', "ends inside"),
    ("qwen", '<tool_call>{"name": "f"} }</tool_call>', "text between"),
    ("qwen-coder", "<function=f>\n<parameter=a>\n1", "ends inside"),
    ("qwen-coder", "<function=f>\noops</function>", "neither a parameter"),
    ("lfm-2", "<|tool_call_start|>[f(1)]<|tool_call_end|>", "without a name"),
    ("lfm-2", "<|tool_call_start|>[f(a=open)]<|tool_call_end|>", "neither a number"),
    ("lfm-2", "<|tool_call_start|>[f(a=" + "(" * 100_000, "deeper"),
    ("lfm-2", "<|tool_call_start|>[f(a=1e999)]<|tool_call_end|>", "finite"),
    ("gemma-4", "<|tool_call>call:f{a:<|\"|>x", "ends inside"),
    ("minimax-m3", ']<]minimax[>[<tool_call>]<]minimax[>[<invoke name="f">' + "]<]minimax[>[<a>" * 10_000, "deeper"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "text", "reason"), BROKEN)
def test_a_malformed_call_is_kept_with_a_reason(format: str, text: str, reason: str) -> None:
    answer = parse("Hi. " + text, format)
    assert answer.content.startswith("Hi.")
    assert any(reason in each.reason for each in answer.malformed), answer.malformed
    seen = "".join([*(each.raw for each in answer.tool_calls), *(each.text for each in answer.malformed)])
    assert "".join(seen.split()) == "".join(text.split())  # nothing is lost
    assert json.dumps(answer.to_message())


def test_malformed_at_the_beginning() -> None:
    """Where no marker begins a call either, all of it is kept."""
    for text in ('{"name": "f", "parameters": {"a": ', '{"name": "f", "parameters": {"a": NaN}}'):
        assert parse(text, "llama-3").malformed[0].text == text.strip()
    text = "<|channel|>commentary to=functions.f<|message|>no JSON"
    assert parse(text, "gpt-oss").malformed[0].text == text


def test_what_follows_a_malformed_call_is_read() -> None:
    answer = parse('<tool_call>{"name": f}</tool_call>\n<tool_call>{"name": "g"}</tool_call> bye', "qwen")
    assert [call.name for call in answer.tool_calls] == ["g"]
    assert answer.content == "bye"
    assert answer.to_message()["content"] == 'bye\n<tool_call>{"name": f}</tool_call>'


# Any text, any pieces

WORDS = ["f", "now", "get_weather", "city", "a", "1", "-1.5", "true", "null", '"x"', "{", "}", "[", "]", "(", ")", ":",
         ",", "=", '"""', "\n", " ", "\t", "\\", '"', "'", "<", ">", "```", "f(a=1)",
         '{"name": "f", "arguments": {"a": "b"}}',
         "é😀"]  # fmt: skip


def marks_of(name: str) -> list[str]:
    """Everything that means something in a format, and halves of it."""
    format = FORMATS[name]
    found = [*format.ends, *format.drops, *openers(format)]
    found += [mark for tags in format.reasoning for mark in (tags.open, tags.close)]
    for syntax in format.calls:
        for value in vars(syntax).values():
            found += [value] if isinstance(value, str) else [e for e in value if e] if isinstance(value, tuple) else []
    if format.channels:
        found += [
            format.channels.start,
            format.channels.header_end,
            *format.channels.ends,
            " to=functions.f",
            "analysis",
        ]
    return [*found, *(each[: len(each) // 2] for each in found if len(each) > 3)]


def check(deltas: list[Delta]) -> None:
    """A call begins, comes, and ends; its pieces are its arguments."""
    begun: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, CallStart):
            assert delta.index not in begun
            begun[delta.index] = []
        elif isinstance(delta, Arguments):
            begun[delta.index].append(delta.text)
        elif isinstance(delta, CallEnd):
            assert loads("".join(begun.pop(delta.index))) == delta.call.arguments
        elif isinstance(delta, Malformed) and delta.index is not None:
            del begun[delta.index]
    assert not begun


@pytest.mark.parametrize("name", sorted(FORMATS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_text_in_any_pieces(name: str, data: st.DataObject) -> None:
    marks = st.sampled_from(marks_of(name) or WORDS)
    text = "".join(data.draw(st.lists(marks | st.sampled_from(WORDS) | st.text(max_size=3), max_size=30)))
    tools = data.draw(st.sampled_from([None, TOOLS]))
    whole = deltas_of([text], name, tools=tools)
    check(whole)
    for seed in (0, data.draw(st.integers(1, 1000))):
        parts = deltas_of(pieces(text, seed), name, tools=tools)
        check(parts)
        assert Answer.of(parts) == Answer.of(whole)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {name for name, each in FORMATS.items() if each.channels}))
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_word_is_lost(name: str, data: st.DataObject) -> None:
    """Whatever a model writes before an end marker is in the answer, wherever."""
    marks = [mark for mark in marks_of(name) if not any(end in mark for end in FORMATS[name].ends)]
    chosen = data.draw(st.lists(st.sampled_from([*marks, *WORDS]), max_size=25))
    text = "".join(f"{each} w{nth}w " for nth, each in enumerate(chosen))
    if any(end in text for end in FORMATS[name].ends):
        return
    answer = parse(text, name)
    said = [answer.content, answer.reasoning, *(c.raw for c in answer.tool_calls), *(m.text for m in answer.malformed)]
    for nth in range(len(chosen)):
        assert f"w{nth}w" in " ".join(said)


def mutated(text: str, others: list[str], dice: random.Random) -> str:
    """A few pieces left out, doubled, put in or taken from other answers."""
    for _ in range(dice.randint(1, 4)):
        i = dice.randrange(len(text) + 1)
        j = min(len(text), i + dice.randint(1, 30))
        other = dice.choice(others)
        k = dice.randrange(len(other))
        put = [text[i:j] * 2, dice.choice("<>{}[]()\"'\\|=:,\n `x1"), other[k : k + 40], ""]
        text = text[:i] + dice.choice(put) + text[j if dice.random() < 0.5 else i :]
    return text


@pytest.mark.parametrize("name", NAMES)
def test_mutated_answers_in_any_pieces(name: str) -> None:
    """What is nearly an answer reaches further into the parser than random text does."""
    dice = random.Random(name)
    answers = [each for each in round_trip.samples(name).values() if each]
    format, texts = round_trip.format_for(name), [each.generated for each in answers]
    for seed in range(40):
        each = dice.choice(answers)
        text, tail, tools = (
            mutated(each.generated, texts, dice),
            dice.choice([each.prompt, ""]),
            dice.choice([None, TOOLS]),
        )
        stream = AnswerStream(format, tools=tools, prompt_tail=tail)
        deltas = [*(delta for part in pieces(text, seed) for delta in stream.add(part)), *stream.end()]
        check(deltas)
        assert Answer.of(deltas) == parse(text, format, tools=tools, prompt_tail=tail), text


HOSTILE = [
    "<" * 100_000,
    "<think>" * 20_000,
    "<tool_call>" * 20_000,
    "<tool_call>{" * 10_000,
    '<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 100_000,
    '<tool_call>{"name": "f", "arguments": {"a": ' + "{" * 100_000,
    "<tool_call>\n" + " " * 100_000,
    " " * 100_000,
    "<function=f>\n<parameter=city>" + "</parameter>" * 16_000,
    "<function=f>\n<parameter=city>" + "</parameter>\n " * 16_000,
    "[" * 100_000,
    "[f(a=" * 40_000,
    "[f(a=" + "-" * 100_000,
    '[f(a="' + '"x' * 100_000,
    "[TOOL_CALLS]" * 16_000,
    "[TOOL_CALLS]" + "f" * 100_000,
    "<|channel|>" * 18_000,
    "<|message|>" * 18_000,
    "<|tool_call>call:f{a:" + '<|"|>' * 40_000,
    "\ud800" * 20_000,
]


@pytest.mark.parametrize("name", ["qwen", "qwen-coder", "glm", "llama-3", "pythonic", "mistral", "gpt-oss", "gemma-4"])
def test_hostile_text_takes_linear_time(name: str) -> None:
    for text in HOSTILE:
        start = time.process_time()
        whole = parse(text, name, tools=TOOLS)
        assert time.process_time() - start < 1.5, text[:40]
        small = text[:3000]
        assert Answer.of(deltas_of(list(small), name, tools=TOOLS)) == parse(small, name, tools=TOOLS)
        assert isinstance(whole, Answer)


def test_a_megabyte_of_brackets() -> None:
    for name in FORMATS:
        start = time.process_time()
        assert len(parse("<" * 1_000_000, name).content) == 1_000_000
        assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen", '<tool_call>{"name": "f", "arguments": {"a": "'),
        ("qwen", ""),
        ("qwen-coder", "<function=f>\n<parameter=a>\n"),
        ("lfm-2", '<|tool_call_start|>[f(a="'),
        ("llama-3", '{"name": "'),
    ],
)
def test_a_long_stream_costs_the_same_a_character(name: str, text: str) -> None:
    def cost(size: int) -> float:
        stream = AnswerStream(name)
        stream.add(text)
        start = time.process_time()
        for _ in range(size):
            stream.add("x")
        stream.end()
        return time.process_time() - start

    cost(1000)
    assert min(cost(40_000) for _ in range(2)) < 12 * max(min(cost(10_000) for _ in range(3)), 0.005)


# Deltas, messages, values, ids


def test_deltas_come_as_early_as_they_can() -> None:
    stream = AnswerStream("qwen")
    assert stream.add("Hel") == [Content("Hel")]
    assert stream.add("lo <tool_c") == [Content("lo")]
    stream.add('all>{"name": "f", "argum')
    assert stream.add('ents": {"a": "b') == [CallStart(0, "call00000", "f"), Arguments(0, '{"a": "b')]
    assert stream.add("\nc") == [Arguments(0, "\\nc")]
    assert [type(each) for each in stream.add('"}}</tool_call>')] == [Arguments, CallEnd]
    assert stream.end() == []


def test_text_arguments_are_streamed_as_json() -> None:
    stream = AnswerStream("qwen-coder", tools=TOOLS)
    stream.add("<tool_call>\n<function=get_weather>\n<parameter=city>\nNew ")
    assert stream.add('"York') == [Arguments(0, '\\"York')]
    assert stream.add("\n</parameter>\n<parameter=days>\n1") == [Arguments(0, '", "days": ')]
    assert stream.add("2\n</parameter>\n</function>")[:-1] == [Arguments(0, "12}")]


def test_to_message() -> None:
    answer = parse('<think>Hm</think><tool_call>{"name": "f", "arguments": {"ü": 1}}</tool_call>', "qwen")
    function = {"name": "f", "arguments": '{"ü": 1}'}
    assert answer.to_message() == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm",
        "tool_calls": [{"id": "call00000", "type": "function", "function": function}],
    }
    assert answer.to_message(json_arguments=False)["tool_calls"][0]["function"]["arguments"] == {"ü": 1}
    assert parse("Hi", "qwen").to_message() == {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("12", {"integer"}, 12),
        ("12", {"string"}, "12"),
        ("12", set(), 12),
        ("012", set(), "012"),
        ("True", {"boolean"}, True),
        ("None", {"string", "null"}, None),
        ("3.0", {"integer"}, 3.0),
        ("x", {"integer"}, "x"),
        ("{'a': [1, None]}", {"object"}, {"a": [1, None]}),
        ('{"a": 1}', {"array"}, '{"a": 1}'),
        ("", {"array"}, []),
        ("", {"string"}, ""),
        ('"quoted"', set(), '"quoted"'),
        ("[" * 1000, set(), "[" * 1000),
        ("NaN", {"number"}, "NaN"),
        ("9" * 5000, set(), "9" * 5000),
    ],
)
def test_text_becomes_what_the_schema_says(text: str, types: set[str], value: object) -> None:
    assert typed(text, frozenset(types)) == value


def test_ids_to_deltas() -> None:
    tok = Tokenizer.from_folder(folder("stories260K"))
    text = 'Once <tool_call>{"name": "f", "arguments": {"a": "é"}}</tool_call>'
    stream = AnswerTokens(tok, format="qwen", prompt_ids=tok.encode("Tell me"))
    deltas = [delta for id in tok.encode(text, add_special_tokens=False) for delta in stream.add(id)]
    answer = Answer.of([*deltas, *stream.end()])
    assert answer.content == "Once"
    assert answer.tool_calls[0].arguments == {"a": "é"}
    plain = AnswerTokens(tok)
    assert "no known markers" in plain.format.why
    assert tok.eos_token in plain.format.ends


def test_parse_response_as_in_transformers() -> None:
    tok = Tokenizer.from_folder(folder("stories260K"))
    tok.chat_template = round_trip.source("qwen3-coder")
    text = "Hi<tool_call>\n<function=f>\n<parameter=a>\n7\n</parameter>\n</function>\n</tool_call><|im_end|>\n"

    def f(a: int) -> None:
        """Does it.

        Args:
            a: A number.
        """

    call = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {"a": 7}}}
    message = {"role": "assistant", "content": "Hi", "tool_calls": [call]}
    assert tok.parse_response(text, prefix="", tools=[f]) == message
    ids = tok.encode(text, add_special_tokens=False)
    assert tok.parse_response(ids, prefix=tok.encode("x"), tools=[f]) == message
    assert tok.parse_response([text, "Ho"], prefix="")[1] == {"role": "assistant", "content": "Ho"}
    assert tok.parse_response("Hm</think>Hi", "qwen", prefix="<think>\n")["reasoning_content"] == "Hm"
    with pytest.raises(ArgumentError, match="prefix"):
        tok.parse_response(text)
    with pytest.raises(ArgumentError, match="2 responses"):
        tok.parse_response(["a", "b"], prefix=["a", "b", "c"])
    with pytest.raises(Unsupported):
        tok.parse_response(text, {"fields": {}}, prefix="")


@pytest.mark.parametrize("name", ["qwen3", "qwen3-2507", "qwen3.5", "gemma4"])
@pytest.mark.parametrize("case", ["content", "reasoning", "one call", "several calls"])
def test_as_the_reference_reads_it(name: str, case: str) -> None:
    """transformers knows these families by itself. (It takes a line break after the end marker for empty content.)"""
    each = round_trip.samples(name)[case]
    assert each is not None
    family = {"qwen3.5": "qwen3_5", "gemma4": "gemma4"}.get(name, "qwen3")
    known = pytest.importorskip("transformers.cli.serving.utils")._RESPONSE_TEMPLATE_FALLBACKS
    reader = pytest.importorskip("transformers.utils.chat_parsing").parse_response
    template = next(value for names, value in known.items() if family in names)
    theirs = reader(each.generated.rstrip(), template, prefix=each.prompt, tools=TOOLS)
    ours = round_trip.whole(name, each)
    assert (theirs.get("content", ""), theirs.get("reasoning_content", "")) == (ours.content, ours.reasoning)
    calls = [call["function"] for call in theirs.get("tool_calls", ())]
    assert calls == [{"name": call.name, "arguments": call.arguments} for call in ours.tool_calls]
