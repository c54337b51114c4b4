"""Text to ids and back: `Tokenizer.from_folder(path)`, then call it.

The work is done by the Rust library `tokenizers`; here are the folder's configuration, the special tokens,
and the call that people know from transformers, with the same ids, masks and key order. Different on purpose:

- a misspelt argument is an error, and so is a special token that the vocabulary does not have;
- `truncation=True` or `padding="max_length"` without any length to go by does nothing, but says so (once);
- padding without a pad token uses eos, else unk, else id 0, and says so (once); the attention mask hides it;
- `save_pretrained` writes tokenizer.json as the whole truth, with class `PreTrainedTokenizerFast`, which the
  reference loads as it is (its named classes rebuild a tokenizer from the vocabulary and lose changes).
"""

from __future__ import annotations

import inspect
import json
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from pellucid.errors import ArgumentError, InputError, PellucidError, TokenizerError, nearest, strict
from pellucid.text import convert, fingerprint, loading
from pellucid.text.classes import ROLES
from pellucid.text.encoding import BatchEncoding
from pellucid.text.loading import CONFIG, UNLIMITED

SIDES = ("left", "right")
PADDINGS = {
    False: None,
    "do_not_pad": None,
    True: "longest",
    "longest": "longest",
    "max_length": "max_length",
}
TRUNCATIONS = {False: None, "do_not_truncate": None, True: "longest_first"}
TRUNCATIONS |= {each: each for each in ("longest_first", "only_first", "only_second")}
# WordPiece puts spaces around punctuation; this takes them away, in this order (transformers 5.23).
CLEAN_UP = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'"}
CLEAN_UP |= {f" {ending}": ending for ending in ("n't", "'m", "'s", "'ve", "'re")}


class Role:
    """A special token as text: `tok.eos_token`; None where the tokenizer has none."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tok: Tokenizer, owner: type | None = None) -> str | None:
        return tok._roles[self.name]

    def __set__(self, tok: Tokenizer, value: str | AddedToken | None) -> None:
        if value is not None and tok.backend_tokenizer.token_to_id(str(value)) is None:
            raise TokenizerError(
                f"{self.name} {str(value)!r} is not in the vocabulary",
                next=f"add_special_tokens({{{self.name!r}: {str(value)!r}}}), then resize the embedding",
            )
        tok._roles[self.name] = None if value is None else str(value)


class RoleId:
    """The same as an id: `tok.eos_token_id`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_id")

    def __get__(self, tok: Tokenizer, owner: type | None = None) -> int | None:
        text = tok._roles[self.role]
        return None if text is None else tok.backend_tokenizer.token_to_id(text)

    def __set__(self, tok: Tokenizer, value: int | None) -> None:
        setattr(tok, self.role, None if value is None else tok.convert_ids_to_tokens(value))


