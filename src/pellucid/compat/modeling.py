"""PreTrainedModel: `Model` with the methods that people know."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from pellucid import families, hub
from pellucid.compat.arguments import one_device, sort_out
from pellucid.compat.streamers import TextStreamer
from pellucid.config import Config
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.options import GenerationConfig, of_config, options_of, read_options
from pellucid.engine.request import Request
from pellucid.errors import ArgumentError, InputError, Unsupported, strict
from pellucid.models.checks import WHOLE
from pellucid.models.loading import create, load, parse_dtype
from pellucid.models.model import Model
from pellucid.models.packing import packing
from pellucid.models.saving import save
from pellucid.spec import Task

log = logging.getLogger("pellucid")
T = TypeVar("T", bound="PreTrainedModel")


class PreTrainedModel(Model):
    """A model as `from_pretrained` gives it. `TASK` says which head a subclass asks for."""

    TASK: ClassVar[Task | None] = None
    FAMILY: ClassVar[str | None] = None

    _generation_config: GenerationConfig | None = None

    # --------------------------------------------------------------------------------------- loading

    @classmethod
    def from_pretrained(
        cls: type[T],
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        config: Config | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool | None = None,
        force_download: bool = False,
        subfolder: str = "",
        ignore_tensors: Sequence[str] = (),
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        seed: int = 0,
        **config_keys: Any,
    ) -> Any:
        """The model of a folder or a hub id; the small one inside the package where none is named.

        Args:
            dtype: "auto" or None for the file's (`torch_dtype` is the older spelling).
            device_map: one device; "auto" is the accelerator where there is one.
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
        folder = hub.resolve(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            offline=local_files_only or None,
            subfolder=subfolder,
            force_download=force_download,
        )
        model = load(
            task=cls.TASK,
            dtype=dtype if dtype is not None else torch_dtype,
            device=one_device(device_map, device),
            config=config,
            overrides=overrides,
            ignore_tensors=ignore_tensors,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            seed=seed,
            model_class=cls,
            folder=folder,
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
        if self._generation_config is not None and (self.can_generate() or self._generation_config.to_dict()):
            self._generation_config.save_pretrained(save_directory)

    @property
    def folder(self) -> Path | None:
        """Where the model was loaded from; None for one made from a config."""
        return Path(self.report.files[0]).parent if self.report.files else None

    def can_generate(self) -> bool:
        """Whether `generate` works for this head."""
        return self.task in ("causal-lm", "seq2seq-lm") and self.spec.remembers

    @property
    def generation_config(self) -> GenerationConfig:
        """Defaults of `generate`; the special ids are the config's where nothing else was said."""
        if self._generation_config is None:
            self._generation_config = of_config(self.config.to_dict())
        return self._generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        self._generation_config = value

    # --------------------------------------------------------------------------------------- generating

    def generate(
        self,
        inputs: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        streamer: TextStreamer | None = None,
        input_ids: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        min_new_tokens: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        **options: Any,
    ) -> Any:
        """Continues prompts. Rows may differ in length; a row's tokens do not depend on the others.

        Args:
            inputs: [B, T] ids with `attention_mask`, padded on either side; or a list of ids; or a list of such
                lists. None begins with the BOS token.
            streamer: gets the prompt and each token; one sequence.
            max_new_tokens: at most so many; 20 where nothing else is said. A context that is full ends the row.
            temperature, top_k, top_p, seed: passing one turns sampling on; temperature 0 is greedy.
            eos_token_id: one or several ids that end a row.
            options: other options of `GenerationConfig`.

        Returns:
            prompt and continuation: a tensor [B, T + new] for a tensor, filled with the pad id on the right; a list
            of lists for lists. An encoder-decoder gives its output alone.

        Raises:
            InputError: an empty prompt, one that fills the context, ids outside the vocabulary.
            ArgumentError, Unsupported: an option that does not exist, or is not done yet.
        """
        named = dict(
            max_new_tokens=max_new_tokens, max_length=max_length, min_new_tokens=min_new_tokens, do_sample=do_sample,
            temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, eos_token_id=eos_token_id,
            pad_token_id=pad_token_id, bos_token_id=bos_token_id,
        )  # fmt: skip
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            what = f"streamer is a {type(streamer).__name__}"
            raise ArgumentError(what, where="streamer", next="use TextStreamer or TextIteratorStreamer")
        with _ending(streamer):
            if not self.can_generate():
                raise Unsupported(
                    f"a model for {self.task or 'hidden states'} does not generate",
                    where="generate",
                    next="load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM",
                )
            if inputs is not None and input_ids is not None:
                raise ArgumentError("both inputs and input_ids given", where="generate", next="give one")
            if isinstance(token_type_ids, Tensor) and bool(token_type_ids.any()):
                what = "token_type_ids other than 0"
                raise InputError(what, where="token_type_ids", next="leave it out: no model that generates has types")
            settings = self.generation_config
            if generation_config is not None:
                settings = settings.merged_quietly(options_of(generation_config))
            settings = settings.merged({**named, **options})
            settings.check()
            given = inputs if inputs is not None else input_ids
            prompts = self._prompts(given, attention_mask, settings)
            requests = [settings.request(self, prompt, row) for row, prompt in enumerate(prompts)]
            jobs = self._run(requests, streamer)
        return self._result(given, jobs, settings)

    def _prompts(self, given: Any, mask: Tensor | None, settings: GenerationConfig) -> list[list[int]]:
        """The ids of each row, without pads."""
        if given is None:
            bos = settings.bos_token_id
            if bos is None:
                raise InputError("no prompt, and the model has no BOS token", where="generate", next="give ids")
            return [[bos]]
        if isinstance(given, Tensor):
            if given.dim() == 1:
                given = given[None]
            if given.dim() != 2 or given.dtype not in WHOLE:
                what = f"the prompt is {list(given.shape)} {given.dtype}"
                raise InputError(what, where="generate", next="give integer ids, [batch, time]")
            if not given.numel():
                raise InputError("the prompt is empty", where="generate", next="give at least one token")
            mask = self._guessed_mask(given, settings) if mask is None else mask
            shape = packing(given.shape[0], given.shape[1], mask)
            return [list(map(int, row)) for row in shape.pack(given).split(list(shape.lengths))]
        if mask is not None:
            raise ArgumentError("attention_mask with a list", where="attention_mask", next="leave the pads out instead")
        rows = [given] if _is_ids(given) else given
        if not isinstance(rows, (list, tuple)) or not rows or not all(row == [] or _is_ids(row) for row in rows):
            what = f"the prompt is no list of ids: {str(given)[:60]}"
            raise InputError(
                what, where="generate", next="encode text with the tokenizer; give a tensor or lists of ids"
            )
        return [list(row) for row in rows]

    def _guessed_mask(self, ids_BT: Tensor, settings: GenerationConfig) -> Tensor | None:
        """Pads at the edges of a rectangle do not count, unless the pad id also ends sequences."""
        pad = settings.pad_token_id
        if pad is None or pad in settings.eos:
            return None
        real = ids_BT != pad
        inside = (real.cumsum(1) > 0) & (real.flip(1).cumsum(1).flip(1) > 0)
        return inside.long()

    def _run(self, requests: list[Request], streamer: TextStreamer | None) -> list[Job]:
        if streamer is not None and len(requests) > 1:
            raise ArgumentError(f"a streamer for {len(requests)} sequences", where="streamer", next="stream one")
        engine = Engine(self)
        jobs = [engine.add(request) for request in requests]
        for job in jobs:
            job.result()
        if streamer is not None:
            streamer.put(list(requests[0].prompt))
        while engine.busy:
            for _, _, token in engine.step():
                if streamer is not None:
                    streamer.put([token])
        for job in jobs:
            job.result()
        if streamer is not None:
            streamer.end()
        cut = sum(job.most < job.request.max_new for job in jobs)
        if cut:
            log.warning("generate: %d row(s) may end early, the context holds %s tokens", cut, self.spec.context)
        return jobs

    def _result(self, given: Any, jobs: list[Job], settings: GenerationConfig) -> Any:
        outputs = [(job, output) for job in jobs for output in job.outputs]
        rows = [[*job.request.prompt, *output.ids] for job, output in outputs]
        if given is not None and not isinstance(given, Tensor):
            return rows[0] if _is_ids(given) and len(rows) == 1 else rows
        pad = settings.pad_token_id
        if pad is None:
            pad = min(settings.eos, default=0)
        if self.encoder is None and given is not None:
            whole = (given if given.dim() == 2 else given[None]).tolist()
            rows = [[*whole[i], *output.ids] for i, job in enumerate(jobs) for output in job.outputs]
        width = max(map(len, rows))
        return torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=self.device)


def _is_ids(given: Any) -> bool:
    """Whether this is one prompt, as a list."""
    return isinstance(given, (list, tuple)) and len(given) > 0 and all(type(i) is int for i in given)


@contextmanager
def _ending(streamer: TextStreamer | None) -> Iterator[None]:
    """A reader in another thread is told when generation stops with an error."""
    try:
        yield
    except BaseException:
        if streamer is not None:
            streamer.end()
        raise


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
