"""pipeline(task, model): the tasks under the reference's names, arguments and result shapes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any

from pellucid.compat import auto
from pellucid.compat.auto_text import AutoTokenizer
from pellucid.compat.modeling import PreTrainedModel
from pellucid.engine.asking import Means
from pellucid.engine.checks import tell, tell_idle
from pellucid.engine.fields import DEFAULTS, advice
from pellucid.engine.options import options_of
from pellucid.errors import ArgumentError, InputError, Unsupported, nearest
from pellucid.tasks import fill_mask, hidden, text_generation
from pellucid.tasks.fit import report_misfit, require_trained
from pellucid.tasks.text_generation import Continuation
from pellucid.text.tokenizer import Tokenizer


class Pipeline:
    """A task with its model and tokenizer. Called with one text, or with any iterable of texts."""

    task: str
    model: PreTrainedModel
    tokenizer: Tokenizer

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, **defaults: Any) -> None:
        self.model, self.tokenizer, self.defaults = model, tokenizer, defaults
        self._check_options(defaults, [*signature(pipeline).parameters])
        require_trained(model, self.task)
        report_misfit(model, tokenizer)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The result for one text, or a list of results for many, in input order."""
        self._check_options(options)
        options = {**self.defaults, **options}
        options.pop("batch_size", None)  # batches are formed by tokens
        if self.is_one(inputs):
            return self.results([inputs], **options)[0]
        if not isinstance(inputs, Iterable) or isinstance(inputs, (bytes, Mapping)):
            raise InputError(f"{self.task} of a {type(inputs).__name__}", where="inputs", next="give text")
        return self.results(list(inputs), **options)

    def _check_options(self, options: Mapping[str, Any], also: Sequence[str] = ()) -> None:
        """Refuses options that the task does not take; `also` are names to think of when one is misspelt."""
        known = [name for name in signature(self.results).parameters if name not in ("inputs", "options")]
        if "options" in signature(self.results).parameters:
            known += DEFAULTS
        for name in options:
            if name not in (*known, "batch_size"):
                near = advice(name, [*known, *also]) or f"it takes {', '.join(known[:12])}"
                near = "the tokenizer is the pipeline's own" if name == "tokenizer" else near
                near = "use model.stream(prompts, tokenizer=…)" if name == "streamer" else near
                raise ArgumentError(f"{self.task} takes no {name!r}", where=name, next=near)

    def is_one(self, inputs: Any) -> bool:
        """Whether the input is a single one."""
        return isinstance(inputs, str)

    def results(self, inputs: Sequence[Any]) -> list[Any]:
        """One result for each input."""
        raise NotImplementedError


class TextGenerationPipeline(Pipeline):
    """`[{"generated_text": …}]` for each prompt, with so many entries as `num_return_sequences`."""

    task = "text-generation"

    def results(
        self,
        inputs: Sequence[Any],
        *,
        return_full_text: bool = True,
        return_tensors: bool = False,
        logprobs: int | None = None,
        response_format: Any = None,
        logits_processor: Iterable[Any] = (),
        stopping_criteria: Iterable[Any] = (),
        prefix_allowed_tokens_fn: Any = None,
        assistant_model: Any = None,
        assistant_tokenizer: Any = None,
        generation_config: Any = None,
        **options: Any,
    ) -> list[Any]:
        """Continues all prompts; options are those of `generate`, 256 new tokens where nothing else is said.

        Args:
            logprobs: adds `"logprobs"` to each result: of each token, and of so many most likely ones.
        """
        settings = self.model.generation_config
        if generation_config is not None:
            settings = settings.merged_quietly(options_of(generation_config))
        if settings.max_new_tokens is None and not {"max_new_tokens", "max_length"} & options.keys():
            options["max_new_tokens"] = 256
        settings = settings.merged(options)
        tell_idle(settings, options, self.task)
        if settings.return_dict_in_generate and "return_dict_in_generate" in options:
            tell(f"{self.task}: return_dict_in_generate does nothing in a pipeline; call model.generate")
        means = Means(
            processors=logits_processor, criteria=stopping_criteria, allowed=prefix_allowed_tokens_fn,
            assistant=assistant_model, assistant_tokenizer=assistant_tokenizer, response_format=response_format,
            logprobs=logprobs,
        )  # fmt: skip

        def shown(one: Continuation) -> dict[str, Any]:
            text = one.prompt + one.text if return_full_text else one.text
            result: dict[str, Any] = {"generated_token_ids": one.ids} if return_tensors else {"generated_text": text}
            return result if logprobs is None else {**result, "logprobs": one.logprobs}

        found = text_generation.generate_text(self.model, self.tokenizer, inputs, settings, means)
        return [[shown(one) for one in each] for each in found]


