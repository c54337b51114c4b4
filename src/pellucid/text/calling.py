"""The Rust tokenizer, called with settings: lengths, padding, special tokens as text, and what is said about them.

The Rust library keeps settings as state of a tokenizer. Here a call's settings never touch the tokenizer that other
calls use: see `rows.with_settings`.
"""

from __future__ import annotations

import warnings
from typing import Any

from tokenizers import Encoding as RustEncoding
from tokenizers import Tokenizer as RustTokenizer

from pellucid.errors import ArgumentError, InputError
from pellucid.text import convert, rows
from pellucid.text.chats.prompt import holds_chats
from pellucid.text.rows import PADDINGS, SIDES, TRUNCATIONS, Padding, Settings, Truncation, one_of
from pellucid.text.vocabulary import Vocabulary

# A text of so many characters is more than any model reads. The Rust side needs 250 bytes of memory and up to 3
# microseconds a token, and its regular expressions give up at runs of about ten million characters.
LONGEST_TEXT = 1 << 24
KEPT = 16  # tokenizers with other settings; scripts use a few


class Calling(Vocabulary):
    """What every way from text to ids goes through. `Tokenizer.__init__` sets the attributes."""

    name_or_path: str
    model_input_names: list[str]
    model_max_length: int
    padding_side: str
    truncation_side: str
    longest_text: int  # characters; a longer text is refused
    _settled: dict[Settings, RustTokenizer]
    _said: set[str]

    @property
    def split_special_tokens(self) -> bool:
        """Whether special tokens in a text are taken for ordinary text, where a call does not say."""
        return self.rust.encode_special_tokens

    @split_special_tokens.setter
    def split_special_tokens(self, value: bool) -> None:
        self.rust.encode_special_tokens = bool(value)
        self._changed()

    def _encode(
        self, inputs: list[Any], settings: Settings, special: bool, words: bool, ids_only: bool = False
    ) -> list[RustEncoding]:
        """The Rust encodings; with nothing but ids and masks a quarter faster."""
        for i, row in enumerate(inputs):
            if len(row) > self.longest_text or not isinstance(row, str):
                self._check_longest(i, row)
        special = special and not holds_chats(inputs)
        if settings.truncation is not None:
            pair = bool(inputs) and isinstance(inputs[0], tuple)
            rows.check_room(settings.truncation, self.num_special_tokens_to_add(pair) if special else 0)
        rust = self._with(settings)
        encode = rust.encode_batch_fast if ids_only else rust.encode_batch
        with convert.rust_errors(self.name_or_path):
            try:
                return encode(inputs, add_special_tokens=special, is_pretokenized=words)
            except TypeError:
                rows.check_surrogates(inputs)
                raise
            except BaseException as e:  # a panic of the Rust side derives from nothing else
                if "Truncation error" in str(e):
                    raise ArgumentError(f"cannot truncate with {settings.truncation}: {e}") from None
                if "retry-limit" in str(e):
                    raise InputError(
                        "a run of millions of equal characters is too long for this tokenizer's regular expression",
                        next="encode the text in parts",
                    ) from None
                raise

    def _known(self, rows_of_ids: list[list[int]]) -> list[list[int]]:
        """Pieces that only merging needs count as the unknown token, see `formats.bpe.complete`."""
        first = self._behind
        if first is None:
            return rows_of_ids
        unknown, end = self.unk_token_id or 0, self.rust.get_vocab_size(with_added_tokens=False)
        return [[unknown if first <= id < end else id for id in row] for row in rows_of_ids]

    def _with(self, settings: Settings) -> RustTokenizer:
        """The Rust tokenizer with these settings: itself, or one that was made for them and never changes."""
        split = settings.split_special_tokens
        apart = split and rows.finds_whole_pieces(self.rust)
        if settings == (None, None, self.rust.encode_special_tokens) and not apart:
            return self.rust
        kept = self._settled  # one that `_changed` has put away is no longer read
        found = kept.get(settings)
        if found is None:
            bare = Settings(None, None, True)
            found = rows.with_settings(self._with(bare) if apart and settings != bare else self.rust, settings)
            if len(kept) >= KEPT:
                kept.clear()
            if not self._lent:
                kept[settings] = found
        return found

    def _changed(self) -> None:
        self._settled = {}

    def _settings(
        self,
        padding: bool | str,
        truncation: bool | str | None,
        max_length: int | None,
        stride: int,
        multiple: int | None,
        side: str | None,
        split: bool | None,
        verbose: bool,
    ) -> Settings:
        """What to truncate to, what to pad to."""
        padding, truncation = rows.value_of(padding), rows.value_of(truncation)
        if padding is False and not truncation and max_length is None:  # most calls
            return Settings(None, None, self._splits(split))
        one_of("padding", padding, PADDINGS)
        if truncation is None:
            truncation = max_length is not None and padding is False
        one_of("truncation", truncation, TRUNCATIONS)
        rows.whole_number("max_length", max_length, 0)
        rows.whole_number("pad_to_multiple_of", multiple, 1)
        pad, strategy = PADDINGS[padding], TRUNCATIONS[truncation]
        length = max_length if max_length is not None else self.model_max_length
        if length >= 1e20:
            for argument, given in (("truncation", strategy), ("padding", pad == "max_length" and pad)):
                if given and verbose:
                    self._say(f"{argument}={given!r} does nothing: no max_length, and model_max_length is unknown")
            strategy, pad = None, None if pad == "max_length" else pad
        if pad and max_length is not None and not strategy and pad != "max_length" and verbose:
            self._say("max_length does nothing beside padding=True without truncation; padding='max_length' pads to it")
        if strategy and pad and multiple and max_length and max_length % multiple:
            raise ArgumentError(f"max_length={max_length} is not a multiple of pad_to_multiple_of={multiple}")
        return Settings(
            Truncation(length, strategy, stride, self.truncation_side) if strategy else None,
            self._padding(length if pad == "max_length" else None, multiple, side) if pad else None,
            self._splits(split),
        )

    def _padding(self, length: int | None, multiple: int | None, side: str | None) -> Padding:
        side = side or self.padding_side
        one_of("padding_side", side, SIDES)
        token, id = self.pad_token, self.pad_token_id
        if id is None:
            roles = [role for role in ("eos_token", "unk_token") if getattr(self, f"{role}_id") is not None]
            id = getattr(self, f"{roles[0]}_id") if roles else 0
            token = self.rust.id_to_token(id) or ""
            self._say(f"no pad token: padding with {roles[0] if roles else 'id 0'} ({token!r}); set tok.pad_token")
        return Padding(length, multiple, side, id, token or "", self.pad_token_type_id)

    def _splits(self, asked: bool | None) -> bool:
        return self.rust.encode_special_tokens if asked is None else bool(asked)

    def _default(self, asked: bool | None, name: str) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _check_longest(self, i: int, row: Any) -> None:
        longest = max(map(len, rows.texts(row)), default=0)
        if longest > self.longest_text:
            raise InputError(
                f"text {i} has {longest:,} characters, more than {self.longest_text:,}",
                next="encode it in parts, line by line for example, or raise tok.longest_text (250 bytes a token)",
            )

    def _say_cut(self, encodings: list[RustEncoding], max_length: int | None, settings: Settings) -> None:
        """Once: what rows were cut to where no length was given. (A row that is too long is refused by the model.)"""
        if settings.truncation is None or max_length is not None or "cut" in self._said:
            return
        limit = settings.truncation.max_length
        if any(len(each) >= limit and each.overflowing for each in encodings):
            self._say(f"truncation without max_length: rows were cut to {limit} tokens, model_max_length", key="cut")

    def _say(self, what: str, key: str = "") -> None:
        """A warning, once for each tokenizer."""
        if (key or what) not in self._said:
            self._said.add(key or what)
            warnings.warn(what, UserWarning, stacklevel=5)
