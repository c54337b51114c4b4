"""Config: a config.json that knows which of its keys were read.

A family reads its keys as attributes. When it is done, `close()` refuses a key that is known to change what a model
computes and that nobody read: a YaRN section ignored in silence is a wrong answer that looks right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from pellucid.errors import ArgumentError, ConfigError, nearest

# Keys every file may carry and that cannot change a number, library-wide: who wrote it, how it was initialised,
# labels and tokens (read by heads and generation), and what to return.
BOOKKEEPING = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures auto_map
    attn_implementation bos_token_id chunk_size_feed_forward classifier_dropout cls_token_id custom_pipelines
    decoder_start_token_id dtype eos_token_id eod_token_id finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing id2label init_std initializer_factor initializer_range
    is_encoder_decoder label2id label_smoothing mask_token_id model_max_length model_type n_ctx name_or_path
    num_labels num_logits_to_keep output_attentions output_hidden_states output_past pad_token_id prefix
    problem_type return_dict return_dict_in_generate sep_token_id
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    summary_last_dropout task_specific_params tf_legacy_loss tokenizer_class torch_dtype torchscript
    transformers.js_config transformers_version unsloth_fixed unsloth_version use_bfloat16 use_cache
    tie_encoder_decoder tie_last_hidden_states pretraining_tp cross_attention_hidden_size
    pruned_heads cache_implementation
    """.split()
)

# Generation settings that old files keep in config.json; `GenerationConfig` reads them.
GENERATION = frozenset(
    """
    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty length_penalty max_length max_new_tokens min_length min_p no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_scores remove_invalid_values repetition_penalty
    suppress_tokens temperature top_k top_p typical_p
    """.split()
)


# Nobody has published more; a file that asks for more is broken or hostile, and is refused before it costs memory.
MOST_SIZE = 10**8
MOST_LAYERS = 4096
MOST_EXPERTS = 2**16  # of all layers together; Switch-C has 2**15
MOST_NUMBER = 1e30
PROBLEMS = (None, "regression", "single_label_classification", "multi_label_classification")
_NEEDED = object()


