"""Text to ids and back: `Tokenizer.from_folder(path)`, then call it.

The work is done by the Rust library `tokenizers`; here is the call that people know from transformers, with the same
ids, masks and key order. A tokenizer is made of parts, one file each: tokens and special tokens (`vocabulary.py`), the
Rust tokenizer with a call's settings (`calling.py`, `rows.py`), ids to rows for a model (`preparing.py`), ids to text
(`decoding.py`), chats and answers (`chat.py`, `answering.py`); `loading.py` and `saving.py` are the way from and to a
folder. Different on purpose:

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Encoding as RustEncoding
from tokenizers import Tokenizer as RustTokenizer

from pellucid import hub
from pellucid.errors import ArgumentError, InputError, PellucidError, TokenizerError, Unsupported, strict
from pellucid.text import alignment, convert, fingerprint, loading, rows, saving
from pellucid.text.answering import Answering
from pellucid.text.calling import LONGEST_TEXT
from pellucid.text.chats.prompt import Chats
from pellucid.text.classes import ROLES
from pellucid.text.decoding import Decoding
from pellucid.text.encoding import BatchEncoding
from pellucid.text.loading import CONFIG, UNLIMITED
from pellucid.text.preparing import Preparing
from pellucid.text.rows import SIDES, Settings, one_of


class Tokenizer(Preparing, Decoding, Chats, Answering):
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
        self._lent = tokenizer_object is not None  # whoever made it may still change it
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
        gguf_file: str | None = None,
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
            gguf_file=gguf_file,
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

    def _for_targets(self) -> Tokenizer:
        """The tokenizer of `text_target`: of what a model is to answer, in another language for example."""
        return self

    # ---- training -----------------------------------------------------------------------------------------

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
        from pellucid.text.training import learn, train

        return train.train_like(
            self,
            text_iterator,
            learn.Limits(vocab_size, min_frequency, limit_alphabet, initial_alphabet, max_token_length),
            length=length,
            new_special_tokens=new_special_tokens,
            special_tokens_map=special_tokens_map,
            show_progress=show_progress,
        )

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
    "convert_to_native_format": "from_pretrained(folder) reads every format",
    "convert_added_tokens": "special_tokens_map_extended has AddedTokens",
    "pretrained_vocab_files_map": "from_pretrained takes an id of the hub",
    "save_chat_templates": "save_pretrained writes them",
    "get_response_parser": "call parse_response",
    "model": "backend_tokenizer.model",
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