class FillMaskPipeline(Pipeline):
    """`[{"score", "token", "token_str", "sequence"}, …]` for each text; a list of these where there are more masks."""

    task = "fill-mask"

    def results(
        self, inputs: Sequence[Any], *, top_k: int = 5, targets: str | Sequence[str] | None = None
    ) -> list[Any]:
        """The best guesses for each mask."""
        if isinstance(targets, str):
            targets = [targets]
        found = fill_mask.fill(self.model, self.tokenizer, inputs, top_k=top_k, targets=targets)
        plain = [[[vars(guess) for guess in mask] for mask in text] for text in found]
        return [text[0] if len(text) == 1 else text for text in plain]


class FeatureExtractionPipeline(Pipeline):
    """Hidden states of each token, `[1, T, D]` as nested lists, or a tensor."""

    task = "feature-extraction"

    def results(self, inputs: Sequence[Any], *, return_tensors: bool = False, truncation: bool = False) -> list[Any]:
        """The last hidden states."""
        rows = hidden.encode(self.model, self.tokenizer, inputs, truncate=truncation)
        states = [x_TD[None] for x_TD in hidden.forward(self.model, rows, "last_hidden_state")]
        return states if return_tensors else [x.float().tolist() for x in states]


TASKS: dict[str, tuple[type[Pipeline], type[PreTrainedModel]]] = {
    "text-generation": (TextGenerationPipeline, auto.AutoModelForCausalLM),
    "fill-mask": (FillMaskPipeline, auto.AutoModelForMaskedLM),
    "feature-extraction": (FeatureExtractionPipeline, auto.AutoModel),
}


def pipeline(
    task: str | None = None,
    model: str | os.PathLike[str] | PreTrainedModel | None = None,
    *,
    tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
    config: Any = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    device: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    token: str | bool | None = None,
    use_fast: bool | None = None,
    trust_remote_code: bool | None = None,
    model_kwargs: dict[str, Any] | None = None,
    **defaults: Any,
) -> Any:
    """A task, ready to be called.

    Args:
        task: "text-generation", "fill-mask" or "feature-extraction".
        model: a path, a hub id or a loaded model; None for the one inside the package.
        defaults: options of the call, for every call.

    Raises:
        ArgumentError: a task that does not exist; says which one was meant.
    """
    if task is None:
        task = _task_of(model)
    if task not in TASKS:
        raise ArgumentError(
            f"there is no task {task!r}",
            where="pipeline",
            next=nearest(str(task), TASKS) or f"known: {', '.join(TASKS)}",
        )
    made, model_class = TASKS[task]
    folder = model
    if not isinstance(model, PreTrainedModel):
        model = model_class.from_pretrained(
            model, config=config, dtype=dtype, torch_dtype=torch_dtype, device=_device(device), device_map=device_map,
            revision=revision, token=token, trust_remote_code=trust_remote_code, **(model_kwargs or {}),
        )  # fmt: skip
    elif tokenizer is None:
        folder = model.folder
        if folder is None:
            raise ArgumentError("the model came from no folder", where="tokenizer", next="pass tokenizer=…")
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(
            folder if tokenizer is None else tokenizer,
            revision=revision,
            token=token,
            use_fast=use_fast,
        )
    assert isinstance(model, PreTrainedModel)
    return made(model, tokenizer, **defaults)


def _task_of(model: Any) -> str:
    if not isinstance(model, PreTrainedModel):
        raise ArgumentError("no task given", where="pipeline", next=f"name one of {', '.join(TASKS)}")
    for task, (_, model_class) in TASKS.items():
        if model.task == model_class.TASK:
            return task
    raise Unsupported(f"no pipeline for a {model.task} model", where="pipeline", next="call the model itself")


def _device(device: Any) -> Any:
    """The reference's -1 for the CPU, a number for an accelerator."""
    if isinstance(device, int):
        return "cpu" if device < 0 else f"cuda:{device}"
    return device
