"""Conversations to render a template with: what callers send, and what they should not."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]

SYSTEM: Message = {"role": "system", "content": "You are a pirate.\nAnswer in rhymes."}
USER: Message = {"role": "user", "content": "What is <b>2 + 2</b> & why?"}
ANSWER: Message = {"role": "assistant", "content": "It is 4.\n\nArr!"}
UNICODE: Message = {"role": "user", "content": "  naïve 日本語 😀👩‍👩‍👧 العربية \u200b\u00a0 e\u0301 ⟨⟩ \t tail \n"}
EMPTY: Message = {"role": "user", "content": ""}
PARTS: Message = {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "text", "text": "here."}]}
PICTURE: Message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
THOUGHT: Message = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}
REASONED: Message = {"role": "assistant", "reasoning_content": "Two and two.", "content": "Four."}


def call(arguments: Any, id: str = "abcdef123", content: Any = "") -> Message:
    function = {"name": "get_weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"type": "function", "id": id, "function": function}],
    }


RESULT: Message = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": '{"temp": 12.5}'}
ARGUMENTS = {"city": "Köln", "days": 3, "units": None, "nested": {"a": [1, 2.5, True, 'x\n"y"']}}

TALKS: dict[str, list[Message]] = {
    "plain": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, USER],
    "system and turns": [SYSTEM, USER, ANSWER, USER, ANSWER],
    "ends with an answer": [USER, ANSWER],
    "unicode": [SYSTEM, UNICODE, ANSWER, UNICODE],
    "empty": [EMPTY],
    "empty answer": [USER, {"role": "assistant", "content": ""}, USER],
    "parts": [PARTS],
    "parts and turns": [SYSTEM, PARTS, ANSWER, PICTURE],
    "thought": [USER, THOUGHT, USER],
    "reasoning": [USER, REASONED, USER],
    "reasoning at the end": [USER, REASONED],
    "call": [USER, call(ARGUMENTS)],
    "call and result": [SYSTEM, USER, call({"city": "Köln"}), RESULT],
    "call, result, answer": [USER, call({"city": "Köln"}), RESULT, ANSWER, USER],
    "call as text": [USER, call('{"city": "Köln"}'), RESULT],
    "call without content": [USER, call({"city": "Köln"}, content=None), RESULT],
    "two calls": [
        USER,
        {
            **call({"city": "Köln"}),
            "tool_calls": call({"city": "A"})["tool_calls"] + call({}, "fedcba321")["tool_calls"],
        },
        RESULT,
        {**RESULT, "tool_call_id": "fedcba321"},
    ],
    "reasoning and call": [USER, {**call({"city": "Köln"}), "reasoning_content": "Ask."}, RESULT],
    "two users": [USER, USER],
    "begins with an answer": [ANSWER, USER],
    "system late": [USER, ANSWER, SYSTEM],
    "unknown role": [{"role": "wizard", "content": "Hm."}],
    "no role": [{"content": "Hm."}],
    "no content": [{"role": "user"}],
    "null content": [{"role": "user", "content": None}],
    "number": [{"role": "user", "content": 5}],
    "nothing": [{}],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather in a <city> & its "region".',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city.", "enum": ["Köln", "Oslo"]},
                    "days": {"type": "integer", "description": "How many days.", "default": 1},
                    "places": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}},
                    "unit": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["city"],
            },
            "return": {"type": "string", "description": "Text."},
        },
    },
    {
        "type": "function",
        "function": {"name": "stop", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]
DOCUMENTS = [{"title": "Weather", "text": "It rains."}, {"doc_id": 2, "title": "Ünï", "text": "Sun."}]
# What templates read beside the messages; an argument is given to those that read it.
ARGUMENT_VALUES: dict[str, list[Any]] = {
    "enable_thinking": [True, False],
    "thinking": [True, False],
    "reasoning_effort": ["low", "high"],
    "thinking_budget": [512],
    "date_string": ["26 Jul 2024"],
    "strftime_now": [],
    "builtin_tools": [["wolfram_alpha"]],
    "tools_in_user_message": [False],
    "model_identity": ["You are a test."],
    "preserve_thinking": [True],
    "custom_instructions": ["Be brief."],
}
