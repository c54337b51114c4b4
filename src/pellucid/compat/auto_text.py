"""AutoConfig, AutoTokenizer and the names of tokenizer classes: no torch."""

from __future__ import annotations

import os
from typing import Any

from pellucid import families, hub
from pellucid.config import Config
from pellucid.text.classes import CLASSES
from pellucid.text.faces import FACES
from pellucid.text.tokenizer import Tokenizer


class AutoConfig:
    """`AutoConfig.from_pretrained(path)`; `AutoConfig.for_model("llama", hidden_size=64, …)`."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool | None = None,
        subfolder: str = "",
        gguf_file: str | None = None,
        trust_remote_code: bool | None = None,
        **config_keys: Any,
    ) -> Config:
        """config.json of a folder or hub id, or what a GGUF file says, over the family's defaults, under `config_keys`.

        Raises:
            NotAModel, ConfigError, ArgumentError: see `errors.py`.
        """
        folder = hub.resolve(
            pretrained_model_name_or_path,
            want="config",
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            offline=local_files_only or None,
            subfolder=subfolder,
            gguf_file=gguf_file,
        )
        return families.read_config(folder, config_keys)[0]

    @staticmethod
    def for_model(model_type: str, **config_keys: Any) -> Config:
        """A config of a family, from its defaults and the given keys."""
        family = families.find(model_type, "for_model")
        config = family.config({"model_type": model_type}, "for_model")
        config.update(config_keys)
        return config


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(path)`."""

    from_pretrained = Tokenizer.from_pretrained


def tokenizer_class(name: str) -> type[Tokenizer] | None:
    """`BertTokenizer` and its like: a Tokenizer whose folder needs not say which class it is of.

    With or without "Fast" it is one class, as in version 5 of the reference. None for a name that no row has.
    """
    name = name.removesuffix("Fast")
    if name not in CLASSES:
        return None
    if name not in globals():  # so that pickle finds it
        base = FACES.get(CLASSES[name].face, Tokenizer)
        globals()[name] = type(name, (base,), {"TOKENIZER_CLASS": name, "__module__": __name__})
    found: type[Tokenizer] = globals()[name]
    return found


def __getattr__(name: str) -> Any:
    found = tokenizer_class(name)
    if found is None:
        raise AttributeError(f"module {__name__} has no {name!r}")
    return found


# There is one class of tokenizer; these are its names in versions 4 and 5 of the reference.
PreTrainedTokenizerBase = PreTrainedTokenizer = PreTrainedTokenizerFast = TokenizersBackend = Tokenizer