@lru_cache(maxsize=1)
def architecture_keys() -> frozenset[str]:
    """Keys known to change what a model computes, in any published family and version."""
    text = resources.files("pellucid").joinpath("architecture_keys.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


class Config:
    """Attribute access to config.json merged with the family's defaults.

    Args:
        values: what the file says (or the caller, for a model made from nothing).
        defaults: the family's own; files written by transformers leave out what equals them.
        aliases: other names of a key, `{"hidden_size": "n_embd"}`; either may be in the file.
        where: the file, for messages.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        defaults: Mapping[str, Any] | None = None,
        aliases: Mapping[str, str] | None = None,
        where: object = "config.json",
    ) -> None:
        own = self.__dict__
        own["_aliases"] = dict(aliases or {})
        own["_defaults"] = dict(defaults or {})
        own["_given"] = {own["_aliases"].get(key, key): value for key, value in values.items()}
        own["_read"] = set()
        own["_where"] = where
        if own["_given"].get("id2label") is not None:
            own["_given"]["id2label"] = _by_index(own["_given"]["id2label"], where)

    # ------------------------------------------------------------------------------------------ reading

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        key = self._aliases.get(name, name)
        if key in self._given or (key in self._defaults and key != "num_labels"):
            return self.get(key)
        if key in COMMON:
            return self._common(key)
        raise AttributeError(
            f"{self._where} has no key {name!r}. {nearest(name, [*self.to_dict(), *self._aliases, *COMMON])}".rstrip()
        )

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a key that may be absent; counts as read."""
        key = self._aliases.get(name, name)
        self._read.add(key)
        return self._given.get(key, self._defaults.get(key, default))

    def need(self, name: str) -> Any:
        """The value of a key without which there is no model."""
        value = self.get(name)
        if value is None:
            raise ConfigError(f"the key {name!r} is missing, or null", where=self._where, next="add it to config.json")
        return value

    def number(
        self,
        name: str,
        kind: type = int,
        *,
        least: float = 0,
        most: float | None = None,
        null: Any = _NEEDED,
    ) -> Any:
        """A key that must be a number, `kind` int or float, from `least` to `most`.

        Args:
            most: `MOST_SIZE` for an int, `MOST_NUMBER` for a float, if not said.
            null: what null, or no such key, stands for; without it the key is needed.
        """
        value = getattr(self, name, None)
        if value is None and null is not _NEEDED:
            return null
        if value is None:
            raise ConfigError(f"the key {name!r} is missing, or null", where=self._where, next="add it to config.json")
        limit = most if most is not None else MOST_SIZE if kind is int else MOST_NUMBER
        right = isinstance(value, int) or (kind is float and isinstance(value, float))
        if isinstance(value, bool) or not right or not least <= value <= limit:
            raise ConfigError(
                f"{name}={_short(value)} is not {'an int' if kind is int else 'a number'} from {least} to {limit}",
                where=self._where,
                next="correct config.json",
            )
        return value

    def size(self, name: str, *, null: Any = _NEEDED) -> Any:
        """A key that counts something: a whole number of at least 1."""
        return self.number(name, least=1, null=null)

    def layers(self, name: str, *, null: Any = _NEEDED) -> Any:
        """A key that counts layers: more than `MOST_LAYERS` is a broken file."""
        return self.number(name, least=1, most=MOST_LAYERS, null=null)

    def share(self, name: str, *, null: Any = _NEEDED) -> Any:
        """A key that is a probability, 0 to 1."""
        return self.number(name, float, most=1, null=null)

    def section(self, name: str) -> Config | None:
        """A nested dict as a Config of its own, whose keys must all be read too; None where it is absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ConfigError(f"{name}={value!r} is not an object", where=self._where, next="correct config.json")
        return Config(value, where=f"{self._where}: {name}")

    def __contains__(self, name: str) -> bool:
        return self._aliases.get(name, name) in self._given

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    @property
    def where(self) -> object:
        return self._where

    @property
    def read(self) -> frozenset[str]:
        """The keys that were asked for so far."""
        return frozenset(self._read)

    def _common(self, key: str) -> Any:
        """Keys that every model has though no file need state them."""
        if key == "id2label":
            return {i: f"LABEL_{i}" for i in range(self.num_labels)}
        if key == "label2id":
            return {label: i for i, label in self.id2label.items()}
        if key == "num_labels":
            return len(self._given["id2label"]) if self._given.get("id2label") else self._defaults.get(key, 2)
        return COMMON[key]

    # ------------------------------------------------------------------------------------------ writing

    def __setattr__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, changes: Mapping[str, Any]) -> None:
        """Sets keys of this family.

        Raises:
            ArgumentError: a key the family does not have; says which one was meant.
        """
        known = {*self._given, *self._defaults, *self._aliases, *COMMON, *GENERATION, *BOOKKEEPING}
        for name, value in changes.items():
            if name not in known:
                raise ArgumentError(
                    f"{name!r} is no argument, and no config key of {self.get('model_type')!r}",
                    where=name,
                    next=nearest(name, known) or "see `pellucid show DIR` for the keys of this model",
                )
            self._given[self._aliases.get(name, name)] = value
        if "num_labels" in changes and "id2label" not in changes:
            if len(self._given.get("id2label") or {}) != changes["num_labels"]:
                self._given.pop("id2label", None)
                self._given.pop("label2id", None)
        elif "id2label" in changes:
            labels = self._given["id2label"] = _by_index(changes["id2label"] or {}, "id2label")
            self._given["num_labels"] = len(labels)

    def copy(self) -> Config:
        """The same values, with nothing read yet."""
        return Config(self._given, defaults=self._defaults, aliases=self._aliases, where=self._where)

    def to_dict(self) -> dict[str, Any]:
        """All keys with their values, defaults included."""
        return {**self._defaults, **self._given}

    def given(self) -> dict[str, Any]:
        """Only what the file or the caller states, as it will be saved."""
        return dict(self._given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"Config({json.dumps(self.to_dict(), indent=2, default=str)})"

    # ------------------------------------------------------------------------------------------ checking

    def check(self) -> None:
        """Refuses values of another kind than the family's default; `number` and the family refuse wrong ones.

        Raises:
            ConfigError: names the key with its value.
        """
        for key, value in self.to_dict().items():
            usual = self._defaults.get(key, COMMON.get(key))
            if key == "label2id":
                right, kind = value is None or isinstance(value, dict), "an object from names to whole numbers"
            elif key == "problem_type":
                right, kind = value in PROBLEMS, f"one of {PROBLEMS[1:]}"
            elif key.endswith("_token_id"):
                ids = value if isinstance(value, list) and key == "eos_token_id" else [value]
                right = value is None or all(type(i) is int and abs(i) <= MOST_SIZE for i in ids)
                kind = "a token id"
            elif isinstance(usual, bool):
                right, kind = value is None or isinstance(value, bool), "true or false"
            elif isinstance(usual, (int, float)):
                right, kind = value is None or _is_number(value) or value == usual, "a number of at least 0"
            elif isinstance(usual, str):
                right, kind = isinstance(value, str), "text"
            else:
                continue
            if not right:
                what = f"{key}={_short(value)} is not {kind}"
                raise ConfigError(what, where=self._where, next="correct config.json")

    # ------------------------------------------------------------------------------------------ closing

    def unread(self) -> dict[str, Any]:
        """Keys of the file that neither the family nor the library reads."""
        aside = self._read | BOOKKEEPING | GENERATION
        return {key: value for key, value in self._given.items() if key not in aside}

    def close(self, ignored: Mapping[str, tuple[Any, ...] | None]) -> dict[str, Any]:
        """Refuses keys that change what is computed and that nobody read.

        Args:
            ignored: key -> the values at which ignoring it is right, or None for any value.

        Returns:
            keys that nobody knows, for `show` and `check`; those with a value that says something deserve a warning.

        Raises:
            ConfigError: names each such key with its value.
        """
        unknown: dict[str, Any] = {}
        refused: dict[str, Any] = {}
        for key, value in self.unread().items():
            if key in ignored:
                harmless = ignored[key]
                if harmless is not None and value not in harmless:
                    refused[key] = value
            elif key in architecture_keys() and value is not None:
                refused[key] = value
            else:
                unknown[key] = value
        if refused:
            listed = ", ".join(f"{key}={value!r}" for key, value in refused.items())
            raise ConfigError(
                f"{len(refused)} key(s) that change what the model computes, and that nothing reads: {listed}",
                where=self._where,
                next="read them in the family file, or list them in IGNORED with the values that are harmless",
            )
        return unknown


# What files may leave out: labels, tokens, losses and outputs. Read by heads, tasks and generation.
COMMON: dict[str, Any] = {
    "architectures": None,
    "bos_token_id": None,
    "classifier_dropout": None,
    "decoder_start_token_id": None,
    "dtype": None,
    "eos_token_id": None,
    "id2label": None,
    "initializer_range": 0.02,
    "is_encoder_decoder": False,
    "label2id": None,
    "model_type": None,
    "num_labels": 2,
    "output_attentions": False,
    "output_hidden_states": False,
    "pad_token_id": None,
    "problem_type": None,
    "sep_token_id": None,
    "tie_word_embeddings": True,
    "use_cache": True,
}


def _is_number(value: Any) -> bool:
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    return right and value >= 0 and (isinstance(value, int) or math.isfinite(value))


def _short(value: object) -> str:
    """For messages: hostile files hold long values."""
    text = (
        repr(value) if not isinstance(value, int) or abs(value) < 10**30 else f"a number of {value.bit_length()} bits"
    )
    return text if len(text) <= 120 else f"{text[:120]}…"


def _by_index(labels: Any, where: object) -> dict[int, Any]:
    """id2label with integer keys: JSON has none."""
    try:
        return {int(i): label for i, label in labels.items()}
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(
            f"id2label={_short(labels)} is no object from whole numbers to names",
            where=where,
            next="correct config.json",
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ConfigError: the file is absent, not UTF-8, not JSON, nested beyond sense, or not an object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no {path.name}", where=path.parent, next="give a model folder") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of thousands of digits
        raise ConfigError(
            f"{path.name} is not JSON: {error}", where=path, next="download the file again, or correct it"
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path.name} holds a {type(value).__name__}, not an object", where=path, next="correct the file"
        )
    return value
