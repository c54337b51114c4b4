"""What a tokenizer call returns: a dict of ids and masks that still knows which characters they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from tokenizers import Encoding

from pellucid.errors import ArgumentError, InputError


class CharSpan(NamedTuple):
    """Characters `start` to `end` (not included) of the text."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens `start` to `end` (not included)."""

    start: int
    end: int


class BatchEncoding(dict[str, Any]):
    """`enc["input_ids"]` or `enc.input_ids`; `model(**enc)`; `enc[0]` is the Rust encoding of the first text.

    The methods that map between characters, words and tokens take `(index)` in the first text, or
    `(row, index)`. They need the encodings that the tokenizer made: not there after `pad` of plain lists.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Encoding | Sequence[Encoding] | None = None,
        tensor_type: Any = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        super().__init__(data or {})
        self._encodings = [encoding] if isinstance(encoding, Encoding) else None if encoding is None else list(encoding)
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, int):
            return self._row(key)
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        return super().__getitem__(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self._encodings, None, False, self._n_sequences)

    def copy(self) -> BatchEncoding:
        return BatchEncoding(self, self._encodings, n_sequences=self._n_sequences)

    @property
    def data(self) -> dict[str, Any]:
        """The ids and masks."""
        return self

    @property
    def encodings(self) -> list[Encoding] | None:
        return self._encodings

    @property
    def is_fast(self) -> bool:
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for texts, 2 for pairs."""
        if self._n_sequences is None and self._encodings:
            return self._encodings[0].n_sequences
        return self._n_sequences

    def tokens(self, batch_index: int = 0) -> list[str]:
        return self._row(batch_index).tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The word each token belongs to; None for special tokens."""
        return self._row(batch_index).word_ids

    def words(self, batch_index: int = 0) -> list[int | None]:
        """Version 4's name for `word_ids`."""
        return self.word_ids(batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """0 for tokens of the text, 1 for tokens of the pair; None for special tokens."""
        return self._row(batch_index).sequence_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        encoding, token = self._at(batch_or_token_index, token_index)
        return encoding.token_to_sequence(token)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        encoding, token = self._at(batch_or_token_index, token_index)
        found = encoding.token_to_word(token)
        return found[1] if isinstance(found, tuple) else found

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        encoding, token = self._at(batch_or_token_index, token_index)
        found = encoding.token_to_chars(token)
        # older Rust sides answer (sequence, (start, end))
        span = found[1] if found is not None and isinstance(found[1], tuple) else found
        return CharSpan(*span) if span is not None else None

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        encoding, char = self._at(batch_or_char_index, char_index)
        return encoding.char_to_token(char, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        encoding, char = self._at(batch_or_char_index, char_index)
        return encoding.char_to_word(char, sequence_index)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        encoding, word = self._at(batch_or_word_index, word_index)
        found = encoding.word_to_tokens(word, sequence_index)
        return TokenSpan(*found) if found is not None else None

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        encoding, word = self._at(batch_or_word_index, word_index)
        found = encoding.word_to_chars(word, sequence_index)
        return CharSpan(*found) if found is not None else None

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Every tensor moved to `device`, in place; other values stay."""
        for name, value in self.items():
            if hasattr(value, "to"):
                self[name] = value.to(device, non_blocking=non_blocking)
        return self

    def convert_to_tensors(self, tensor_type: Any = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Every value as a tensor, in place. `tensor_type` is "pt" or "np"; None changes nothing."""
        if isinstance(tensor_type, Enum):
            tensor_type = tensor_type.value
        if tensor_type is not None:
            for name, value in self.items():
                self[name] = as_tensor(name, [value] if prepend_batch_axis else value, tensor_type)
        return self

    def _row(self, index: int) -> Encoding:
        if self._encodings is None:
            raise InputError(
                "these ids did not come from a tokenizer call, so characters and words are not known",
                next="call the tokenizer on the text",
            )
        if not -len(self._encodings) <= index < len(self._encodings):
            raise InputError(f"row {index} of a batch of {len(self._encodings)}")
        return self._encodings[index]

    def _at(self, row_or_index: int, index: int | None) -> tuple[Encoding, int]:
        """(row, index) from one number, counted in row 0, or from two."""
        encoding = self._row(0 if index is None else row_or_index)
        at = row_or_index if index is None else index
        return encoding, at if at >= 0 else at + len(encoding)


def as_tensor(name: str, value: Any, kind: str) -> Any:
    """Nested lists as a torch tensor ("pt") or numpy array ("np"); of int64, also where there is nothing in them."""
    if kind not in ("pt", "np"):
        raise ArgumentError(f"return_tensors={kind!r}", next="use 'pt', 'np' or None")
    if type(value).__module__.split(".")[0] == "torch" and kind == "pt":
        return value
    import numpy

    try:
        array = numpy.asarray(value)
    except (ValueError, TypeError) as e:
        lengths = sorted({len(row) for row in value if isinstance(row, list)}) if isinstance(value, list) else []
        raise InputError(
            f"{name!r} cannot be one tensor: " + (f"its rows have lengths {lengths}" if len(lengths) > 1 else str(e)),
            next="pass padding=True, and truncation=True for texts of any length",
        ) from None
    if array.dtype == object or array.dtype.kind in "US":
        raise InputError(f"{name!r} cannot be a tensor: it holds {value!r:.60}", next="leave it out, or take lists")
    if array.size == 0:
        array = array.astype(numpy.int64)
    if kind == "np":
        return array
    import torch

    # torch.tensor takes 34 ms for 1000 lists of 64 ids, numpy 1.5; floats get torch's default type, as from a list
    return torch.from_numpy(array) if array.dtype.kind in "iub" else torch.tensor(value)
