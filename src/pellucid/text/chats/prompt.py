"""Messages -> ids: the one place where a chat becomes a prompt.

**The template owns the special tokens.** Its text is always encoded without adding any, so a BOS is there exactly if
the template writes it, as in the reference. The text that `tokenize=False` gives knows that it is a rendered chat
(`ChatText`): `tok(text)` adds nothing to it either. So the same chat has the same ids on both ways, and a doubled BOS
cannot come about.

Beyond the reference: an argument that the template does not read is an error, since a misspelt `enable_thinking` is a
silent mistake; tools and documents for a template that does not read them are said (once); marks of the assistant's
tokens come from offsets, so they are right where a token begins with a space.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pellucid.errors import ArgumentError, InputError, nearest
from pellucid.text.chats import named, untrusted
from pellucid.text.chats.schema import get_json_schema
from pellucid.text.encoding import BatchEncoding, as_tensor

if TYPE_CHECKING:
    from pellucid.text.chats.template import Rendered
    from pellucid.text.tokenizer import Tokenizer

TAG = "CONTINUE_FINAL_MESSAGE_TAG "
REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing under three names; templates read the first
STANDARD = {"messages", "tools", "documents", "add_generation_prompt"}


class ChatText(str):
    """A rendered chat. A tokenizer adds no special tokens to it: the template has written them."""


def holds_chats(inputs: Sequence[Any]) -> bool:
    """Whether a tokenizer is given rendered chats.

    Raises:
        InputError: chats and other texts in one batch.
    """
    if ChatText not in map(type, inputs):
        return False
    found = sum(type(each) is ChatText for each in inputs)
    if found < len(inputs):
        raise InputError("rendered chats and other texts in one batch", next="encode them apart, or all as str(text)")
    return True


class Chats:
    """What a tokenizer does with messages."""

    chat_template: named.Templates

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """The template that a call with these arguments takes: its text or name, "tool_use" with tools, "default"."""
        return named.choose(self.chat_template, chat_template, tools is not None)

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        sanitize_control_tokens: bool = False,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **template_kwargs: Any,
    ) -> Any:
        """A chat as the model was trained to read it: ids, or the text with `tokenize=False`.

        Args:
            conversation: messages, `[{"role": "user", "content": "Hello"}, …]`, or a list of conversations. Content is
                a text or a list of parts, `{"type": "text", "text": …}`; keys whose value is None count as absent.
            tools: JSON schemas, or functions, which become schemas (`get_json_schema`).
            documents: dicts, usually with `title` and `text`.
            chat_template: a template, or the name of one of several.
            add_generation_prompt: end with what begins an answer.
            continue_final_message: leave the last message open: True for its content, or the name of a field.
            sanitize_control_tokens: special tokens in messages, tools, documents and template arguments are encoded as
                text. For what others wrote; only the template can then give orders.
            padding, truncation, max_length, return_tensors: see a call of the tokenizer.
            return_dict: False for the ids alone.
            return_assistant_tokens_mask: `assistant_masks`, 1 for what the template's `{% generation %}` blocks wrote.
            tokenizer_kwargs: more arguments for the tokenizer.
            template_kwargs: variables that the template reads, such as `enable_thinking`.

        Raises:
            ArgumentError: arguments that the template does not read, or that exclude each other.
            InputError: what was given is no conversation.
            TemplateError: the template refuses the messages, or is broken.
        """
        tok = cast("Tokenizer", self)
        source = self.get_chat_template(chat_template, tools)
        chats, batched = conversations(conversation)
        _check_modes(tokenize, return_dict, return_assistant_tokens_mask, sanitize_control_tokens)
        _check_ends(add_generation_prompt, continue_final_message, return_assistant_tokens_mask)
        _check_documents(documents)
        schemas = None if tools is None else [tool_schema(tool) for tool in tools]
        _check_read(tok, source, template_kwargs, tools=tools, documents=documents)
        fixed = {**tok.special_tokens_map, "add_generation_prompt": add_generation_prompt}

        def rendered(chats: Any, tools: Any, documents: Any, own: Mapping[str, Any]) -> list[Rendered]:
            shared = {**fixed, "tools": tools, "documents": documents, **own}
            return [_render(source, chat, shared, continue_final_message) for chat in chats]

        given = (chats, schemas, documents, template_kwargs)
        found = rendered(*given)
        if not tokenize:
            texts = [ChatText(each.text) for each in found]
            return texts if batched else texts[0]
        options = dict(tokenizer_kwargs or {}, padding=padding, truncation=truncation, max_length=max_length)
        options["return_tensors"] = return_tensors
        if sanitize_control_tokens:
            given = _plain(given)
            marks = untrusted.marks(tok, source, given)
            settled = [*map(marks.settle, rendered(*marks.put(given)), found)]
            spans = [each for _, each in settled]
            out = _encode_safely(tok, marks, [plain for plain, _ in settled], batched, options)
        else:
            spans = [each.spans for each in found]
            out = _encode(tok, [each.text for each in found], batched, options)
        if not return_dict:
            return out["input_ids"]
        if return_assistant_tokens_mask:
            masks = assistant_masks(out, spans, source)
            kept = masks if batched or return_tensors is not None else masks[0]
            out["assistant_masks"] = as_tensor("assistant_masks", kept, return_tensors) if return_tensors else kept
        return out

    def encode_message_with_chat_template(
        self,
        message: Mapping[str, Any],
        conversation_history: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> list[int]:
        """The ids that one more message adds to a conversation: those after the longest common beginning."""
        if "add_generation_prompt" in options:
            raise ArgumentError("add_generation_prompt adds no message", next="apply_chat_template")
        history = list(conversation_history or [])
        whole: list[int] = self.apply_chat_template([*history, message], return_dict=False, **options)
        before = self.apply_chat_template(history, return_dict=False, **options) if history else []
        common = next((i for i, (a, b) in enumerate(zip(before, whole)) if a != b), min(len(before), len(whole)))
        return whole[common:]


ARGUMENTS = tuple(Chats.apply_chat_template.__annotations__)


def _plain(given: Any) -> Any:
    """What the template would see of objects, so that nothing in them is overlooked."""
    from pellucid.text.chats import sandbox, template

    return template.plain(given, sandbox.Budget())


def _encode(tok: Tokenizer, texts: list[str], batched: bool, options: Mapping[str, Any]) -> BatchEncoding:
    """The ids, without adding special tokens."""
    if "add_special_tokens" in options:
        raise ArgumentError(
            "add_special_tokens in tokenizer_kwargs", next="leave it out: the template owns the special tokens"
        )
    return tok(texts if batched else texts[0], add_special_tokens=False, **options)


def _encode_safely(
    tok: Tokenizer, marks: untrusted.Marks, plain: list[untrusted.Plain], batched: bool, options: Mapping[str, Any]
) -> BatchEncoding:
    """The same, with only the template's special tokens as tokens."""
    twin = untrusted.twin(tok, marks.tokens, [each.text for each in plain])
    texts = [twin.hide(each) for each in plain]
    out = _encode(twin.tok, texts, batched, options)
    twin.check(texts, out)
    return out


