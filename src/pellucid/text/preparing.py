"""Ids to rows for a model: padding, truncation, and the special tokens around a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.errors import ArgumentError, InputError, TokenizerError, strict
from pellucid.text import convert, rows
from pellucid.text.calling import Calling
from pellucid.text.classes import GENERIC
from pellucid.text.encoding import BatchEncoding
from pellucid.text.frame import Frame
from pellucid.text.rows import TRUNCATIONS, one_of
from pellucid.text.vocabulary import plain


class Preparing(Calling):
    """What a call does after the text has become ids, for ids from elsewhere."""

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

    @property
    def max_len_single_sentence(self) -> int:
        """The room for one text, without its special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """The room for both texts of a pair."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)


def _tensor_kind(value: Any) -> str | None:
    """ "pt" or "np" if `value` is a tensor or holds tensors."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, list | tuple | int):
        return None
    return {"torch": "pt", "numpy": "np"}.get(type(value).__module__.split(".")[0])
