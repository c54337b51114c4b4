"""Ids in, text out, as they come: for printing while a model generates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pellucid.text.stops import Stops

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoders write for the bytes of a character that is not complete
BYTE_PIECE = re.compile("<0x[0-9A-Fa-f]{2}>")  # sentencepiece's byte fallback
# A decoder treats the first token of a text in its own way, and a character is at most 4 bytes, so at most 4
# tokens: with this many tokens before it, a token's own text does not depend on what came earlier.
CONTEXT = 6


class Stream:
    """`add` every id, then `end`: the strings together are `tokenizer.decode(ids)`, cut at the first stop string.

        stream = Stream(tokenizer, stop=["\\n\\n", "User:"], skip_special_tokens=True)
        for id in ids:
            print(stream.add(id), end="")
            if stream.stopped:
                break
        print(stream.end())

    Never half a character, and nothing that a stop string could still begin with. An id costs one decoding of a dozen
    tokens, however long the text is. A run of byte pieces (sentencepiece) is decoded once, when it ends, because one
    wrong byte changes how the whole run is written.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: str | Iterable[str] = (),
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> None:
        """`stop`: strings that end the text; the first one to be complete does, and is not given out.

        Raises:
            ArgumentError: a stop string that is empty or no string.
        """
        self._tokenizer = tokenizer
        self._stops = Stops(stop)
        self._skipped = tokenizer.skipped_ids() if skip_special_tokens else frozenset()
        self._cleans = tokenizer.cleans_up(clean_up_tokenization_spaces)
        self._bytes = b'"ByteFallback"' in (tokenizer.decoder.__getstate__() if tokenizer.decoder is not None else b"")
        self._start()

    def _start(self) -> None:
        self._ids: list[int] = []  # at least the last CONTEXT given out, and those that wait
        self._before = ""  # their text, as far as it is given out
        self._raw = ""  # text that waits for `_clean`
        self._ended = False

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text, if one did; it stays until the next text begins."""
        return self._stops.stopped

    def add(self, id: int) -> str:
        """The text that is certain after this id; "" while a character is incomplete, and after a stop string."""
        if self._ended:
            self._start()
            self._stops.reset()
        if self._stops.stopped is not None:
            return ""
        id = int(id)
        piece = self._tokenizer.convert_ids_to_tokens(id)
        if piece is None or id in self._skipped:  # `decode` leaves these out
            return ""
        self._ids.append(id)
        if self._bytes and BYTE_PIECE.fullmatch(piece):
            return ""
        return self._stops.feed(self._clean(self._next(final=False), final=False))

    def end(self) -> str:
        """What is left, as `decode` writes it. The next id begins another text."""
        if self._ended or self._stops.stopped is not None:
            self._ended = True
            return ""
        self._ended = True
        return self._stops.feed(self._clean(self._next(final=True), final=True)) + self._stops.end()

    def _next(self, *, final: bool) -> str:
        """The text of the ids that wait, up to a last incomplete character."""
        after = self._decode(self._ids)
        if not final:
            after = after.removesuffix(UNFINISHED)
        text, self._before = after[len(self._before) :], after
        if len(self._ids) > 2 * CONTEXT:
            self._ids = self._ids[-CONTEXT:]
            self._before = self._decode(self._ids).removesuffix(UNFINISHED)
        return text

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.rust.decode(ids, skip_special_tokens=False) if ids else ""

    def _clean(self, text: str, *, final: bool) -> str:
        """Clean-up replaces at most four characters, a space first: cut where the last three have none."""
        if not self._cleans:
            return text
        self._raw += text
        cut = len(self._raw)
        while not final and cut and (cut < 3 or " " in self._raw[cut - 3 : cut]):
            cut -= 1
        ready, self._raw = self._raw[:cut], self._raw[cut:]
        return self._tokenizer.clean_up_tokenization(ready)