def _check_read(tok: Tokenizer, source: str, arguments: Mapping[str, Any], **offered: Any) -> None:
    """Refuse arguments that the template does not read; say that tools or documents are not read."""
    asked = [*arguments, *(name for name, value in offered.items() if value)]
    if not asked:
        return
    from pellucid.text.chats import template

    read, asked_for = template.names(source)
    for name in arguments:
        if name not in read and name not in tok.special_tokens_map:
            known = sorted(asked_for - STANDARD - tok.special_tokens_map.keys())
            reads = f"it reads: {', '.join(known)}" if known else "it reads no arguments of its own"
            raise ArgumentError(
                f"the chat template does not read {name!r}",
                where="apply_chat_template",
                next=nearest(name, [*known, *ARGUMENTS]) or reads,
            )
    for name, value in offered.items():
        if value and name not in read:
            tok._say(f"the chat template does not read {name!r}: the model will not see them")


# ---- what is given ----------------------------------------------------------------------------------------------


def conversations(given: Any) -> tuple[list[list[dict[str, Any]]], bool]:
    """Conversations as lists of dicts, and whether there was a batch of them. None is as good as absent."""
    if not isinstance(given, list | tuple):
        given = getattr(given, "messages", given)
    if not isinstance(given, list | tuple):
        raise InputError(
            f"a conversation is a list of messages, not {given!r:.60} ({type(given).__name__})",
            next='[{"role": "user", "content": "Hello"}]',
        )
    if not given:
        raise InputError("an empty conversation", next="give at least one message")
    batched = isinstance(given[0], list | tuple) or hasattr(given[0], "messages")
    chats: Any = [getattr(chat, "messages", chat) for chat in given] if batched else [given]
    return [[_message(each) for each in chat] for chat in chats], batched


