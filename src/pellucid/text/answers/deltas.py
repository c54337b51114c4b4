"""What an answer is made of, in pieces as they come and as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pellucid.text.answers.values import dumps


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for. `raw` is how it wrote it."""

    id: str
    name: str
    arguments: dict[str, Any]
    raw: str


@dataclass(frozen=True)
class Malformed:
    """Text that began as a tool call and cannot be read as one. `index`: the call that was begun, if it was."""

    text: str
    reason: str
    index: int | None = None


@dataclass(frozen=True)
class Content:
    text: str


@dataclass(frozen=True)
class Reasoning:
    text: str


@dataclass(frozen=True)
class CallStart:
    """The name of call `index` is known; its arguments follow."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Arguments:
    """A piece of the arguments of call `index`: JSON, once all pieces are there."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnd:
    """Call `index` is complete. A call that is begun ends in this or in a `Malformed`."""

    index: int
    call: ToolCall


Delta = Content | Reasoning | CallStart | Arguments | CallEnd | Malformed


def joined(deltas: list[Delta]) -> list[Delta]:
    """The same with neighbours of one kind as one."""
    out: list[Delta] = []
    for each in deltas:
        last = out[-1] if out else None
        if isinstance(each, Content) and isinstance(last, Content):
            out[-1] = Content(last.text + each.text)
        elif isinstance(each, Reasoning) and isinstance(last, Reasoning):
            out[-1] = Reasoning(last.text + each.text)
        elif isinstance(each, Arguments) and isinstance(last, Arguments) and each.index == last.index:
            out[-1] = Arguments(each.index, last.text + each.text)
        else:
            out.append(each)
    return out


@dataclass(frozen=True)
class Answer:
    """What the model said, thought, and wants to be called."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    malformed: tuple[Malformed, ...] = ()

    @staticmethod
    def of(deltas: Iterable[Delta]) -> Answer:
        """The answer that the deltas are pieces of."""
        found = list(deltas)
        return Answer(
            content="".join(each.text for each in found if isinstance(each, Content)),
            reasoning="".join(each.text for each in found if isinstance(each, Reasoning)),
            tool_calls=tuple(each.call for each in found if isinstance(each, CallEnd)),
            malformed=tuple(each for each in found if isinstance(each, Malformed)),
        )

    def to_message(self, *, json_arguments: bool = True) -> dict[str, Any]:
        """The message as OpenAI's interface has it, to be sent or appended to the talk.

        json_arguments: arguments as a JSON string, as clients expect; False gives dicts, as templates expect.

        Text that is no readable call stays visible: it is appended to the content.
        """
        content = "\n".join(each for each in (self.content, *(bad.text for bad in self.malformed)) if each)
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if self.tool_calls else "")}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": dumps(call.arguments) if json_arguments else call.arguments,
                    },
                }
                for call in self.tool_calls
            ]
        return message
