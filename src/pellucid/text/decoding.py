"""Ids to text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import decoders

from pellucid.errors import InputError, strict
from pellucid.text import convert
from pellucid.text.vocabulary import Vocabulary, plain

# WordPiece puts spaces around punctuation; this takes them away, in this order (transformers 5.23).
CLEAN_UP = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'"}
CLEAN_UP |= {f" {ending}": ending for ending in ("n't", "'m", "'s", "'ve", "'re")}


class Decoding(Vocabulary):
    """What a tokenizer does with ids."""

    name_or_path: str
    clean_up_tokenization_spaces: bool

    @strict
    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
    ) -> Any:
        """The text of ids: an int, a list, a tensor; a list of texts for a list of lists.

        Ids without a token (a model's embedding may be larger than its vocabulary) give nothing.
        `spaces_between_special_tokens` is accepted: the Rust side puts no spaces of its own around special tokens.
        """
        ids = token_ids
        if type(ids) is not list or not ids or type(ids[0]) is not int:  # most calls give a list of ids
            ids = plain(ids["input_ids"] if isinstance(ids, Mapping) else ids)
        if isinstance(ids, list | tuple) and ids and isinstance(ids[0], list | tuple):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        ids = [ids] if isinstance(ids, int) else ids
        with convert.rust_errors(self.name_or_path):
            try:
                text: str = self.rust.decode(ids, skip_special_tokens=skip_special_tokens)
            except (TypeError, OverflowError):
                raise _no_ids(ids) from None
        return self.clean_up_tokenization(text) if self.cleans_up(clean_up_tokenization_spaces) else text

    @strict
    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
    ) -> list[str]:
        """`decode` of each row."""
        sequences = sequences["input_ids"] if isinstance(sequences, Mapping) else sequences
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in plain(sequences)]

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """Without the spaces that WordPiece puts before punctuation and endings."""
        for spaced, tight in CLEAN_UP.items():
            text = text.replace(spaced, tight)
        return text

    def cleans_up(self, asked: bool | None = None) -> bool:
        """Whether `decode` cleans up: if asked or configured; never for BPE, whose spaces are the text."""
        wanted = self.clean_up_tokenization_spaces if asked is None else asked
        return bool(wanted) and type(self.rust.model).__name__ != "BPE"

    @property
    def decoder(self) -> decoders.Decoder | None:
        """The Rust decoder."""
        return self.rust.decoder

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens, special ones included."""
        decoder = self.rust.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)


def _no_ids(ids: Any) -> InputError:
    """What is wrong with ids that cannot be decoded."""
    bad = ids
    if isinstance(ids, list | tuple):
        bad = next((id for id in ids if not isinstance(id, int) or not 0 <= id < 2**32), ids)
    return InputError(f"cannot decode {bad!r} ({type(bad).__name__}): ids are whole numbers from 0")
