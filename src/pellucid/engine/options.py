"""Options: how a sequence is continued, from generation_config.json and from arguments. The table is in `fields`."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid import families, hub
from pellucid.config import GENERATION, read_json
from pellucid.engine.checks import check_fields, check_together
from pellucid.engine.fields import ALWAYS, DEFAULTS, FOR_SAMPLING, OF_THE_CALL, advice
from pellucid.errors import ArgumentError, ConfigError, InputError, nearest, strict
from pellucid.models.model import Model
from pellucid.weights.save import replace_file


class GenerationConfig:
    """Options of `generate`, under the reference's names; `engine/fields.py` says what each does.

    An option that is unset, or None, has its default. Values are checked when they are used, by `check`.

    Raises:
        ArgumentError: an option that does not exist; says which one was meant.
    """

    def __init__(self, **options: Any) -> None:
        self._given: dict[str, Any] = {}
        self._foreign: dict[str, Any] = {}  # of a file: what nothing here reads
        self.update(**options)

    def update(self, **options: Any) -> None:
        """Sets options; None unsets."""
        for name, value in options.items():
            if name not in DEFAULTS:
                if name in OF_THE_CALL:
                    next = "pass it to generate"
                else:
                    next = advice(name, DEFAULTS) or "see engine/fields.py for the options"
                raise ArgumentError(f"generate has no option {name!r}", where=name, next=next)
            if value is None:
                self._given.pop(name, None)
            else:
                self._given[name] = value

    def __getattr__(self, name: str) -> Any:
        given = self.__dict__.get("_given", {})
        if name in DEFAULTS:
            return given.get(name, DEFAULTS[name])
        foreign = self.__dict__.get("_foreign", {})
        if name in foreign and not name.startswith("__"):
            return foreign[name]
        raise AttributeError(f"generate has no option {name!r}. {nearest(name, DEFAULTS)}".rstrip())

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_given", "_foreign"):
            super().__setattr__(name, value)
        else:
            self.update(**{name: value})

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *DEFAULTS]

    def is_given(self, name: str) -> bool:
        """Whether somebody set this option."""
        return name in self._given

    def to_dict(self) -> dict[str, Any]:
        """The options that were set."""
        return dict(self._given)

    def merged(self, options: Mapping[str, Any], *, explicit: bool = False) -> GenerationConfig:
        """A copy with other options set; sampling is on where an option for sampling was passed.

        Args:
            explicit: a None was said, as in `generate(forced_eos_token_id=None)`, and takes back what is set here:
                such an option does nothing then. Otherwise a None is no wish.
        """
        new = self.merged_quietly(options)
        given = {name: value for name, value in options.items() if value is not None}
        if explicit:
            silent = {name: None for name, value in options.items() if value is None}
            new.update(**silent | ({"top_k": 0} if "top_k" in silent else {}))
        if "do_sample" not in given and any(_asks_to_draw(new, name) for name in given):
            new.update(do_sample=True)
        return new

    def merged_quietly(self, options: Mapping[str, Any]) -> GenerationConfig:
        """A copy with other options set, from a file: nothing is inferred."""
        new = GenerationConfig(**{**self._given, **{k: v for k, v in options.items() if v is not None}})
        new._foreign = dict(self._foreign)
        return new

    def check(self) -> None:
        """Raises ArgumentError for a value out of range, and for options that contradict each other."""
        check_fields(self)
        check_together(self)

    # ---------------------------------------------------------------------------------------- what they mean

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn; temperature 0 is greedy."""
        return bool(self.do_sample) and self.temperature != 0

    def mode(self, *, assisted: bool = False) -> str:
        """The way of decoding that the options ask for, by the reference's name.

        Args:
            assisted: whether `generate` got an assistant model.
        """
        if self.constraints is not None or self.force_words_ids is not None:
            return "constrained_beam_search"
        if self.num_beams > 1:
            if self.num_beam_groups > 1:
                return "group_beam_search"
            return "beam_sample" if self.samples else "beam_search"
        if not self.samples and self.penalty_alpha and self.top_k > 1:
            return "contrastive_search"
        guesses = self.use_mtp or self.prompt_lookup_num_tokens is not None or self.assistant_early_exit is not None
        if assisted or guesses:
            return "assisted_generation"
        if self.dola_layers is not None:
            return "dola_generation"
        return "sample" if self.samples else "greedy_search"

    @property
    def eos(self) -> frozenset[int]:
        """The ids that end a sequence."""
        return frozenset(_several(self.eos_token_id))

    @property
    def forced_eos(self) -> tuple[int, ...]:
        """The ids of which one ends a sequence that reached its length; none where nothing is forced."""
        return _several(self.forced_eos_token_id)

    def new_tokens(self, held: int) -> int:
        """How many tokens may follow `held` ones.

        Raises:
            ArgumentError: `max_length` leaves no room.
        """
        if self.max_new_tokens is not None:
            return int(self.max_new_tokens)
        if not self.is_given("max_length"):
            return int(DEFAULTS["max_length"])  # of new tokens, as the reference has it
        if self.max_length <= held:
            what = f"max_length={self.max_length} leaves no room behind {held} tokens"
            raise ArgumentError(what, where="max_length", next="raise it, or use max_new_tokens")
        return int(self.max_length) - held

    def start(self, model: Model, row: int = 0) -> list[int]:
        """What the decoder behind an encoder begins with; nothing where there is no encoder.

        Raises:
            InputError: nobody names the token.
        """
        if model.encoder is None:
            return []
        found = self.decoder_start_token_id
        if isinstance(found, (list, tuple)):
            if row >= len(found) > 1:
                what = f"{len(found)} decoder_start_token_id for row {row}"
                raise InputError(what, where="decoder_start_token_id", next="give one for each row, or one for all")
            found = found[row if len(found) > 1 else 0]
        found = model.spec.decoder_start if found is None else found
        if not isinstance(found, int):
            raise InputError("no decoder_start_token_id", where="generate", next="set it in the config")
        return [found]

    # ---------------------------------------------------------------------------------------- files

    @classmethod
    @strict
    def from_pretrained(
        cls,
        pretrained_model_name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> GenerationConfig:
        """The options of a folder or hub id; the config's own where there is no generation_config.json."""
        folder = hub.resolve(
            pretrained_model_name,
            want="config",
            revision=revision,
            offline=True if local_files_only else None,
        )
        return read_options(folder)

    @strict
    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Writes generation_config.json.

        Raises:
            ArgumentError: a value that a file cannot hold; a folder that cannot be made.
        """
        folder = Path(save_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"no folder can be made there: {error.strerror}"
            raise ArgumentError(what, where=folder, next="give another folder") from None
        values = {name: _write(name, value) for name, value in self._given.items() if name != "compile_config"}
        replace_file(folder / "generation_config.json", json.dumps({**self._foreign, **values}, indent=2) + "\n")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"GenerationConfig({', '.join(f'{k}={v!r}' for k, v in self.to_dict().items())})"


def options_of(config: object) -> dict[str, Any]:
    """What a `GenerationConfig` argument sets.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(config, GenerationConfig):
        what = f"generation_config is a {type(config).__name__}"
        raise ArgumentError(what, where="generation_config", next="use GenerationConfig(…)")
    return config.to_dict()


def read_options(folder: Path) -> GenerationConfig:
    """generation_config.json, with the special ids of config.json where it has none; else what config.json says."""
    if folder.suffix == ".gguf" and not folder.is_dir():
        return of_config(families.read_config(folder)[0].to_dict())
    path = folder / "generation_config.json"
    alone = path.exists() and not (folder / "config.json").exists()
    ids = GenerationConfig() if alone else of_config(_config_values(folder))
    if not path.exists():
        own = read_json(folder / "config.json")
        return ids.merged_quietly({name: own[name] for name in GENERATION if own.get(name) is not None})
    values = read_json(path)
    known = {name: _read(name, value, path) for name, value in values.items() if name in DEFAULTS}
    options = ids.merged_quietly(known)
    options._foreign = {name: value for name, value in values.items() if name not in DEFAULTS}
    return options


def _read(name: str, value: Any, path: Path) -> Any:
    """A value of a file; the reference writes the tuples that `sequence_bias` has for keys as strings."""
    if name == "sequence_bias" and isinstance(value, dict):
        try:
            return [[list(ast.literal_eval(tokens)), bias] for tokens, bias in value.items()]
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            what = f"sequence_bias={str(value)[:60]}"
            raise ConfigError(what, where=path, next="its keys are tuples of ids, such as '(1, 2)'") from None
    return value


def _write(name: str, value: Any) -> Any:
    """A value for a file.

    Raises:
        ArgumentError: one that JSON cannot hold.
    """
    if name == "sequence_bias" and isinstance(value, dict):
        value = [[list(tokens), float(bias)] for tokens, bias in value.items()]
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        what = f"{name} is a {type(value).__name__}, which a file cannot hold"
        raise ArgumentError(what, where=name, next=f"set {name}=None before saving, and pass it to generate") from None
    return value


def _config_values(folder: Path) -> dict[str, Any]:
    """config.json with its family's defaults, which files leave out; of a text part, its own before the outer's."""
    values = read_json(folder / "config.json")
    if families.knows(values.get("model_type")):
        values = families.find(values["model_type"]).config(values, folder / "config.json").to_dict()
    inner = values.get("text_config")
    return {**inner, **{k: v for k, v in values.items() if v is not None}} if isinstance(inner, dict) else values


def of_config(values: Mapping[str, Any]) -> GenerationConfig:
    """The special ids that a config names."""
    return GenerationConfig(**{k: v for k, v in values.items() if k in DEFAULTS and k.endswith("_token_id")})


def _asks_to_draw(options: GenerationConfig, name: str) -> bool:
    """Whether passing this option is a wish for sampling; `top_k` is part of a contrastive search too."""
    if name not in FOR_SAMPLING or (name == "top_k" and options.penalty_alpha):
        return False
    return name in ALWAYS or getattr(options, name) != DEFAULTS[name]


def _several(ids: Any) -> tuple[int, ...]:
    """One id, several or none, as several."""
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, (list, tuple, set, frozenset)) else (ids,)