class Tokenizer:
    """Made by `from_folder`; see the module."""

    bos_token, bos_token_id = Role(), RoleId()
    eos_token, eos_token_id = Role(), RoleId()
    unk_token, unk_token_id = Role(), RoleId()
    sep_token, sep_token_id = Role(), RoleId()
    pad_token, pad_token_id = Role(), RoleId()
    cls_token, cls_token_id = Role(), RoleId()
    mask_token, mask_token_id = Role(), RoleId()

    def __init__(
        self,
        backend_tokenizer: RustTokenizer,
        *,
        roles: Mapping[str, str | None],
        extra_special_tokens: Iterable[str] = (),
        model_input_names: Sequence[str] = ("input_ids", "attention_mask"),
        model_max_length: int = UNLIMITED,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = False,
        chat_template: str | dict[str, str] | None = None,
        name_or_path: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`roles`: text by name, `classes.ROLES` and others; `config` is kept for `save_pretrained`."""
        for argument, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
            _one_of(argument, side, SIDES)
        backend_tokenizer.no_truncation()
        backend_tokenizer.no_padding()
        self.backend_tokenizer = backend_tokenizer
        self._roles = dict.fromkeys(ROLES) | dict(roles)
        self.extra_special_tokens = list(extra_special_tokens)
        self.model_input_names = list(model_input_names)
        self.model_max_length = model_max_length
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.chat_template = chat_template
        self.name_or_path = name_or_path
        self._config = dict(config or {})
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        """Special tokens of one model's own, such as `image_token`, and their ids."""
        roles = vars(self).get("_roles", {})
        if name in roles:
            return roles[name]
        if name.endswith("_id") and (text := roles.get(name.removesuffix("_id"))) is not None:
            return self.backend_tokenizer.token_to_id(text)
        raise AttributeError(f"a tokenizer has no {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and deepcopy: a lock belongs to one process."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    # ---- loading and saving -------------------------------------------------------------------------------

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
        split_special_tokens: bool | None = None,
        model_max_length: int | None = None,
        model_input_names: list[str] | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        chat_template: str | None = None,
        check_fingerprint: bool = True,
    ) -> Tokenizer:
        """The tokenizer in `folder`. Arguments that are not None win over tokenizer_config.json.

        Args:
            check_fingerprint: compare it with the fingerprint that was saved beside it, if there is one.

        Raises:
            TokenizerError: files are missing, broken, contradict each other, or are not those that were saved there.
        """
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
    def save_pretrained(self, save_directory: Path | str) -> tuple[str, ...]:
        """tokenizer.json, its two configuration files, the chat template and a fingerprint; the paths written."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        special: dict[str, Any] = dict(self.special_tokens_map)
        if self.extra_special_tokens:
            special["additional_special_tokens"] = self.extra_special_tokens
        config = {name: value for name, value in self._config.items() if name not in BAKED_IN}
        config |= special | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": self.model_input_names,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
        }
        files = {
            "tokenizer.json": self.backend_tokenizer.to_str(pretty=True),
            CONFIG: _json(config),
            "special_tokens_map.json": _json(special),
        }
        if isinstance(self.chat_template, str):
            files["chat_template.jinja"] = self.chat_template
        elif self.chat_template:
            named = [{"name": name, "template": text} for name, text in self.chat_template.items()]
            files[CONFIG] = _json(config | {"chat_template": named})
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        fingerprint.write(fingerprint.take(self, folder), folder)
        return tuple(str(folder / name) for name in (*files, fingerprint.FILE))

    # ---- text to ids --------------------------------------------------------------------------------------

    @strict
    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
    ) -> BatchEncoding:
        """Ids and masks of a text, a pair, or a batch of either.

        Args:
            text, text_pair: a string, or a list of them for a batch. With `is_split_into_words`, a list of
                words and a list of those. A batch may also hold pairs: `[("a", "b"), ("c", "d")]`.
            padding: True or "longest" to the longest row, "max_length" to `max_length` or `model_max_length`.
            truncation: True or "longest_first", "only_first", "only_second". None (not said) truncates if
                `max_length` is given and nothing is padded, as it does in transformers; False never does.
            stride: tokens that two parts of one text share, with `return_overflowing_tokens`.
            return_tensors: "pt" or "np"; None for lists, without the batch level if `text` is one text.

        Returns:
            input_ids; token_type_ids and attention_mask if the model takes them or they are asked for;
            special_tokens_mask, offset_mapping (characters), length, overflow_to_sample_mapping if asked for.
        """
        inputs, batched = _inputs(text, text_pair, words=is_split_into_words)
        truncate, pad = self._lengths(padding, truncation, max_length, pad_to_multiple_of)
        encodings = self._encode(
            inputs,
            truncation=truncate and {**truncate, "stride": stride, "direction": self.truncation_side},
            padding=pad and self._padding(pad["length"], pad_to_multiple_of, padding_side),
            add_special_tokens=add_special_tokens,
            is_pretokenized=is_split_into_words,
        )
        rows, sample = [], []
        for i, encoding in enumerate(encodings):
            parts = [encoding, *encoding.overflowing] if return_overflowing_tokens else [encoding]
            rows += parts
            sample += [i] * len(parts)
        columns = {
            "input_ids": ("ids", True),
            "token_type_ids": ("type_ids", self._default(return_token_type_ids, "token_type_ids")),
            "attention_mask": ("attention_mask", self._default(return_attention_mask, "attention_mask")),
            "special_tokens_mask": ("special_tokens_mask", return_special_tokens_mask),
            "offset_mapping": ("offsets", return_offsets_mapping),
        }
        data = {name: [getattr(row, field) for row in rows] for name, (field, wanted) in columns.items() if wanted}
        if return_length:
            data["length"] = [len(row) for row in rows]
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = sample
        if not batched and return_tensors is None and not return_overflowing_tokens:
            data = {name: value[0] if isinstance(value[0], list) else value for name, value in data.items()}
        return BatchEncoding(data, rows).convert_to_tensors(return_tensors)

    @strict
    def encode(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
    ) -> Any:
        """The `input_ids` of a call: a list, or what `return_tensors` names."""
        return self(
            text,
            text_pair,
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            is_split_into_words=is_split_into_words,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_tensors=return_tensors,
        )["input_ids"]

    @strict
    def tokenize(self, text: Any, pair: Any = None, *, add_special_tokens: bool = False) -> list[str]:
        """The tokens of one text, as the vocabulary writes them."""
        return self(text, pair, add_special_tokens=add_special_tokens).tokens()

    @strict
    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        *,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Encoded rows, made equally long: a dict of lists, or a list of dicts (a collator's input).

        input_ids, attention_mask, token_type_ids, special_tokens_mask are padded; other keys are left alone.
        """
        if not isinstance(encoded_inputs, Mapping):
            first = encoded_inputs[0] if encoded_inputs else {}
            encoded_inputs = {name: [each[name] for each in encoded_inputs] for name in first}
        if "input_ids" not in encoded_inputs:
            raise InputError(f"nothing to pad: no input_ids among {sorted(encoded_inputs)}")
        kind = return_tensors or _tensor_kind(encoded_inputs["input_ids"])
        data = {name: _plain(value) for name, value in encoded_inputs.items()}
        single = not data["input_ids"] or isinstance(data["input_ids"][0], int)
        if single:
            data = {name: [value] for name, value in data.items()}
        rows: list[list[int]] = data["input_ids"]
        if self._default(return_attention_mask, "attention_mask"):
            data.setdefault("attention_mask", [[1] * len(row) for row in rows])
        _, to = self._lengths(padding, False, max_length, pad_to_multiple_of)
        if to is not None and rows:
            rule = self._padding(to["length"], pad_to_multiple_of, padding_side)
            length = max(map(len, rows)) if rule["length"] is None else rule["length"]
            length += -length % (pad_to_multiple_of or 1)
            fill = {
                "input_ids": rule["pad_id"],
                "attention_mask": 0,
                "token_type_ids": 0,
                "special_tokens_mask": 1,
            }
            for name in fill.keys() & data.keys():
                data[name] = [_pad_row(row, length, fill[name], rule["direction"]) for row in data[name]]
        if single and kind is None:
            data = {name: value[0] for name, value in data.items()}
        return BatchEncoding(data).convert_to_tensors(kind)

    @strict
    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        return self.backend_tokenizer.num_special_tokens_to_add(pair)

    def _encode(
        self,
        inputs: list[Any],
        *,
        truncation: dict[str, Any] | None,
        padding: dict[str, Any] | None,
        add_special_tokens: bool,
        is_pretokenized: bool,
    ) -> list[Any]:
        """The Rust encodings. Its length settings are state: set, used and taken back under a lock."""
        rust = self.backend_tokenizer
        with self._lock, convert.rust_errors(self.name_or_path):
            try:
                if truncation is not None:
                    pair = bool(inputs) and isinstance(inputs[0], tuple)
                    _check_room(truncation, rust.num_special_tokens_to_add(pair) if add_special_tokens else 0)
                    rust.enable_truncation(**truncation)
                if padding is not None:
                    rust.enable_padding(**padding)
                return rust.encode_batch(inputs, add_special_tokens=add_special_tokens, is_pretokenized=is_pretokenized)
            except Exception as e:
                if "Truncation error" not in str(e):
                    raise
                raise ArgumentError(f"cannot truncate with {truncation}: {e}") from None
            finally:
                rust.no_truncation()
                rust.no_padding()

    def _lengths(
        self, padding: bool | str, truncation: bool | str | None, max_length: int | None, multiple: int | None
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """What to truncate to and what to pad to; None for neither."""
        _one_of("padding", padding, PADDINGS)
        if truncation is None:
            truncation = max_length is not None and padding is False
        _one_of("truncation", truncation, TRUNCATIONS)
        pad, strategy = PADDINGS[padding], TRUNCATIONS[truncation]
        length = max_length if max_length is not None else self.model_max_length
        if length >= 1e20:
            for argument, given in (("truncation", strategy), ("padding", pad == "max_length" and pad)):
                if given:
                    self._say(f"{argument}={given!r} does nothing: no max_length, and model_max_length is unknown")
            strategy, pad = None, None if pad == "max_length" else pad
        if strategy and pad and multiple and max_length and max_length % multiple:
            raise ArgumentError(f"max_length={max_length} is not a multiple of pad_to_multiple_of={multiple}")
        truncate = {"max_length": length, "strategy": strategy} if strategy else None
        return truncate, {"length": length if pad == "max_length" else None} if pad else None

    def _padding(self, length: int | None, multiple: int | None, side: str | None) -> dict[str, Any]:
        """Padding as the Rust side takes it."""
        side = side or self.padding_side
        _one_of("padding_side", side, SIDES)
        token, id = self.pad_token, self.pad_token_id
        if id is None:
            roles = [role for role in ("eos_token", "unk_token") if getattr(self, f"{role}_id") is not None]
            id = getattr(self, f"{roles[0]}_id") if roles else 0
            token = self.backend_tokenizer.id_to_token(id) or ""
            self._say(f"no pad token: padding with {roles[0] if roles else 'id 0'} ({token!r}); set tok.pad_token")
        return {
            "length": length,
            "pad_to_multiple_of": multiple,
            "direction": side,
            "pad_id": id,
            "pad_token": token,
            "pad_type_id": 0,
        }

    def _default(self, asked: bool | None, name: str) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _say(self, what: str) -> None:
        """A warning, once for each tokenizer."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(what, UserWarning, stacklevel=4)

    # ---- ids to text --------------------------------------------------------------------------------------

    @strict
    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of ids: an int, a list, a tensor; a list of texts for a list of lists.

        Ids without a token (a model's embedding may be larger than its vocabulary) give nothing.
        """
        ids = _plain(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        ids = [ids] if isinstance(ids, int) else ids
        if not isinstance(ids, list) or not all(isinstance(id, int) and id >= 0 for id in ids):
            bad = next((id for id in ids if not isinstance(id, int) or id < 0), ids) if isinstance(ids, list) else ids
            raise InputError(f"cannot decode {bad!r} ({type(bad).__name__}): ids are whole numbers from 0")
        with convert.rust_errors(self.name_or_path):
            text: str = self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return self.clean_up(text) if self.cleans_up(clean_up_tokenization_spaces) else text

    @strict
    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """`decode` of each row."""
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in _plain(sequences)]

    def clean_up(self, text: str) -> str:
        """Without the spaces that WordPiece puts before punctuation and endings."""
        for spaced, plain in CLEAN_UP.items():
            text = text.replace(spaced, plain)
        return text

    def cleans_up(self, asked: bool | None = None) -> bool:
        """Whether `decode` cleans up: if asked or configured; never for BPE, whose spaces are the text."""
        wanted = self.clean_up_tokenization_spaces if asked is None else asked
        return bool(wanted) and type(self.backend_tokenizer.model).__name__ != "BPE"

    def skipped_ids(self) -> frozenset[int]:
        """What `skip_special_tokens` skips."""
        return frozenset(id for id, token in self.added_tokens_decoder.items() if token.special)

    def decoder_state(self) -> str:
        """The decoder as JSON."""
        decoder = self.backend_tokenizer.decoder
        return "null" if decoder is None else decoder.__getstate__().decode()

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        decoder = self.backend_tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or of each; unknown tokens have the unknown id, None if there is none."""
        if isinstance(tokens, str):
            found = self.backend_tokenizer.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each; None for an id without a token."""
        ids = _plain(ids)
        if isinstance(ids, int):
            return self.backend_tokenizer.id_to_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.backend_tokenizer.id_to_token(id) for id in ids if id not in skipped]

    # ---- the vocabulary -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many tokens, added ones included."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Tokenizer({self.name_or_path!r}, {len(self)} tokens, {self.special_tokens_map})"

    @property
    def vocab_size(self) -> int:
        """How many tokens, added ones not included."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

    @property
    def vocab(self) -> dict[str, int]:
        return self.get_vocab()

    @property
    def is_fast(self) -> bool:
        return True

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return self.backend_tokenizer.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return self.get_added_vocab()

    @property
    def special_tokens_map(self) -> dict[str, str]:
        return {role: text for role, text in self._roles.items() if text is not None}

    @property
    def additional_special_tokens(self) -> list[str]:
        """Version 4's name for `extra_special_tokens`."""
        return self.extra_special_tokens

    @property
    def all_special_tokens(self) -> list[str]:
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        return [self.convert_tokens_to_ids(token) for token in self.all_special_tokens]

    def get_vocab(self) -> dict[str, int]:
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def get_added_vocab(self) -> dict[str, int]:
        return {token.content: id for id, token in sorted(self.added_tokens_decoder.items())}

    def get_special_tokens_mask(self, token_ids: Sequence[int]) -> list[int]:
        """1 for each special token among ids that are complete already."""
        special = set(self.all_special_ids)
        return [int(id in special) for id in token_ids]

    @strict
    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Tokens to find before the text is split; how many of them the vocabulary did not have."""
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        for token in tokens:
            if not isinstance(token, str | AddedToken):
                raise InputError(f"a token is a string or an AddedToken, not a {type(token).__name__}")
        before = len(self)
        add = self.backend_tokenizer.add_special_tokens if special_tokens else self.backend_tokenizer.add_tokens
        add(tokens)
        return len(self) - before

    @strict
    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """`{"pad_token": "<pad>", "extra_special_tokens": [...]}`; how many the vocabulary did not have."""
        added = 0
        for name, value in special_tokens_dict.items():
            if name in ROLES:
                added += self.add_tokens([_special(value)], special_tokens=True)
                setattr(self, name, value)
            elif name in ("extra_special_tokens", "additional_special_tokens"):
                kept = [] if replace_extra_special_tokens else self.extra_special_tokens
                self.extra_special_tokens = list(dict.fromkeys([*kept, *map(str, value)]))
                added += self.add_tokens([_special(token) for token in value], special_tokens=True)
            else:
                known = [*ROLES, "extra_special_tokens"]
                raise ArgumentError(
                    f"no special token is called {name!r}", next=nearest(name, known) or ", ".join(known)
                )
        return added


OVERRIDES = frozenset(inspect.signature(Tokenizer.from_folder).parameters) - {"folder", "check_fingerprint"}
# What tokenizer.json holds once it is written; repeated in tokenizer_config.json it could only contradict it.
BAKED_IN = {
    "add_bos_token",
    "add_eos_token",
    "added_tokens_decoder",
    "name_or_path",
    "chat_template",
    "special_tokens_map_file",
}
BAKED_IN |= {
    "extra_special_tokens",
    "additional_special_tokens",
    "tokenizer_file",
    "vocab_file",
    "auto_map",
    *ROLES,
}


# ---- small things ----------------------------------------------------------------------------------------


def _special(token: Any) -> AddedToken:
    if not isinstance(token, str | AddedToken):
        raise InputError(f"a special token is a string or an AddedToken, not a {type(token).__name__}")
    return loading.token_of(token, special=True)


def _one_of(argument: str, value: Any, known: Iterable[Any]) -> None:
    known = list(known)
    if not isinstance(value, str | bool) or value not in known:
        texts = [each for each in known if isinstance(each, str)]
        raise ArgumentError(
            f"{argument}={value!r}",
            next=nearest(str(value), texts) or f"one of {', '.join(map(repr, known))}",
        )


def _check_room(truncation: Mapping[str, Any], special: int) -> None:
    """Without room for `special` tokens the Rust side truncates nothing; with a stride too long it panics."""
    length, stride = truncation["max_length"], truncation["stride"]
    if length < special:
        raise ArgumentError(f"max_length={length} has no room for the {special} special tokens of each row")
    if stride < 0 or 0 < stride >= length - special:
        raise ArgumentError(f"stride={stride} does not fit into the {length - special} tokens left for text")


def _inputs(text: Any, pair: Any, *, words: bool) -> tuple[list[Any], bool]:
    """What the Rust side takes, a list of texts or of pairs, and whether a batch was given.

    An empty pair counts as none for a single text, as in transformers.
    """
    depth = 1 if words else 0  # of one text
    batched = _depth(text) > depth
    if batched and pair is not None:
        if _depth(pair) <= depth or len(pair) != len(text):
            size = len(pair) if isinstance(pair, list | tuple) and _depth(pair) > depth else "no batch"
            raise InputError(f"a batch of {len(text)} texts with {size} as text_pair: one for each is needed")
        return [(_one(a, words), _one(b, words)) for a, b in zip(text, pair)], True
    if batched:
        return [_pair(each, words) if _depth(each) > depth else _one(each, words) for each in text], True
    if pair:
        return [(_one(text, words), _one(pair, words))], False
    return [_one(text, words)], False


def _depth(value: Any) -> int:
    """0 for a text, 1 for a list of texts, 2 for a list of lists; an empty list is a list of texts."""
    return 1 + (_depth(value[0]) if value else 0) if isinstance(value, list | tuple) else 0


def _pair(value: Any, words: bool) -> tuple[Any, Any]:
    if len(value) != 2:
        raise InputError(
            f"a pair of texts is needed, found {len(value)} of them", next="for words: is_split_into_words"
        )
    return _one(value[0], words), _one(value[1], words)


def _one(value: Any, words: bool) -> Any:
    """One text, or one list of words."""
    if words and isinstance(value, list | tuple):
        return [_one(word, False) for word in value]
    if isinstance(value, str) and not words:
        return value
    raise InputError(
        f"a text is needed, found {value!r:.60} ({type(value).__name__})",
        next="a list of words with is_split_into_words=True" if words else "a string, or a list of strings for a batch",
    )


def _plain(value: Any) -> Any:
    """Tensors and arrays as lists, numpy numbers as ints; lists of those too."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return value if all(type(each) is int for each in value) else [_plain(each) for each in value]
    return value


def _tensor_kind(value: Any) -> str | None:
    """ "pt" or "np" if `value` is a tensor or holds tensors."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, list | tuple | int):
        return None
    return {"torch": "pt", "numpy": "np"}.get(type(value).__module__.split(".")[0])


def _pad_row(row: list[int], length: int, fill: int, side: str) -> list[int]:
    missing = [fill] * (length - len(row))
    return missing + list(row) if side == "left" else list(row) + missing


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
