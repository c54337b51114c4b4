"""What a tokenizer does with generated text: the call that people know from transformers, thin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.errors import ArgumentError, Unsupported

if TYPE_CHECKING:
    from pellucid.text.answers.formats import Format


class Answering:
    """Mixed into `Tokenizer`."""

    def parse_response(
        self,
        response: Any,
        schema: str | Format | None = None,
        *,
        prefix: Any = None,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
    ) -> Any:
        """The message that a generated text is: a dict with role, content, reasoning_content and tool_calls.

        Args:
            response: text decoded with special tokens, or ids; a list of texts or of lists of ids gives a list.
            schema: the name of a format (`pellucid.text.answers.FORMATS`) or a `Format`; None: the chat template tells.
            prefix: the prompt, as text or ids; for a list one for all or one for each. Templates begin the answer for
                the model, so it is needed; "" where there was none.
            tools: what the model could call; their schemas say which arguments are numbers.

        Raises:
            ArgumentError: no prefix; or not as many prefixes as responses; or a format that does not exist.
            Unsupported: transformers' `response_template`, a dict; formats are rows of a table here.
        """
        from pellucid.text.answers import parse, tokenizer_format

        if isinstance(schema, Mapping):
            raise Unsupported(
                "a response_template as a dict", where="parse_response(schema)", next="the name of a format, or None"
            )
        if prefix is None:
            raise ArgumentError(
                "parse_response without a prefix", where="prefix", next='the prompt, or "" where there was none'
            )
        format = tokenizer_format(self, schema)  # type: ignore[arg-type]
        texts, batched = self._texts(response)
        prompts, several = self._texts(prefix)
        if not several or not prompts:
            prompts = (prompts or [""]) * len(texts)
        if len(prompts) != len(texts):
            raise ArgumentError(f"{len(texts)} responses and {len(prompts)} prefixes", where="parse_response")
        schemas = _schemas(tools)
        found = [
            parse(text, format, tools=schemas, prompt_tail=prompt).to_message(json_arguments=False)
            for text, prompt in zip(texts, prompts, strict=True)
        ]
        return found if batched else found[0]

    def _texts(self, given: Any) -> tuple[list[str], bool]:
        """Texts, and whether a list of them was given. Ids are decoded with their special tokens."""
        if isinstance(given, str):
            return [given], False
        if isinstance(given, list | tuple) and (not given or isinstance(given[0], str)):
            return list(given), bool(given)
        decoded = self.decode(given, clean_up_tokenization_spaces=False)  # type: ignore[attr-defined]
        return (decoded, True) if isinstance(decoded, list) else ([decoded], False)


def _schemas(tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None) -> list[Mapping[str, Any]] | None:
    """Tools as `apply_chat_template` takes them: schemas, or functions whose docstrings describe them."""
    from pellucid.text.chats.schema import get_json_schema

    if tools is None:
        return None
    return [tool if isinstance(tool, Mapping) else get_json_schema(tool) for tool in tools]
