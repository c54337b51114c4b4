"""Tokenizers that put a language around a text: MBart, MBart-50, NLLB, M2M100, PLBart, SeamlessM4T, Marian.

`tok.src_lang = "de_DE"` changes what goes around every text from then on; `text_target=` in a call uses `tgt_lang`.
What stands where is in the class's row (`{lang}` in `single`); the attributes are those of transformers 5.23.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RustTokenizer

from pellucid.errors import ArgumentError, TokenizerError, nearest
from pellucid.text import convert, rows
from pellucid.text.classes import TokenizerClass
from pellucid.text.encoding import BatchEncoding
from pellucid.text.formats import sentencepiece
from pellucid.text.tokenizer import Tokenizer


class TranslationTokenizer(Tokenizer):
    """Made by `from_folder` for a class whose row says so."""

    _row: TokenizerClass
    _options: dict[str, Any]
    _src_lang: str | None
    tgt_lang: str | None

    def begin(self, folder: Path, row: TokenizerClass, options: Mapping[str, Any]) -> None:
        """What `from_folder` knows beyond the constructor."""
        self._row, self._options = row, dict(options)
        self._src_lang = _named(row, options.get("src_lang"))
        self.tgt_lang = _named(row, options.get("tgt_lang"))
        if self._src_lang is not None:  # a tokenizer.json has the language that it was saved with
            self.set_src_lang_special_tokens(self._src_lang)

    # ---- languages ----------------------------------------------------------------------------------------

    @property
    def lang_code_to_token(self) -> dict[str, str]:
        """The token of each language: "en" -> "__en__" for M2M100, the code itself for most."""
        return {code: self._row.layout.code.format(code) for code in self._codes()}

    @property
    def lang_code_to_id(self) -> dict[str, int]:
        """The id of each language."""
        return {code: self.convert_tokens_to_ids(token) for code, token in self.lang_code_to_token.items()}

    @property
    def id_to_lang_code(self) -> dict[int, str]:
        return {id: code for code, id in self.lang_code_to_id.items()}

    @property
    def lang_token_to_id(self) -> dict[str, int]:
        """The same by token."""
        return {token: self.convert_tokens_to_ids(token) for token in self.lang_code_to_token.values()}

    def get_lang_token(self, lang: str) -> str:
        """The token of a language; a token is its own."""
        known = self.lang_code_to_token
        token = lang if lang in known.values() else known.get(lang)
        if token is None and not known and self.rust.token_to_id(lang) is not None:
            token = lang
        if token is None and not known and self.rust.token_to_id(self._row.layout.code.format(lang)) is not None:
            token = self._row.layout.code.format(lang)
        if token is None or self.rust.token_to_id(token) is None:
            raise ArgumentError(
                f"no language {lang!r} in this vocabulary",
                next=nearest(str(lang), list(known)) or f"languages: {', '.join(list(known)[:12])} …",
            )
        return token

    def get_lang_id(self, lang: str) -> int:
        """The id of a language: `forced_bos_token_id` for what is to be translated into it."""
        id: int = self.convert_tokens_to_ids(self.get_lang_token(lang))
        return id

    def _codes(self) -> tuple[str, ...]:
        return sentencepiece.language_codes(self._row, self._options)

    # ---- what goes around a text ----------------------------------------------------------------------------

    @property
    def src_lang(self) -> str | None:
        """The language of the texts that come in."""
        return self._src_lang

    @src_lang.setter
    def src_lang(self, lang: str | None) -> None:
        self.set_src_lang_special_tokens(lang)
        self._src_lang = _named(self._row, lang)

    def set_src_lang_special_tokens(self, src_lang: str | None) -> None:
        """Put `src_lang` around every text from here on."""
        self._put(self.rust, src_lang)
        self._changed()

    def set_tgt_lang_special_tokens(self, lang: str | None) -> None:
        """Put `lang` around every text from here on, as it stands around what the model is to answer."""
        self._put(self.rust, lang)
        self._changed()

    def _switch_to_input_mode(self) -> None:
        self.set_src_lang_special_tokens(self.src_lang)

    def _switch_to_target_mode(self) -> None:
        self.set_tgt_lang_special_tokens(self._target_lang())

    def _target_lang(self) -> str | None:
        return self.tgt_lang if self.tgt_lang is not None else self.src_lang

    def _put(self, rust: RustTokenizer, lang: str | None) -> None:
        around = {} if lang is None else {"lang": self.get_lang_token(lang)}
        row = legacy(self._row) if self._options.get("legacy_behaviour") else self._row
        convert.post_processor(rust, row, self._options, self._roles | around)

    @property
    def prefix_tokens(self) -> list[int]:
        """Ids before a text."""
        ids = [part.id if part.text is None else None for part in self._frame(False).parts]
        return [id for id in ids[: ids.index(None)] if id is not None]

    @property
    def suffix_tokens(self) -> list[int]:
        """Ids behind a text."""
        ids = [part.id if part.text is None else None for part in self._frame(False).parts]
        return [id for id in ids[ids.index(None) :] if id is not None]

    @property
    def cur_lang_code(self) -> int | None:
        """The id of the language that goes around a text now."""
        languages = set(self.lang_code_to_id.values())
        return next((id for id in (*self.prefix_tokens, *self.suffix_tokens) if id in languages), None)

    cur_lang_id = cur_lang_code_id = cur_lang_code

    def _for_targets(self) -> Tokenizer:
        """A tokenizer for what the model is to answer, with the same vocabulary."""
        return self._around(self._target_lang())

    def reading(self, lang: str) -> TranslationTokenizer:
        """A tokenizer for texts in this language, with the same vocabulary; this one stays as it is."""
        found = self._around(lang)
        found._src_lang = _named(self._row, lang)
        return found

    def _around(self, lang: str | None) -> TranslationTokenizer:
        found = copy.copy(self)
        found.rust = rows.with_settings(self.rust, rows.Settings(None, None, self.split_special_tokens))
        found.rust.decoder = self.rust.decoder
        found._settled = {}
        self._put(found.rust, lang)
        return found

    def _build_translation_inputs(
        self, raw_inputs: Any, *, src_lang: str, tgt_lang: str, return_tensors: str | None = None, **options: Any
    ) -> BatchEncoding:
        """A call in `src_lang`, and the id that has to come first out of the model."""
        self.src_lang = src_lang
        made = self(raw_inputs, return_tensors=return_tensors, **options)
        made["forced_bos_token_id"] = self.get_lang_id(tgt_lang)
        return made


def legacy(row: TokenizerClass) -> TokenizerClass:
    """NLLB's first release: the language behind the text, as in MBart."""
    return replace(row, single="$A {eos} {lang}", pair="$A $B {eos} {lang}")


