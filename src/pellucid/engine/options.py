"""Options: how a sequence is continued, from generation_config.json and from arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid import families, hub
from pellucid.config import read_json
from pellucid.engine.interim import Held, Warp
from pellucid.engine.request import Request
from pellucid.engine.sampling import Sampling
from pellucid.errors import ArgumentError, InputError, Unsupported, nearest, strict
from pellucid.models.model import Model
from pellucid.weights.save import replace_file

# What is done, with the value that holds where nobody says otherwise.
DEFAULTS: dict[str, Any] = {
    "max_new_tokens": None, "max_length": 20, "min_new_tokens": 0, "do_sample": False, "temperature": 1.0,
    "top_k": 50, "top_p": 1.0, "seed": None, "eos_token_id": None, "pad_token_id": None, "bos_token_id": None,
    "decoder_start_token_id": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "use_cache": True,
}  # fmt: skip

# What the reference knows and this version does not do: the values at which that makes no difference.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_beam_groups": (1,), "num_return_sequences": (1,), "repetition_penalty": (1.0,),
    "length_penalty": (1.0,), "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,), "min_p": (0, 0.0),
    "typical_p": (1.0,), "epsilon_cutoff": (0, 0.0), "eta_cutoff": (0, 0.0), "diversity_penalty": (0.0,),
    "penalty_alpha": (0, 0.0), "bad_words_ids": (), "force_words_ids": (), "constraints": (), "stop_strings": (),
    "suppress_tokens": (), "begin_suppress_tokens": (),
    "max_time": (), "min_length": (0,), "early_stopping": (False,), "guidance_scale": (1.0,), "sequence_bias": (),
    "output_scores": (False,), "output_logits": (False,), "output_attentions": (False,),
    "output_hidden_states": (False,), "return_dict_in_generate": (False,),
    "cache_implementation": ("dynamic", "hybrid"), "low_memory": (False,), "dola_layers": (),
    "prompt_lookup_num_tokens": (), "assistant_early_exit": (),
    "token_healing": (False,), "watermarking_config": (), "exponential_decay_length_penalty": (),
    "renormalize_logits": (False,), "remove_invalid_values": (False,), "encoder_repetition_penalty": (1.0,),
    "top_h": (), "is_assistant": (False,), "cache_config": (), "compile_config": (), "disable_compile": (True, False),
    "return_legacy_cache": (False,), "prefill_chunk_size": (),
}  # fmt: skip
# Settings of a feature that is off, and who wrote the file: kept, without effect.
IDLE = frozenset(
    """
    transformers_version _from_model_config num_assistant_tokens num_assistant_tokens_schedule target_lookbehind
    assistant_confidence_threshold assistant_lookbehind max_matching_ngram_size chat_format language task
    """.split()
)
ENDS = ("eos_token_id", "forced_eos_token_id")  # of which there may be several
FOR_SAMPLING = ("temperature", "top_k", "top_p", "seed")


class GenerationConfig:
    """Options of `generate`; unset ones take the values of `DEFAULTS`.

    Raises:
        ArgumentError: an option that does not exist; says which one was meant.
    """

    def __init__(self, **options: Any) -> None:
        self._given: dict[str, Any] = {}
        self.update(**options)

    def update(self, **options: Any) -> None:
        """Sets options; None unsets."""
        for name, value in options.items():
            if name not in DEFAULTS and name not in NEUTRAL and name not in IDLE:
                near = nearest(name, [*DEFAULTS, *NEUTRAL])
                raise ArgumentError(f"generate has no option {name!r}", where=name, next=near or "see GenerationConfig")
            self._given[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (name not in DEFAULTS and name not in NEUTRAL and name not in IDLE):
            raise AttributeError(f"generate has no option {name!r}. {nearest(name, DEFAULTS)}".rstrip())
        value = self._given.get(name)
        return DEFAULTS.get(name) if value is None else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_given":
            super().__setattr__(name, value)
        else:
            self.update(**{name: value})

    def to_dict(self) -> dict[str, Any]:
        """The options that were set."""
        return {name: value for name, value in self._given.items() if value is not None}

    def merged(self, options: Mapping[str, Any]) -> GenerationConfig:
        """A copy with other options set; sampling is on where an option for sampling was passed."""
        new = GenerationConfig(**self._given)
        given = {name: value for name, value in options.items() if value is not None}
        new.update(**given)
        if "do_sample" not in given and any(name in given for name in FOR_SAMPLING):
            new.update(do_sample=True)
        return new

    def merged_quietly(self, options: Mapping[str, Any]) -> GenerationConfig:
        """A copy with other options set, from a file: nothing is inferred."""
        return GenerationConfig(**{**self._given, **{k: v for k, v in options.items() if v is not None}})

    def check(self) -> None:
        """Refuses what this version does not do.

        Raises:
            Unsupported: names the option and the value at which it is off.
        """
        for name, value in self.to_dict().items():
            allowed = NEUTRAL.get(name)
            if allowed is not None and value not in allowed and value not in ([], {}):
                off = f"pass {name}={allowed[0]!r}" if allowed else f"leave {name} out"
                raise Unsupported(f"{name}={value!r} is not supported yet", where="generate", next=off)
        for name, least in (("max_new_tokens", 1), ("min_new_tokens", 0), ("max_length", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ArgumentError(f"{name}={value!r}", where=name, next=f"use a whole number, at least {least}")
        for name in FOR_SAMPLING:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise ArgumentError(f"{name}={value!r}", where=name, next="use a number")
        if self.seed is not None and not (type(self.seed) is int and abs(self.seed) < 1 << 62):
            raise ArgumentError(f"seed={self.seed!r}", where="seed", next="use a whole number below 2**62")
        if not isinstance(self.do_sample, bool):
            raise ArgumentError(f"do_sample={self.do_sample!r}", where="do_sample", next="use True or False")
        for name in (option for option in DEFAULTS if option.endswith("_token_id")):
            value = getattr(self, name)
            ids = value if name in ENDS and isinstance(value, (list, tuple, set)) else [value]
            if value is not None and not all(type(token) is int for token in ids):
                raise ArgumentError(f"{name}={value!r}", where=name, next="use an id, a whole number")

    def sampling(self) -> Sampling:
        """How tokens are chosen: greedy without `do_sample`, or at temperature 0."""
        if not self.do_sample:
            return Sampling()
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, seed=self.seed)

    @property
    def eos(self) -> frozenset[int]:
        """The ids that end a sequence."""
        value = self.eos_token_id
        return frozenset() if value is None else frozenset([value] if isinstance(value, int) else value)

    def forced(self, most: int, *, behind_encoder: bool) -> dict[int, int]:
        """Tokens that are given, not chosen: a decoder's first, and the last where a text would be cut off."""
        found: dict[int, int] = {}
        if self.forced_eos_token_id is not None:
            end = self.forced_eos_token_id
            found[most - 1] = end if isinstance(end, int) else next(iter(end))
        if self.forced_bos_token_id is not None and behind_encoder:
            found[0] = self.forced_bos_token_id
        return found

    def new_tokens(self, held: int) -> int:
        """How many tokens may follow `held` ones.

        Raises:
            ArgumentError: `max_length` leaves no room.
        """
        if self.max_new_tokens is not None:
            return int(self.max_new_tokens)
        if "max_length" not in self.to_dict():
            return int(DEFAULTS["max_length"])  # of new tokens, as the reference has it
        if self.max_length <= held:
            what = f"max_length={self.max_length} leaves no room behind {held} tokens"
            raise ArgumentError(what, where="max_length", next="raise it, or use max_new_tokens")
        return int(self.max_length) - held

    def request(self, model: Model, prompt: Sequence[int], row: int = 0) -> Request:
        """The request that continues a prompt under these options; rows of one call differ in their seeds.

        Raises:
            InputError: an encoder-decoder whose start token nobody names.
        """
        begin: list[int] = []
        if model.encoder is not None:
            start = self.decoder_start_token_id
            start = model.spec.decoder_start if start is None else start
            if not isinstance(start, int):
                raise InputError("no decoder_start_token_id", where="generate", next="set it in the config")
            begin = [start]
        sampling = self.sampling()
        most = self.new_tokens(len(begin or prompt))
        eos = frozenset(token for token in self.eos if 0 <= token < model.spec.vocab)
        forced = self.forced(most, behind_encoder=bool(begin))
        rules = [Held(len(begin or prompt), self.min_new_tokens, eos, forced)]
        if not sampling.greedy:
            rules.append(Warp(sampling))
        return Request(
            ids=list(prompt),
            begin=begin,
            max_new=most,
            eos=eos,
            sample=not sampling.greedy,
            seed=None if sampling.seed is None else sampling.seed + row,
            rules=rules,
        )

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
        """Writes generation_config.json."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "generation_config.json", json.dumps(self.to_dict(), indent=2) + "\n")

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
    """generation_config.json; the special ids of config.json where it has none."""
    path = folder / "generation_config.json"
    known = {*DEFAULTS, *NEUTRAL, *IDLE}
    usual = of_config(_config_values(folder))
    if not path.exists():
        return usual
    return usual.merged_quietly({k: v for k, v in read_json(path).items() if k in known})


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
