"""pipeline(task, model): tasks by the reference's names, and the checkpoints that they run on."""

from __future__ import annotations

import logging
import os
import re
from inspect import signature
from typing import Any

from pellucid import families, hub
from pellucid.compat.auto_text import AutoTokenizer
from pellucid.compat.modeling import PreTrainedModel
from pellucid.compat.pipelines.answering import QuestionAnsweringPipeline, TableQuestionAnsweringPipeline
from pellucid.compat.pipelines.base import Pipeline
from pellucid.compat.pipelines.generating import (
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TextGenerationPipeline,
    TranslationPipeline,
)
from pellucid.compat.pipelines.sentences import RerankingPipeline, SentenceEmbeddingPipeline
from pellucid.compat.pipelines.tagging import TokenClassificationPipeline
from pellucid.compat.pipelines.texts import (
    FeatureExtractionPipeline,
    FillMaskPipeline,
    TextClassificationPipeline,
    ZeroShotClassificationPipeline,
)
from pellucid.errors import ArgumentError, Unsupported, nearest
from pellucid.spec import Task
from pellucid.text.tokenizer import Tokenizer

log = logging.getLogger("pellucid")

KINDS: tuple[type[Pipeline], ...] = (
    TextGenerationPipeline,
    FillMaskPipeline,
    FeatureExtractionPipeline,
    TextClassificationPipeline,
    TokenClassificationPipeline,
    QuestionAnsweringPipeline,
    ZeroShotClassificationPipeline,
    Text2TextGenerationPipeline,
    SummarizationPipeline,
    TranslationPipeline,
    TableQuestionAnsweringPipeline,
    SentenceEmbeddingPipeline,
    RerankingPipeline,
)
TASKS = {kind.task: kind for kind in KINDS}
PAIR = re.compile("translation_[^_]+_to_[^_]+")  # of languages
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
# Where no model is named: the checkpoints of the reference, at the commits that it names (versions 4.57 and 5.23), and
# those that the documentation of sentence-transformers begins with.
# text-generation takes the model inside the package.
DEFAULT_MODELS = {
    "text-classification": ("distilbert/distilbert-base-uncased-finetuned-sst-2-english", "714eb0f"),
    "token-classification": ("dbmdz/bert-large-cased-finetuned-conll03-english", "4c53496"),
    "question-answering": ("distilbert/distilbert-base-cased-distilled-squad", "564e9b5"),
    "table-question-answering": ("google/tapas-base-finetuned-wtq", "e3dde19"),
    "fill-mask": ("distilbert/distilroberta-base", "fb53ab8"),
    "zero-shot-classification": ("facebook/bart-large-mnli", "d7645e1"),
    "feature-extraction": ("distilbert/distilbert-base-cased", "6ea8117"),
    "summarization": ("sshleifer/distilbart-cnn-12-6", "a4f8f3e"),
    "translation": ("google-t5/t5-base", "a9723ea"),
    "text2text-generation": ("google-t5/t5-base", "a9723ea"),
    "sentence-embedding": ("sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"),
    "reranking": ("cross-encoder/ms-marco-MiniLM-L6-v2", "c5ee24cb16019beea0893ab7796b1df96625c6b8"),
}
# Of the reference, versions 4 and 5, and about more than text.
NOT_TEXT = """
    any-to-any audio-classification automatic-speech-recognition decision depth-estimation document-question-answering
    image-classification image-feature-extraction image-segmentation image-text-to-text image-to-image image-to-text
    keypoint-matching mask-generation object-detection text-to-audio text-to-speech video-classification
    visual-question-answering vqa zero-shot-audio-classification zero-shot-image-classification
    zero-shot-object-detection
    """.split()


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
    framework: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    pipeline_class: type[Pipeline] | None = None,
    **defaults: Any,
) -> Any:
    """A task, ready to be called.

    Args:
        task: a name or alias of docs/tasks.md; None for the one that the checkpoint was trained for.
        model: a path, a hub id or a loaded model; None for the one of `DEFAULT_MODELS`, which is said, or else the one
            inside the package. Pipelines share a model that they are given.
        framework: "pt"; version 4 knew others.
        pipeline_class: a `Pipeline` of your own, in place of the task's.
        defaults: options of the call, for every call.

    Raises:
        ArgumentError: a task that does not exist; says which one was meant.
    """
    if framework not in (None, "pt"):
        raise ArgumentError(f"framework={framework!r}", where="framework", next="leave it out: it is torch")
    kind, named = _kind(_task_of(model) if task is None else task)
    kind = pipeline_class or kind
    if model is None and kind.task in DEFAULT_MODELS:
        model, revision = DEFAULT_MODELS[kind.task]
        log.warning("%s: no model was named; this is %s at %s", kind.task, model, revision)
    folder = model
    kind.check_options(defaults, [*signature(pipeline).parameters])
    if not isinstance(model, PreTrainedModel):
        options = {
            "config": config, "dtype": dtype, "torch_dtype": torch_dtype, "device": _device(device),
            "device_map": device_map, "trust_remote_code": trust_remote_code, **(model_kwargs or {}),
        }  # fmt: skip
        model, folder = kind.opened(model, {"revision": revision, "token": token}, options)
    elif tokenizer is None:
        folder = model.folder
        if folder is None:
            raise ArgumentError("the model came from no folder", where="tokenizer", next="pass tokenizer=…")
    if isinstance(model, PreTrainedModel) and not isinstance(tokenizer, Tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(
            folder if tokenizer is None else tokenizer,
            revision=revision,
            token=token,
            use_fast=use_fast,
        )
    made: Any = kind
    return made(model, tokenizer, **named, **defaults)


def _kind(task: Any) -> tuple[type[Pipeline], dict[str, str]]:
    """The pipeline of a name or an alias, and the name where it says a pair of languages.

    Raises:
        ArgumentError: no such task. Unsupported: one that is about more than text.
    """
    if task in NOT_TEXT:
        what = f"{task} reads or makes more than text"
        raise Unsupported(what, where="pipeline", next=f"tasks so far: {', '.join(TASKS)}")
    pair = PAIR.fullmatch(task) if isinstance(task, str) else None
    found = TASKS.get("translation" if pair else ALIASES.get(task, task))
    if found is None:
        near = nearest(str(task), [*TASKS, *ALIASES])
        raise ArgumentError(f"there is no task {task!r}", where="pipeline", next=near or f"known: {', '.join(TASKS)}")
    return found, {"name": task} if pair else {}


def _task_of(model: Any) -> str:
    """The first task that a model, or the checkpoint of a folder or id, was made for."""
    heads: list[Task | None]
    if isinstance(model, PreTrainedModel):
        heads, said = [model.task], f"a {model.task} model"
    elif model is None:
        raise ArgumentError("no task given", where="pipeline", next=f"name one of {', '.join(TASKS)}")
    else:
        config, family = families.read_config(hub.resolve(model, want="config"))
        named = config.get("architectures") or []
        heads = [head for head, name in family.classes.items() if name in named]
        said = f"architectures {named}"
    for kind in KINDS:
        if any(each.TASK in heads for each in kind.models):
            return kind.task
    raise Unsupported(f"no pipeline for {said}", where="pipeline", next=f"name one of {', '.join(TASKS)}")


def _device(device: Any) -> Any:
    """The reference's -1 for the CPU, a number for an accelerator."""
    if isinstance(device, int):
        return "cpu" if device < 0 else f"cuda:{device}"
    return device
