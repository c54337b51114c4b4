"""Streamers: text as it is generated, printed or handed to another thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from queue import Queue
from typing import TYPE_CHECKING, Any

import torch

from pellucid.errors import ArgumentError
from pellucid.text.stream import Stream
from pellucid.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pellucid.engine.job import Job


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


class _Queued(TextStreamer):
    """Hands the text on to a reader that waits for it.

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
        self._open()

    def _open(self) -> None:
        """Makes what the reader waits at."""
        raise NotImplementedError

    def _hand(self, item: object) -> None:
        """Into the queue; called in the thread that generates."""
        raise NotImplementedError

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Into the queue."""
        if text:
            self._hand(text)
        if stream_end:
            self._hand(self._END)


class TextIteratorStreamer(_Queued):
    """The text as an iterator, for a reader in another thread than `generate`."""

    def _open(self) -> None:
        self.text_queue: Queue[object] = Queue()

    def _hand(self, item: object) -> None:
        self.text_queue.put(item)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        value = self.text_queue.get(timeout=self.timeout)
        if value is self._END:
            raise StopIteration
        assert isinstance(value, str)
        return value


class AsyncTextIteratorStreamer(_Queued):
    """The text as an asynchronous iterator, for a coroutine beside the thread that `generate` runs in.

        streamer = AsyncTextIteratorStreamer(tokenizer)
        Thread(target=model.generate, kwargs={**inputs, "streamer": streamer}).start()
        async for text in streamer: …

    Made where the loop of that coroutine runs. `model.stream` needs no thread of yours.
    """

    def _open(self) -> None:
        self.text_queue: asyncio.Queue[object] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def _hand(self, item: object) -> None:
        self.loop.call_soon_threadsafe(self.text_queue.put_nowait, item)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        value = await asyncio.wait_for(self.text_queue.get(), self.timeout)
        if value is self._END:
            raise StopAsyncIteration
        assert isinstance(value, str)
        return value


class Streaming:
    """Hands a streamer the prompts, [B, T], and then the tokens of each step, [R], rows in the order of the result.

    A row that ended goes on with pads, until all have ended. Rows may come to a step at different times; the streamer
    gets it when all are there.
    """

    def __init__(self, streamer: Any, before: Sequence[Sequence[int]], jobs: Sequence[Job], pad: int) -> None:
        if not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            what = f"streamer is a {type(streamer).__name__}"
            raise ArgumentError(what, where="streamer", next="use TextStreamer or TextIteratorStreamer")
        self._streamer, self._pad = streamer, pad
        self._outputs = [output for job in jobs for output in job.outputs]
        self._steps = 0
        width = max(map(len, before))
        streamer.put(torch.tensor([[*[pad] * (width - len(row)), *row] for row in before]))

    def flush(self) -> None:
        """Hands on what is complete."""
        while all(output.finish or len(output.ids) > self._steps for output in self._outputs):
            if not any(len(output.ids) > self._steps for output in self._outputs):
                return
            at = self._steps
            self._steps += 1
            tokens = [output.ids[at] if at < len(output.ids) else self._pad for output in self._outputs]
            self._streamer.put(torch.tensor(tokens))

    def end(self) -> None:
        """There is no more."""
        self.flush()
        self._streamer.end()


def _flat(value: Any) -> Iterable[int]:
    """Ids of one sequence from a tensor or a list, with or without a batch of one around it."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, int):
        return [value]
    if value and isinstance(value[0], list):
        if len(value) > 1:
            what = f"{len(value)} sequences for a streamer of one"
            raise ArgumentError(what, where="streamer", next="use model.stream(prompts, tokenizer=…)")
        return list(value[0])
    return list(value)


__all__ = ["AsyncTextIteratorStreamer", "TextIteratorStreamer", "TextStreamer"]
