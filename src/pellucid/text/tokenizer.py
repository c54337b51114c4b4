"""Text to ids and back: `Tokenizer.from_folder(path)`, then call it.

The work is done by the Rust library `tokenizers`; here is the call that people know from transformers, with the same
ids, masks and key order. The special tokens are in `vocabulary.py`, what a call was given and how long its rows become
in `rows.py`, the way from and to a folder in `loading.py` and `saving.py`. Different on purpose:

- a misspelt argument is an error, and so is a special token that the vocabulary does not have;
- `truncation=True` without a length says what it cut to; it and `padding="max_length"` without any length to go by do
  nothing, and say so (each is said once);
- padding without a pad token uses eos, else unk, else id 0, and says so (once); the attention mask hides it;
- calls in many threads, each with its own settings, neither wait for each other nor see each other's settings;
- `save_pretrained` writes tokenizer.json as the whole truth, with class `PreTrainedTokenizerFast`, which the
  reference loads as it is (its named classes rebuild a tokenizer from the vocabulary and lose changes).
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders
from tokenizers import Encoding as RustEncoding
from tokenizers import Tokenizer as RustTokenizer

from pellucid import hub
from pellucid.errors import ArgumentError, InputError, PellucidError, TokenizerError, Unsupported, strict
from pellucid.text import alignment, convert, fingerprint, loading, rows, saving
from pellucid.text.answering import Answering
from pellucid.text.chat import Chats, holds_chats
from pellucid.text.classes import GENERIC, ROLES
from pellucid.text.encoding import BatchEncoding
from pellucid.text.frame import Frame
from pellucid.text.loading import CONFIG, UNLIMITED
from pellucid.text.rows import PADDINGS, SIDES, TRUNCATIONS, Padding, Settings, Truncation, one_of
from pellucid.text.vocabulary import Vocabulary, plain

# WordPiece puts spaces around punctuation; this takes them away, in this order (transformers 5.23).
CLEAN_UP = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'"}
CLEAN_UP |= {f" {ending}": ending for ending in ("n't", "'m", "'s", "'ve", "'re")}
# A text of so many characters is more than any model reads. The Rust side needs 250 bytes of memory and up to 3
# microseconds a token, and its regular expressions give up at runs of about ten million characters.
LONGEST_TEXT = 1 << 24
KEPT = 16  # tokenizers with other settings; scripts use a few


class Tokenizer(Vocabulary, Chats, Answering):
    """Made by `from_pretrained` or `from_folder`; see the module."""

    TOKENIZER_CLASS: str | None = None  # of a subclass: a row of `classes.CLASSES` that wins over the folder's

    @strict
    def __init__(
        self,
        backend_tokenizer: RustTokenizer | None = None,
        *,
        tokenizer_object: RustTokenizer | None = None,
        tokenizer_file: Path | str | None = None,
        roles: Mapping[str, str | None] | None = None,
        bos_token: str | AddedToken | None = None,
        eos_token: str | AddedToken | None = None,
        unk_token: str | AddedToken | None = None,
        sep_token: str | AddedToken | None = None,
        pad_token: str | AddedToken | None = None,
        cls_token: str | AddedToken | None = None,
        mask_token: str | AddedToken | None = None,
        extra_special_tokens: Iterable[str | AddedToken] = (),
        additional_special_tokens: Iterable[str | AddedToken] = (),
        model_input_names: Sequence[str] = ("input_ids", "attention_mask"),
        model_max_length: int = UNLIMITED,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = False,
        split_special_tokens: bool | None = None,
        chat_template: str | dict[str, str] | None = None,
        name_or_path: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """A tokenizer from the Rust library's: `backend_tokenizer` or `tokenizer_object`, or a tokenizer.json.

        Args:
            roles: special tokens that the vocabulary has, by name: `classes.ROLES` and names of one model's own.
            bos_token, …, extra_special_tokens: the same, added to the vocabulary where it does not have them.
            additional_special_tokens: version 4's name for `extra_special_tokens`.
            split_special_tokens: take special tokens in a text for ordinary text. None keeps the Rust tokenizer's.
            config: the rest of tokenizer_config.json, kept for `save_pretrained`.

        Raises:
            ArgumentError: no tokenizer is given, or more than one, or a side that is none.
            TokenizerError: `tokenizer_file` is missing or broken.
        """
        for argument, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
            one_of(argument, side, SIDES)
        super().__init__(_given(backend_tokenizer, tokenizer_object, tokenizer_file), roles or {}, ())
        self.rust.no_truncation()
        self.rust.no_padding()
        alignment.keep_offsets(self.rust)
        self._settled: dict[Settings, RustTokenizer] = {}
        self._said: set[str] = set()
        self.model_input_names = list(model_input_names)
        self.model_max_length = model_max_length
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.longest_text = LONGEST_TEXT
        self.chat_template = chat_template
        self.name_or_path = name_or_path
        self.init_kwargs = dict(config or {})
        if split_special_tokens is not None:
            self.split_special_tokens = split_special_tokens
        named = (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token)
        special: dict[str, Any] = {role: token for role, token in zip(ROLES, named) if token is not None}
        if roles is None:
            extra = [*extra_special_tokens, *additional_special_tokens]
            self.add_special_tokens(special | ({"extra_special_tokens": extra} if extra else {}))
        else:
            self.extra_special_tokens = [str(token) for token in extra_special_tokens]

    def __getattr__(self, name: str) -> Any:
        """Special tokens of one model's own, and advice where a name of the reference has no equal here."""
        if name in GONE:
            raise AttributeError(f"a tokenizer has no {name!r}: {GONE[name]}")
        return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and deepcopy: settings are made again where they are needed."""
        return vars(self) | {"_settled": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name_or_path!r}, {len(self)} tokens, {self.special_tokens_map})"

    # ---- loading and saving -------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool | None = None,
        force_download: bool = False,
        subfolder: str = "",
        use_fast: bool | None = None,
        trust_remote_code: bool | None = None,
        **options: Any,
    ) -> Tokenizer:
        """The tokenizer of a folder or hub id; `options` are those of `from_folder`.

        `use_fast` and `trust_remote_code` are accepted: there is one implementation, and it runs no foreign code.

        Raises:
            NotAModel, TokenizerError, ArgumentError: see `errors.py`.
        """
        folder = hub.resolve(
            pretrained_model_name_or_path,
            want="tokenizer",
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            offline=local_files_only or None,
            subfolder=subfolder,
            force_download=force_download,
        )
        return cls.from_folder(folder, **options)

    @classmethod
    @strict
    def from_folder(
        cls,
        folder: Path | str,
        *,
        tokenizer_class: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        unk_token: str | None = None,
        sep_token: str | None = None,
        pad_token: str | None = None,
        cls_token: str | None = None,
        mask_token: str | None = None,
        extra_special_tokens: list[str] | None = None,
        additional_special_tokens: list[str] | None = None,
        add_bos_token: bool | None = None,
        add_eos_token: bool | None = None,
        add_prefix_space: bool | None = None,
        legacy: bool | None = None,
        extra_ids: int | None = None,
        do_lower_case: bool | None = None,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool | None = None,
        keep_accents: bool | None = None,
        split_by_punct: bool | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        language: str | None = None,
        task: str | None = None,
        predict_timestamps: bool | None = None,
        split_special_tokens: bool | None = None,
        model_max_length: int | None = None,
        model_input_names: list[str] | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        chat_template: str | None = None,
        gguf_file: str | None = None,
        check_fingerprint: bool = True,
    ) -> Tokenizer:
        """The tokenizer in `folder`. Arguments that are not None win over tokenizer_config.json.

        Args:
            folder: a folder, or the path of a GGUF file.
            gguf_file: the name of a GGUF file in the folder, whose vocabulary it is then.
            check_fingerprint: compare it with the fingerprint that was saved beside it, if there is one.

        Raises:
            TokenizerError: files are missing, broken, contradict each other, or are not those that were saved there.
        """
        tokenizer_class = tokenizer_class or cls.TOKENIZER_CLASS
        asked = {name: value for name, value in locals().items() if name in OVERRIDES and value is not None}
        try:
            tokenizer = loading.load(cls, Path(folder), asked, OVERRIDES)
        except PellucidError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as e:
            raise TokenizerError(f"a value of the wrong kind: {e}", where=Path(folder) / CONFIG) from e
        if check_fingerprint:
            fingerprint.verify(tokenizer, Path(folder), asked)
        return tokenizer

    @strict
    def save_pretrained(
        self,
        save_directory: Path | str,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
    ) -> tuple[str, ...]:
        """tokenizer.json, its two configuration files, the chat template and a fingerprint; the paths written.

        Raises:
            Unsupported: `legacy_format` or `push_to_hub`.
        """
        if legacy_format:
            raise Unsupported(
                "legacy_format=True: the old vocabulary files cannot hold every tokenizer",
                next="tokenizer.json is read by every version of the reference; save_vocabulary writes the vocabulary",
            )
        if push_to_hub:
            raise Unsupported("push_to_hub=True", next="save to a folder, then: hf upload <id> <folder>")
        return saving.save(self, Path(save_directory), f"{filename_prefix}-" if filename_prefix else "")

    @strict
    def save_vocabulary(self, save_directory: Path | str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """The model's own vocabulary files (vocab.json and merges.txt …), without added tokens; the paths written."""
        saving.make_folder(Path(save_directory))
        with convert.rust_errors(save_directory):
            return tuple(self.rust.model.save(str(save_directory), filename_prefix))

    # ---- text to ids --------------------------------------------------------------------------------------

    @strict
    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        split_special_tokens: bool | None = None,
        max_target_length: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Ids and masks of a text, a pair, or a batch of either.

        Args:
            text, text_pair: a string, or a list of them for a batch. With `is_split_into_words`, a list of
                words and a list of those. A batch may also hold pairs: `[("a", "b"), ("c", "d")]`.
            text_target, text_pair_target: the same for what a model is to answer. Beside `text` its ids become
                `labels`, cut to `max_target_length` if given; alone it is encoded in the place of `text`.
            padding: True or "longest" to the longest row, "max_length" to `max_length` or `model_max_length`.
            truncation: True or "longest_first", "only_first", "only_second". None (not said) truncates if
                `max_length` is given and nothing is padded, as it does in transformers; False never does.
            stride: tokens that two parts of one text share, with `return_overflowing_tokens`.
            split_special_tokens: True takes special tokens in the text for ordinary text.
            return_tensors: "pt" or "np"; None for lists, without the batch level if `text` is one text.
            verbose: False keeps quiet about lengths.

        Returns:
            input_ids; token_type_ids and attention_mask if the model takes them or they are asked for;
            special_tokens_mask, offset_mapping (characters), length, overflow_to_sample_mapping if asked for; labels.

        Raises:
            InputError: what was given is no text, or one that cannot be encoded.
            ArgumentError: an argument that does not exist, or lengths that contradict each other.
        """
        coder = self
        if text is None and text_target is not None:
            coder = self._for_targets()
            text, text_pair, text_target, text_pair_target = text_target, text_pair_target, None, None
            max_length = max_length if max_target_length is None else max_target_length
        settings = self._settings(
            padding, truncation, max_length, stride, pad_to_multiple_of, padding_side, split_special_tokens, verbose
        )
        inputs, batched = rows.inputs(text, text_pair, words=is_split_into_words)
        encodings = coder._encode(inputs, settings, add_special_tokens, is_split_into_words)
        if verbose:
            self._say_cut(encodings, max_length, settings)
        wanted = {
            "token_type_ids": self._default(return_token_type_ids, "token_type_ids"),
            "attention_mask": self._default(return_attention_mask, "attention_mask"),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
        }
        sample = None
        if return_overflowing_tokens:
            parts = [[encoding, *encoding.overflowing] for encoding in encodings]
            sample = [i for i, each in enumerate(parts) for _ in each]
            encodings = [encoding for each in parts for encoding in each]
        data = _columns(encodings, wanted, padded=settings.padding is not None)
        data["input_ids"] = self._known(data["input_ids"])
        if sample is not None:
            data["overflow_to_sample_mapping"] = sample
        if not batched and return_tensors is None and not return_overflowing_tokens:
            data = {name: value[0] if isinstance(value[0], list) else value for name, value in data.items()}
        made = BatchEncoding(data, encodings, tensor_type=return_tensors)
        if text_target is not None:
            made["labels"] = self._for_targets()(
                text_target,
                text_pair_target,
                add_special_tokens=add_special_tokens,
                padding=padding,
                truncation=truncation,
                max_length=max_length if max_target_length is None else max_target_length,
                stride=stride,
                is_split_into_words=is_split_into_words,
                pad_to_multiple_of=pad_to_multiple_of,
                padding_side=padding_side,
                split_special_tokens=split_special_tokens,
                return_tensors=return_tensors,
                return_overflowing_tokens=return_overflowing_tokens,
                verbose=verbose,
            )["input_ids"]
        return made

    @strict
    def encode(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        *,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        split_special_tokens: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> Any:
        """The `input_ids` of a call: a list, or what `return_tensors` names."""
        settings = self._settings(
            padding, truncation, max_length, stride, pad_to_multiple_of, padding_side, split_special_tokens, verbose
        )
        inputs, batched = rows.inputs(text, text_pair, words=is_split_into_words)
        encodings = self._encode(inputs, settings, add_special_tokens, is_split_into_words, ids_only=True)
        if verbose:
            self._say_cut(encodings, max_length, settings)
        ids = self._known([encoding.ids for encoding in encodings])
        if return_tensors is not None:
            return BatchEncoding({"input_ids": ids}, tensor_type=return_tensors)["input_ids"]
        return ids if batched else ids[0]

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        """Version 4's name for a call with one text; `options` are those of the call."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **options: Any) -> BatchEncoding:
        """Version 4's name for a call with a list of texts or pairs; `options` are those of the call."""
        if isinstance(batch_text_or_text_pairs, str):
            raise InputError("batch_encode_plus takes a list of texts, not one", next="call the tokenizer on it")
        return self(batch_text_or_text_pairs, **options)

    @strict
    def tokenize(
        self,
        text: Any,
        pair: Any = None,
        add_special_tokens: bool = False,
        *,
        is_split_into_words: bool = False,
        split_special_tokens: bool | None = None,
    ) -> list[str]:
        """The tokens of one text, as the vocabulary writes them."""
        settings = Settings(None, None, self._splits(split_special_tokens))
        inputs, batched = rows.inputs(text, pair, words=is_split_into_words)
        if batched:
            raise InputError(f"tokenize takes one text, not a list of {len(inputs)}", next="call it for each")
        return list(self._encode(inputs, settings, add_special_tokens, is_split_into_words)[0].tokens)

    @property
    def split_special_tokens(self) -> bool:
        """Whether special tokens in a text are taken for ordinary text, where a call does not say."""
        return self.rust.encode_special_tokens

    @split_special_tokens.setter
    def split_special_tokens(self, value: bool) -> None:
        self.rust.encode_special_tokens = bool(value)
        self._changed()

    @property
    def max_len_single_sentence(self) -> int:
        """The room for one text, without its special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """The room for both texts of a pair."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

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

    def _for_targets(self) -> Tokenizer:
        """The tokenizer of `text_target`: of what a model is to answer, in another language for example."""
        return self

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
        found = self._settled.get(settings)
        if found is None:
            bare = Settings(None, None, True)
            found = rows.with_settings(self._with(bare) if apart and settings != bare else self.rust, settings)
            if len(self._settled) >= KEPT:
                self._settled = {}
            if not self._lent:
                self._settled[settings] = found
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

    # ---- ids to rows for a model --------------------------------------------------------------------------

    @strict
    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Encoded rows, made equally long: a dict of lists, or a list of dicts (a collator's input).

        input_ids, attention_mask, token_type_ids, special_tokens_mask are padded; other keys are left alone.
        """
        given = rows.columns(encoded_inputs)
        if "input_ids" not in given:
            raise InputError(f"nothing to pad: no input_ids among {sorted(given)}")
        kind = return_tensors or _tensor_kind(given["input_ids"])
        data = {name: plain(value) for name, value in given.items()}
        single = not data["input_ids"] or isinstance(data["input_ids"][0], int)
        if single:
            data = {name: [value] for name, value in data.items()}
        if self._default(return_attention_mask, "attention_mask"):
            data.setdefault("attention_mask", [[1] * len(row) for row in data["input_ids"]])
        rule = self._settings(padding, False, max_length, 0, pad_to_multiple_of, padding_side, None, verbose).padding
        if rule is not None and data["input_ids"]:
            data = rows.pad(data, rule)
        if single and kind is None:
            data = {name: value[0] for name, value in data.items()}
        return BatchEncoding(data, tensor_type=kind)

    @strict
    def prepare_for_model(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_length: bool = False,
        prepend_batch_axis: bool = False,
        verbose: bool = True,
    ) -> BatchEncoding:
        """What a call makes of a text, for ids that have no special tokens: these, truncation and padding."""
        settings = self._settings(
            padding, truncation, max_length, stride, pad_to_multiple_of, padding_side, None, verbose
        )
        texts = [list(plain(each)) for each in (ids, pair_ids) if each is not None]
        size = sum(map(len, texts)) + (self.num_special_tokens_to_add(len(texts) == 2) if add_special_tokens else 0)
        over: list[int] = []
        if settings.truncation is not None and size > settings.truncation.max_length:
            limit, strategy, stride, side = settings.truncation
            second = texts[1] if len(texts) == 2 else None
            first, second, over = rows.truncate(texts[0], second, size - limit, strategy, stride, side)
            texts = [first] if second is None else [first, second]
            size -= limit
        frame = self._frame(len(texts) == 2) if add_special_tokens else Frame.bare(len(texts))
        data: dict[str, Any] = {"input_ids": frame.ids(*texts)}
        if self._default(return_token_type_ids, "token_type_ids"):
            data["token_type_ids"] = frame.type_ids(*texts)
        if self._default(return_attention_mask, "attention_mask"):
            data["attention_mask"] = [1] * len(data["input_ids"])
        if return_special_tokens_mask:
            data["special_tokens_mask"] = frame.mask(*texts)
        if settings.padding is not None:
            data = {name: row[0] for name, row in rows.pad({k: [v] for k, v in data.items()}, settings.padding).items()}
        if return_overflowing_tokens and over:
            data |= {"overflowing_tokens": over, "num_truncated_tokens": size}
        if return_length:
            data["length"] = len(data["input_ids"])
        return BatchEncoding(data, tensor_type=return_tensors, prepend_batch_axis=prepend_batch_axis)

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """Ids, ids of the pair, and what was cut off with `stride` ids before it."""
        strategy = rows.value_of(truncation_strategy)
        one_of("truncation_strategy", strategy, TRUNCATIONS)
        named = TRUNCATIONS[strategy]
        remove = num_tokens_to_remove if named else 0
        return rows.truncate(ids, pair_ids, remove, named or "", stride, self.truncation_side)

    @strict
    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens go around a text, or around a pair."""
        return self.rust.num_special_tokens_to_add(pair)

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Ids with the special tokens that go around a text, or around a pair."""
        return self._frame(token_ids_1 is not None).ids(token_ids_0, token_ids_1 or ())

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """The token types of `build_inputs_with_special_tokens`."""
        return self._frame(token_ids_1 is not None).type_ids(token_ids_0, token_ids_1 or ())

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for each special token: among ids that have theirs already, or in what would be built of them."""
        if not already_has_special_tokens:
            return self._frame(token_ids_1 is not None).mask(token_ids_0, token_ids_1 or ())
        if token_ids_1 is not None:
            raise ArgumentError("ids that have their special tokens already are one list", where="token_ids_1")
        special = set(self.all_special_ids)
        return [int(id in special) for id in plain(token_ids_0)]

    def _frame(self, pair: bool) -> Frame:
        with convert.rust_errors(self.name_or_path):
            return Frame.of(self.rust, pair=pair)

    @property
    def add_bos_token(self) -> bool:
        """Whether a text begins with the bos token."""
        parts = self._frame(False).parts
        return parts[0].text is None and parts[0].id == self.bos_token_id

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        self._put_around(bool(value), self.add_eos_token)

    @property
    def add_eos_token(self) -> bool:
        """Whether a text ends with the eos token."""
        parts = self._frame(False).parts
        return parts[-1].text is None and parts[-1].id == self.eos_token_id

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        self._put_around(self.add_bos_token, bool(value))

    def _put_around(self, bos: bool, eos: bool) -> None:
        ends = {self.bos_token_id, self.eos_token_id}
        if others := [part.id for part in self._frame(False).parts if part.text is None and part.id not in ends]:
            raise TokenizerError(
                f"{self.convert_ids_to_tokens(others)} go around a text, not bos and eos alone",
                next="set tok.backend_tokenizer.post_processor",
            )
        for name, wanted in (("bos_token", bos), ("eos_token", eos)):
            if wanted and self._roles[name] is None:
                raise TokenizerError(f"no {name}", next=f"add_special_tokens({{{name!r}: …}})")
        convert.post_processor(self.rust, GENERIC, {"add_bos_token": bos, "add_eos_token": eos}, self._roles)
        self._changed()

    @strict
    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str | Sequence[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[str | AddedToken] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        *,
        min_frequency: int | None = None,
        limit_alphabet: int | None = None,
        initial_alphabet: Sequence[str] = (),
        max_token_length: int | None = None,
        show_progress: bool | Callable[[str, int, int | None], None] = False,
    ) -> Tokenizer:
        """A tokenizer with another vocabulary and the same rest: algorithm, normalisation, special tokens, template.

        Args:
            text_iterator: texts, or lists of texts.
            length: how many texts there are, for the progress.
            new_special_tokens: more of them, after the old ones.
            special_tokens_map: old text -> new text of special tokens.
            the others: see `train_tokenizer`.
        """
        from pellucid.text import learn, train

        return train.train_like(
            self,
            text_iterator,
            learn.Limits(vocab_size, min_frequency, limit_alphabet, initial_alphabet, max_token_length),
            length=length,
            new_special_tokens=new_special_tokens,
            special_tokens_map=special_tokens_map,
            show_progress=show_progress,
        )

    # ---- ids to text --------------------------------------------------------------------------------------

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
        ids = token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids
        ids = plain(ids)
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

    # ---- what the reference's scripts ask for -------------------------------------------------------------

    is_fast = True
    can_save_slow_tokenizer = False
    slow_tokenizer_class = None
    vocab_files_names = {"tokenizer_file": "tokenizer.json"}  # noqa: RUF012  read by scripts, changed by nobody


OVERRIDES = frozenset(inspect.signature(Tokenizer.from_folder).parameters) - {"folder", "check_fingerprint"}
# Names of the reference that have no equal here, and what does the same.
GONE = {
    "as_target_tokenizer": "pass text_target=…, whose ids become labels",
    "prepare_seq2seq_batch": "call it with text and text_target=…",
    "push_to_hub": "save_pretrained(folder), then: hf upload <id> <folder>",
    "set_truncation_and_padding": "settings belong to a call: pass padding= and truncation=",
    "register_for_auto_class": "Pellucid runs no code from a model folder",
    "update_post_processor": "set tok.add_bos_token or tok.add_eos_token",
}


# ---- small things ----------------------------------------------------------------------------------------


def _given(first: RustTokenizer | None, second: RustTokenizer | None, file: Path | str | None) -> RustTokenizer:
    """The one Rust tokenizer among three ways to give it."""
    given = [each for each in (first, second, file) if each is not None]
    if len(given) != 1:
        raise ArgumentError(
            f"{len(given)} tokenizers are given, one is needed",
            next="from_pretrained(folder), or tokenizer_object=… or tokenizer_file=…",
        )
    if file is not None:
        with convert.rust_errors(file):
            return RustTokenizer.from_file(str(file))
    if not isinstance(given[0], RustTokenizer):
        raise ArgumentError(
            f"a {type(given[0]).__name__} is no tokenizers.Tokenizer", next="from_pretrained(folder) reads a folder"
        )
    return given[0]


def _columns(encodings: list[RustEncoding], wanted: Mapping[str, bool], *, padded: bool) -> dict[str, list[Any]]:
    """What was asked for, in the reference's order."""
    data: dict[str, list[Any]] = {"input_ids": [each.ids for each in encodings]}
    if wanted["token_type_ids"]:
        data["token_type_ids"] = [each.type_ids for each in encodings]
    if wanted["attention_mask"]:
        masks = [each.attention_mask for each in encodings] if padded else [[1] * len(row) for row in data["input_ids"]]
        data["attention_mask"] = masks
    if wanted["special_tokens_mask"]:
        data["special_tokens_mask"] = [each.special_tokens_mask for each in encodings]
    if wanted["offset_mapping"]:
        data["offset_mapping"] = [each.offsets for each in encodings]
    if wanted["length"]:
        data["length"] = [len(row) for row in data["input_ids"]]
    return data


def _no_ids(ids: Any) -> InputError:
    """What is wrong with ids that cannot be decoded."""
    bad = ids
    if isinstance(ids, list | tuple):
        bad = next((id for id in ids if not isinstance(id, int) or not 0 <= id < 2**32), ids)
    return InputError(f"cannot decode {bad!r} ({type(bad).__name__}): ids are whole numbers from 0")


def _tensor_kind(value: Any) -> str | None:
    """ "pt" or "np" if `value` is a tensor or holds tensors."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, list | tuple | int):
        return None
    return {"torch": "pt", "numpy": "np"}.get(type(value).__module__.split(".")[0])