def _named(row: TokenizerClass, lang: str | None) -> str | None:
    """A language as the class writes it: SeamlessM4T and PLBart take "eng" for `__eng__`."""
    if lang is None or row.layout.codes == "M2M100" or "__" in lang:
        return lang
    return row.layout.code.format(lang)


class MarianTokenizer(Tokenizer):
    """Two sentencepiece files, one vocabulary: texts are cut by source.spm, targets by target.spm."""

    _target: Tokenizer | None = None

    def begin(self, folder: Path, row: TokenizerClass, options: Mapping[str, Any]) -> None:
        """Find the second file; a folder that was saved as tokenizer.json has the source side only."""
        files = [folder / name for name in ("vocab.json", "target.spm")]
        if (folder / "target_vocab.json").is_file():
            files[0] = folder / "target_vocab.json"
        if (folder / "tokenizer.json").is_file() or not all(file.is_file() for file in files):
            return
        with convert.rust_errors(files[1]):
            rust = sentencepiece.build_mapped(files, row, options, self.unk_token)
        rust.add_tokens([token for _, token in sorted(self.added_tokens_decoder.items())])
        target = copy.copy(self)
        target.rust, target._settled, target._target = rust, {}, None
        convert.post_processor(rust, row, options, self._roles)
        self._target = target

    @property
    def supported_language_codes(self) -> list[str]:
        """The languages that a text may ask for: it begins with `>>fra<<`."""
        return [text for text in self.get_vocab() if sentencepiece.is_language(text)]

    def _for_targets(self) -> Tokenizer:
        if self._target is None:
            raise TokenizerError(
                "this folder has no target.spm, so targets cannot be encoded",
                where=self.name_or_path,
                next="load the folder that the model was published in",
            )
        return self._target
