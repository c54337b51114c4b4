"""AutoConfig and AutoTokenizer: no torch."""

from __future__ import annotations

import os
from typing import Any

from pellucid import families, hub
from pellucid.config import Config
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
        trust_remote_code: bool | None = None,
        **config_keys: Any,
    ) -> Config:
        """config.json of a folder or hub id, with its family's defaults; `config_keys` override it.

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

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool | None = None,
        subfolder: str = "",
        use_fast: bool | None = None,
        trust_remote_code: bool | None = None,
        **options: Any,
    ) -> Tokenizer:
        """The tokenizer of a folder or hub id; `options` are those of `Tokenizer.from_folder`.

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
        )
        return Tokenizer.from_folder(folder, **options)
