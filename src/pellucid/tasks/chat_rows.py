"""Texts inside a model's chat template, as rows: what rerankers and sentence models read that were made of chat models.

A text is a user's message, a pair are messages of a query and a document, and a prompt is the system's. What is too
long is cut on the right, but for the words with which the template ends: the model answers behind them.
Source: sentence-transformers 6.2, https://sbert.net/docs/cross_encoder/usage/custom_models.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pellucid.errors import PellucidError
from pellucid.tasks.rows import Row
from pellucid.text.chats.template import names
from pellucid.text.tokenizer import Tokenizer

PAIR = ("query", "document")
OF_PARTS = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")  # a template that reads parts
PROBES = (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))  # one pair, and each half changed
FILLERS = ("0", "1 2 3 4")  # that end in different tokens


@dataclass(frozen=True)
class Rendering:
    """How texts become messages.

    Args:
        parts: whether a message's content is a list of parts, or the text itself.
        options: variables of the template.
    """

    parts: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def chat(self, prompt: str, said: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Messages of roles and texts, behind a prompt where there is one."""
        given = [*([("system", prompt)] if prompt else []), *said]
        return [
            {"role": role, "content": [{"type": "text", "text": text}] if self.parts else text} for role, text in given
        ]

    def for_task(self, tokenizer: Tokenizer, task: str | None) -> Rendering:
        """The same, with the task ("query", "document" …) as a variable of the template, where that reads it."""
        if task is None or "task" in self.options or "task" not in names(tokenizer.get_chat_template()).read:
            return self
        return replace(self, options={**self.options, "task": task})

    def of_pair(self, pair: tuple[str, str], prompt: str = "") -> list[dict[str, Any]]:
        """Messages of a query and a document."""
        return self.chat(prompt, list(zip(PAIR, pair)))

    def rows(self, tokenizer: Tokenizer, chats: Sequence[list[dict[str, Any]]], longest: int | None) -> list[Row]:
        """A row for each chat, cut to so many tokens."""
        return [self._cut(tokenizer, chat, longest, ids) for chat, ids in zip(chats, self._ids(tokenizer, chats))]

    def _ids(self, tokenizer: Tokenizer, chats: Sequence[list[dict[str, Any]]]) -> list[list[int]]:
        if not chats:
            return []
        found: list[list[int]] = tokenizer.apply_chat_template(
            list(chats), return_dict=False, tokenizer_kwargs={"verbose": False}, **self.options
        )
        return found

    def _cut(self, tokenizer: Tokenizer, chat: list[dict[str, Any]], longest: int | None, ids: list[int]) -> Row:
        if longest is None or len(ids) <= longest:
            return Row(ids)
        end = self._end(tokenizer, chat)[-longest:]
        return Row([*ids[: longest - len(end)], *end], dropped=len(ids) - longest)

    def _end(self, tokenizer: Tokenizer, chat: list[dict[str, Any]]) -> list[int]:
        """The tokens that the template writes behind the last text: those that two chats of other texts share."""

        def filled(filler: str) -> list[dict[str, Any]]:
            content = [{"type": "text", "text": filler}] if self.parts else filler
            return [each if each["role"] == "system" else {**each, "content": content} for each in chat]

        one, two = self._ids(tokenizer, [filled(filler) for filler in FILLERS])
        count = next((n for n, (a, b) in enumerate(zip(reversed(one), reversed(two))) if a != b), 0)
        return one[len(one) - count :]

    def carries_pairs(self, tokenizer: Tokenizer) -> bool:
        """Whether the template writes both a query and a document: whether its text changes with each of them."""
        try:
            base, *others = [
                tokenizer.apply_chat_template(self.of_pair(pair), tokenize=False, **self.options) for pair in PROBES
            ]
        except PellucidError:
            return False
        return base not in others


def guessed(tokenizer: Tokenizer) -> Rendering | None:
    """Of a tokenizer whose folder says nothing: in its chat template, if it has one."""
    template = tokenizer.chat_template
    if template is None:
        return None
    return Rendering(parts=not isinstance(template, str) or any(sign in template for sign in OF_PARTS))
