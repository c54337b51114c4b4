"""PreTrainedModel: `Model` with the methods that people know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from pellucid import families, hub
from pellucid.compat.arguments import sort_out
from pellucid.compat.devices import where_to
from pellucid.compat.generation import GenerationMixin
from pellucid.compat.quantizing import asked_for, planned
from pellucid.config import Config
from pellucid.engine.options import read_options
from pellucid.errors import ArgumentError, Unsupported, strict
from pellucid.models.loading import create, load, parse_dtype
from pellucid.models.model import Model
from pellucid.models.plan import Plan
from pellucid.models.resizing import resize
from pellucid.models.saving import save
from pellucid.ops.packed import PackedTensor
from pellucid.spec import Task
from pellucid.tasks.flow import whole_number

T = TypeVar("T", bound="PreTrainedModel")


class PreTrainedModel(GenerationMixin):
    """A model as `from_pretrained` gives it. `TASK` says which head a subclass asks for."""

    TASK: ClassVar[Task | None] = None
    FAMILY: ClassVar[str | None] = None

    @classmethod
    def from_pretrained(
        cls: type[T],
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        config: Config | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        max_memory: Any = None,
        plan: Plan | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool | None = None,
        force_download: bool = False,
        subfolder: str = "",
        gguf_file: str | None = None,
        quantization_config: Any = None,
        load_in_4bit: bool | None = None,
        load_in_8bit: bool | None = None,
        ignore_tensors: Sequence[str] = (),
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        seed: int = 0,
        **config_keys: Any,
    ) -> Any:
        """The model of a folder or a hub id; the small one inside the package where none is named.

        Args:
            pretrained_model_name_or_path: also the path of a .gguf file, which holds config and tokenizer too.
            dtype: "auto" or None for the file's (`torch_dtype` is the older spelling).
            device_map: one device, or a device for each module, by its canonical name or the file's; "auto" is the
                accelerator where there is one, or several devices where it does not hold all.
            max_memory: device -> bytes or "20GB", for "auto".
            plan: what `pellucid.plan(…)` returned; its placement is executed.
            gguf_file: the name of such a file in the folder or repository.
            quantization_config: a `BitsAndBytesConfig`, or a dict of its keys: how to pack linear layers now.
            load_in_4bit, load_in_8bit: the same, with nothing else said.
            ignore_tensors: names or patterns of file tensors that nothing needs to read.
            ignore_mismatched_sizes: a head of another shape counts as absent.
            seed: for the parameters of a head that the file does not have.
            config_keys: keys of the family (`num_labels=3`); what only chooses an implementation
                (`attn_implementation`, `low_cpu_mem_usage` …) is recorded in `model.report.arguments`.

        Returns:
            the model in eval mode; with `output_loading_info` also a dict of what went where.

        Raises:
            PellucidError: see `errors.py`; each says what to do.
        """
        if dtype is not None and torch_dtype is not None and parse_auto(dtype) != parse_auto(torch_dtype):
            what = f"dtype={dtype} and torch_dtype={torch_dtype} differ"
            raise ArgumentError(what, where="torch_dtype", next="give one of them")
        if config is not None and not isinstance(config, Config):
            what = f"config is a {type(config).__name__}"
            raise ArgumentError(what, where="config", next="use AutoConfig.from_pretrained(…)")
        if type(seed) is not int:
            raise ArgumentError(f"seed={seed!r}", where="seed", next="use a whole number")
        recorded, overrides = sort_out(config_keys, known=ARGUMENTS)
        recorded |= {} if max_memory is None else {"max_memory": max_memory}
        folder = hub.resolve(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            offline=local_files_only or None,
            subfolder=subfolder,
            force_download=force_download,
            gguf_file=gguf_file,
        )
        dtype = dtype if dtype is not None else torch_dtype
        dtype = plan.dtype if dtype is None and isinstance(plan, Plan) else dtype
        home, placement = where_to(folder, plan, device_map, max_memory, device, dtype)
        model = load(
            task=cls.TASK,
            dtype=dtype,
            device=home,
            placement=placement,
            config=config,
            overrides=overrides,
            ignore_tensors=ignore_tensors,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            seed=seed,
            model_class=cls,
            folder=folder,
            quantize=asked_for(quantization_config or planned(plan), load_in_4bit, load_in_8bit),
        )
        cls._check_family(model)
        assert isinstance(model, cls)
        model.report.arguments = recorded
        model._generation_config = read_options(folder)
        return (model, loading_info(model)) if output_loading_info else model

    @classmethod
    @strict
    def from_config(cls: type[T], config: Config, *, dtype: torch.dtype | str | None = None) -> T:
        """A model with random weights, drawn from torch's global generator."""
        if not isinstance(config, Config):
            raise ArgumentError(f"config is a {type(config).__name__}", where="config", next="use AutoConfig")
        model = create(config, task=cls.TASK, dtype=parse_auto(dtype), model_class=cls)
        cls._check_family(model)
        assert isinstance(model, cls)
        return model

    @classmethod
    def _check_family(cls, model: Model) -> None:
        if cls.FAMILY is None or model.spec.family == cls.FAMILY:
            return
        if cls.__name__ not in families.find(model.spec.family).classes.values():  # InternLM 3 is a Llama by its class
            raise ArgumentError(
                f"{cls.__name__} was asked for, and the checkpoint is a {model.spec.family}",
                where=model.config.where,
                next="use the Auto class, or the class of that family",
            )

    @strict
    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        max_shard_size: int | str = "50GB",
        safe_serialization: bool = True,
        is_main_process: bool = True,
    ) -> None:
        """Writes config.json, generation_config.json and safetensors under the names of the original file."""
        if not safe_serialization:
            raise Unsupported("pickled weights are not written", where="safe_serialization", next="leave it out")
        if not is_main_process:
            return
        save(self, save_directory, max_shard_size=max_shard_size)
        if self.container is not None:
            return
        if self._generation_config is not None and (self.can_generate() or self._generation_config.to_dict()):
            self._generation_config.save_pretrained(save_directory)

    @strict
    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """More token vectors, for tokens that the tokenizer was given, or fewer; a tied head follows.

        model.resize_token_embeddings(len(tokenizer))

        Args:
            new_num_tokens: how many; None for as many as there are.
            pad_to_multiple_of: the next multiple of this instead.
            mean_resizing: new vectors are drawn around the mean of the old ones; else as in a new model.

        Returns:
            the table of token vectors.

        Raises:
            ArgumentError: no whole number of at least 1.
            Unsupported: the weights are packed, or the family has no such table.
        """
        rows = whole_number("new_num_tokens", self.spec.vocab if new_num_tokens is None else new_num_tokens)
        if pad_to_multiple_of is not None:
            part = whole_number("pad_to_multiple_of", pad_to_multiple_of)
            rows = -(-rows // part) * part
        resize(self, rows, mean=mean_resizing)
        return self.get_input_embeddings()

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the weights, packed as they are and tied ones once, and of the buffers.

        A CPU may hold a second form of a matrix, in the order in which it reads it; `pellucid plan` counts that too.
        """
        held = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(x.packed_bytes if isinstance(x, PackedTensor) else x.nbytes for x in held)

    @property
    def hf_device_map(self) -> dict[str, str]:
        """Module -> device, as the reference calls it."""
        return dict(self.placement) if self.placement is not None else {"": str(self.device)}

    @property
    def folder(self) -> Path | None:
        """The folder or GGUF file that the model was loaded from; None for one made from a config."""
        if self.container is not None:
            return self.container.path
        return Path(self.report.files[0]).parent if self.report.files else None


ARGUMENTS = list(signature(PreTrainedModel.from_pretrained).parameters)


def parse_auto(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype argument; None and "auto" leave the choice to the file."""
    return None if dtype in (None, "auto") else parse_dtype(dtype)


def loading_info(model: Model) -> dict[str, Any]:
    """What went where, under the reference's names."""
    return {
        "missing_keys": set(model.report.initialised),
        "unexpected_keys": {*model.report.unused, *model.report.other_heads},
        "mismatched_keys": set(),
        "error_msgs": [],
    }


def class_named(name: str) -> type[PreTrainedModel] | None:
    """`LlamaForCausalLM` and its like: the class of a family and a task, made from the family's own list.

    Several types may say that they are a Llama: the one that the class is called after goes first.
    """

    def called_after(family: str) -> int:
        stem = family.replace("_", "").replace("-", "")
        return len(stem) if name.lower().startswith(stem) else 0

    for family_name in sorted(families.names(), key=called_after, reverse=True):
        for task, class_name in families.find(family_name).classes.items():
            if class_name == name:
                return type(name, (PreTrainedModel,), {"TASK": task, "FAMILY": family_name, "__module__": __name__})
    return None
