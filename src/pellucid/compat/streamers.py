"""Streamers: text as it is generated, printed or handed to another thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import Queue
from typing import Any

from pellucid.errors import InputError
from pellucid.text.stream import Stream
from pellucid.text.tokenizer import Tokenizer


class TextStreamer:
    """Prints a single sequence's text; never half a character.

    Args:
        skip_prompt: leave out what was given.
        skip_special_tokens: leave out tokens like `</s>`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_prompt: bool = False,
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self._options: dict[str, Any] = {
            "skip_special_tokens": skip_special_tokens,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        self._stream = Stream(tokenizer, **self._options)
        self._prompt_next = True

    def put(self, value: Any) -> None:
        """The prompt's ids first, then one id after the other."""
        ids = _flat(value)
        is_prompt, self._prompt_next = self._prompt_next, False
        if is_prompt and self.skip_prompt:
            return
        for token in ids:
            text = self._stream.add(token)
            if text:
                self.on_finalized_text(text)

    def end(self) -> None:
        """No more ids: what was held back comes out."""
        self.on_finalized_text(self._stream.end(), stream_end=True)
        self._stream = Stream(self.tokenizer, **self._options)
        self._prompt_next = True

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Where the text goes."""
        print(text, flush=True, end="\n" if stream_end else "")


class TextIteratorStreamer(TextStreamer):
    """The text as an iterator, for a reader in another thread than `generate`.

    Args:
        timeout: seconds to wait for the next piece; None for ever.
    """

    _END = object()

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_prompt: bool = False,
        timeout: float | None = None,
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> None:
        super().__init__(
            tokenizer,
            skip_prompt,
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
        self.timeout = timeout
        self.text_queue: Queue[object] = Queue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Into the queue."""
        if text:
            self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(self._END)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        value = self.text_queue.get(timeout=self.timeout)
        if value is self._END:
            raise StopIteration
        assert isinstance(value, str)
        return value


def _flat(value: Any) -> Iterable[int]:
    """Ids of one sequence from a tensor or a list, with or without a batch of one around it."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, int):
        return [value]
    if value and isinstance(value[0], list):
        if len(value) > 1:
            raise InputError(f"{len(value)} sequences for one streamer", where="streamer", next="stream one at a time")
        return list(value[0])
    return list(value)


__all__ = ["TextIteratorStreamer", "TextStreamer"]