def _message(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        from pellucid.text.chats import template

        made = template.as_dict(given)
        if made is None:
            raise InputError(
                f"a message is a dict, not {given!r:.60} ({type(given).__name__})",
                next='{"role": "user", "content": "Hello"}',
            )
        given = made
    return {key: value for key, value in given.items() if value is not None}


def tool_schema(tool: Any) -> Any:
    """A tool's JSON schema: as it is, or made from a function."""
    if isinstance(tool, Mapping):
        return tool
    if callable(tool) and not isinstance(tool, type):
        return get_json_schema(tool)
    raise InputError(
        f"a tool is a JSON schema (a dict) or a function, not {tool!r:.60} ({type(tool).__name__})",
        next="a function with type hints and a docstring, or its schema",
    )


def _check_documents(documents: Any) -> None:
    for each in documents or ():
        if not isinstance(each, Mapping):
            raise InputError(
                f"a document is a dict, not {each!r:.60} ({type(each).__name__})", next='{"title": …, "text": …}'
            )


def _check_modes(tokenize: bool, as_dict: bool, mask: bool, sanitize: bool) -> None:
    if mask and not (as_dict and tokenize):
        raise ArgumentError(
            "return_assistant_tokens_mask without a dict of ids", next="tokenize=True, return_dict=True"
        )
    if sanitize and not tokenize:
        raise ArgumentError("sanitize_control_tokens without ids: no text can tell tokens apart", next="tokenize=True")


def _check_ends(prompt: bool, continued: bool | str, mask: bool) -> None:
    if continued and prompt:
        raise ArgumentError(
            "continue_final_message and add_generation_prompt",
            next="the one leaves the last message open, the other begins a new one",
        )
    if continued and mask:
        raise ArgumentError("continue_final_message and return_assistant_tokens_mask", next="one of them")


# ---- rendering --------------------------------------------------------------------------------------------------


def _render(source: str, chat: list[dict[str, Any]], shared: Mapping[str, Any], continued: bool | str) -> Rendered:
    from pellucid.text.chats import template

    chat = [_with_reasoning(message) for message in chat]
    if not continued:
        return template.render(source, {"messages": chat, **shared})
    field = continued if isinstance(continued, str) else "content"
    final = _open(chat, field, source)
    text = template.render(source, {"messages": chat, **shared}).text
    if final.strip() not in text or TAG.strip() not in text:
        raise InputError(
            f"the template changes the end of the message to continue: {final.strip()!r:.80}",
            where="continue_final_message",
            next="continue a text that it keeps as it is, or render with add_generation_prompt and append the text",
        )
    at = text.rindex(TAG.strip())
    kept = text[:at] if text[at : at + len(TAG)] == TAG else text[:at].rstrip()  # the template trims: so the end, too
    return template.Rendered(kept, [])


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Reasoning under each name that a template may look for."""
    found = next((message[key] for key in REASONING if message.get(key) is not None), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def _open(chat: list[dict[str, Any]], field: str, source: str) -> str:
    """Put a tag where the last message is to be continued; the text before it."""
    message, where = chat[-1], "continue_final_message"
    final = message.get(field)
    if final is None:
        raise InputError(f"the last message has no {field!r} to continue: {sorted(message)}", where=where)
    fields = [each for each in REASONING if message.get(each) == final] if field in REASONING else [field]
    if not any(each in source for each in fields):
        raise ArgumentError(f"the chat template does not read {field!r} of a message", where=where)
    if isinstance(final, list | tuple):
        parts = [dict(part) if isinstance(part, Mapping) else part for part in final]
        part = next((each for each in reversed(parts) if isinstance(each, dict) and "text" in each), None)
        if part is None:
            raise InputError("the last message has no text part to continue", where=where)
        text = part["text"]
        part["text"] = text + TAG
        chat[-1] = {**message, field: parts}
        return str(text)
    chat[-1] = {**message, **dict.fromkeys(fields, final + TAG)}
    return str(final)


def assistant_masks(out: BatchEncoding, spans: Sequence[list[tuple[int, int]]], source: str) -> list[list[int]]:
    """1 for each token that holds a character of a generation block, by row."""
    if not re.search(r"\{%[-+]?\s*generation\b", source):
        warnings.warn("the chat template marks no assistant tokens ({% generation %}): the mask is 0", stacklevel=3)
    rows = out.encodings or []
    samples = out.get("overflow_to_sample_mapping")
    samples = range(len(rows)) if samples is None else [int(each) for each in samples]
    return [_mask(row.offsets, spans[sample]) for row, sample in zip(rows, samples)]


def _mask(offsets: Sequence[tuple[int, int]], spans: list[tuple[int, int]]) -> list[int]:
    return [int(any(start < b and a < end for a, b in spans)) if start < end else 0 for start, end in offsets]
