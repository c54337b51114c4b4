"""What is wanted of a watermark, with the reference's names and ways to and from JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import ArgumentError, nearest, strict

if TYPE_CHECKING:
    from typing import Self

    from pellucid.engine.watermark.processors import SynthIDTextWatermarkLogitsProcessor, WatermarkLogitsProcessor

SCHEMES = ("lefthash", "selfhash")
LARGEST_TABLE = 2**24


class BaseWatermarkingConfig:
    """What both kinds have in common: the reference's ways to and from JSON."""

    def validate(self) -> None:
        """Raises ArgumentError for a value out of range."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Self:
        """From the dict that `to_dict` gives; keywords win. Raises ArgumentError for a name it does not have."""
        return cls(**{**config_dict, **kwargs})

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, list) else value for name, value in vars(self).items()}

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        Path(json_file_path).write_text(text, encoding="utf-8")

    def update(self, **kwargs: Any) -> None:
        """Sets values. Raises ArgumentError for a name it does not have."""
        for name, value in kwargs.items():
            if name not in vars(self):
                raise ArgumentError(
                    f"{type(self).__name__} has no {name!r}",
                    where="watermarking_config",
                    next=nearest(name, vars(self)),
                )
            setattr(self, name, value)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.to_dict().items())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self)})"

    def _check(self, name: str, right: bool, allowed: str) -> None:
        if not right:
            raise ArgumentError(f"{name}={getattr(self, name)!r}", where="watermarking_config", next=f"use {allowed}")


class WatermarkingConfig(BaseWatermarkingConfig):
    """Green lists.

    Args:
        greenlist_ratio: the part of the vocabulary that is green.
        bias: what is added to the logits of green tokens.
        hashing_key: the secret.
        seeding_scheme: "lefthash" (Algorithm 2 of the paper) or "selfhash" (Algorithm 3).
        context_width: how many tokens before seed the choice.
    """

    @strict
    def __init__(
        self,
        greenlist_ratio: float = 0.25,
        bias: float = 2.0,
        hashing_key: int = 15485863,
        seeding_scheme: str = "lefthash",
        context_width: int = 1,
    ) -> None:
        self.greenlist_ratio = greenlist_ratio
        self.bias = bias
        self.hashing_key = hashing_key
        self.seeding_scheme = seeding_scheme
        self.context_width = context_width

    def validate(self) -> None:
        self._check(
            "greenlist_ratio", _number(self.greenlist_ratio) and 0 < self.greenlist_ratio < 1, "between 0 and 1"
        )
        self._check("bias", _number(self.bias), "a number")
        self._check("hashing_key", _whole(self.hashing_key), "a whole number")
        self._check("seeding_scheme", self.seeding_scheme in SCHEMES, " or ".join(SCHEMES))
        self._check("context_width", _whole(self.context_width) and self.context_width >= 1, "1 or more")

    def construct_processor(self, vocab_size: int, device: Any = "cpu") -> WatermarkLogitsProcessor:
        """The reference's processor."""
        from pellucid.engine.watermark.processors import WatermarkLogitsProcessor

        return WatermarkLogitsProcessor(vocab_size, device, **self.to_dict())


class SynthIDTextWatermarkingConfig(BaseWatermarkingConfig):
    """SynthID-Text.

    Args:
        ngram_len: tokens that are hashed, the candidate included.
        keys: the secrets, one for each layer of the tournament.
        context_history_size: how many contexts are remembered; one that comes again is not watermarked.
        sampling_table_seed, sampling_table_size: of the table from hashes to g-values.
        skip_first_ngram_calls: no watermark in the first `ngram_len - 1` tokens.
        debug_mode: logits are taken to be all alike.
    """

    @strict
    def __init__(
        self,
        ngram_len: int,
        keys: list[int],
        context_history_size: int = 1024,
        sampling_table_seed: int = 0,
        sampling_table_size: int = 2**16,
        skip_first_ngram_calls: bool = False,
        debug_mode: bool = False,
    ) -> None:
        self.ngram_len = ngram_len
        self.keys = keys
        self.sampling_table_size = sampling_table_size
        self.sampling_table_seed = sampling_table_seed
        self.context_history_size = context_history_size
        self.skip_first_ngram_calls = skip_first_ngram_calls
        self.debug_mode = debug_mode

    def validate(self) -> None:
        keys = list(self.keys) if isinstance(self.keys, list | tuple) else []
        size = self.sampling_table_size
        self._check("ngram_len", _whole(self.ngram_len) and self.ngram_len >= 2, "2 or more")
        self._check("keys", bool(keys) and all(map(_whole, keys)), "a list of whole numbers")
        self._check("sampling_table_size", _whole(size) and 0 < size <= LARGEST_TABLE, f"1 to {LARGEST_TABLE}")
        self._check("sampling_table_seed", _whole(self.sampling_table_seed), "a whole number")
        history = self.context_history_size
        self._check("context_history_size", _whole(history) and history >= 0, "0 or more")

    def construct_processor(self, vocab_size: int, device: Any = "cpu") -> SynthIDTextWatermarkLogitsProcessor:
        """The reference's processor."""
        from pellucid.engine.watermark.processors import SynthIDTextWatermarkLogitsProcessor

        return SynthIDTextWatermarkLogitsProcessor(**self.to_dict(), device=device)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
