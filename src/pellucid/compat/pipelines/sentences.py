"""sentence-embedding and reranking, for which people install a library beside the reference."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from pellucid import hub
from pellucid.compat import auto
from pellucid.compat.modeling import PreTrainedModel
from pellucid.compat.pipelines.base import Pipeline, counted, with_lost
from pellucid.errors import ArgumentError, Unsupported
from pellucid.spec import Task
from pellucid.tasks.fit import report_misfit
from pellucid.tasks.flow import whole_number
from pellucid.tasks.reranking import Ranked, cross_model, task_of_pairs
from pellucid.tasks.rows import InputRefused, of_input
from pellucid.tasks.sentence_layout import copy_layout, prompt_named, read_layout, write_assumed
from pellucid.tasks.sentence_modules import Transformer
from pellucid.tasks.sentence_sources import OfTransformer
from pellucid.tasks.sentences import Embedding, How, SentenceModel, sentence_model, task_of
from pellucid.text.tokenizer import Tokenizer


class SentenceEmbeddingPipeline(Pipeline):
    """A vector for each text, as a list of numbers, by what the folder's modules.json says: `SentenceTransformer`.

    Options:
        prompt_name, prompt: the name of one of the model's prompts, or a text, to put before each.
        windows: read all of a text that is too long, in windows whose vectors are averaged; else it is cut.
        normalize_embeddings: to length 1.
        truncate_dim: so many dimensions, the first.
        task: "query", "document" …: the route, of a model that has several, and what a chat template may ask for.
        return_tensors: True for tensors.
        return_embeddings: True for an `Embedding` of each text, which also has its tokens and what was dropped.
    """

    task = "sentence-embedding"
    models = (auto.AutoModel, auto.AutoModelForTextEncoding)

    def __init__(self, model: Any, tokenizer: Any, **defaults: Any) -> None:
        """`model` is a `SentenceModel`, or the transformer of one that has no other part to load."""
        self.defaults = defaults
        self.check_options(defaults)
        if isinstance(model, SentenceModel) and tokenizer is not None:
            raise ArgumentError("the model has tokenizers of its own", where="tokenizer", next="leave it out")
        self.made = model if isinstance(model, SentenceModel) else _around(model, tokenizer)
        self.model, self.tokenizer = cast(Any, self.made.model), cast(Any, self.made.tokenizer)

    @classmethod
    def opened(cls, model: Any, where: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Any, Any]:
        layout = read_layout(hub.resolve(model, **where))

        def load(source: Transformer) -> PreTrainedModel:
            kind = cls.models[task_of(source.folder) == "text-encoding"]
            return kind.from_pretrained(source.folder, **options)

        if len(layout.chains) == 1 and layout.transformers:
            [source] = layout.transformers.values()
            return load(source), source.folder
        whole = sentence_model(layout, lambda source: (load(source), Tokenizer.from_folder(source.folder)))
        if options.get("device") is not None:
            whole.to(options["device"])
        return whole, None

    @property
    def device(self) -> torch.device:
        return self.made.device

    @property
    def dtype(self) -> torch.dtype:
        return self.made.dtype

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        save_sentence_model(self.made, Path(save_directory), {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.made.layout.folder})"

    def run(
        self,
        inputs: list[Any],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        windows: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        task: str | None = None,
    ) -> Sequence[Embedding]:
        layout = self.made.layout
        before = prompt if prompt is not None else prompt_named(prompt_name, layout.prompts, layout.default_prompt)
        dim = layout.dim if truncate_dim is None else whole_number("truncate_dim", truncate_dim)
        return self.made.embed(inputs, How(before, windows, dim, normalize_embeddings, task=task))

    def show(self, found: Embedding, *, return_tensors: bool = False, return_embeddings: bool = False) -> Any:
        if return_embeddings:
            return found
        return found.vector if return_tensors else found.vector.tolist()


def _around(model: PreTrainedModel, tokenizer: Tokenizer) -> SentenceModel:
    """The sentence model whose transformer was loaded from its folder.

    Raises:
        ArgumentError: it came from none. Unsupported: the sentence model has other parts to load.
    """
    report_misfit(model, tokenizer)
    if model.folder is None:
        raise ArgumentError("the model came from no folder", where="model", next="save it, and give the folder")
    layout = read_layout(model.folder)
    if len(layout.transformers) > 1:
        what = f"the folder has {len(layout.transformers)} models, for the routes {', '.join(layout.chains)}"
        raise Unsupported(what, where="model", next="give the folder in place of one of its models")
    return sentence_model(layout, lambda source: (model, tokenizer))


def save_sentence_model(made: SentenceModel, target: Path, settings: Mapping[str, Any], safe: bool = True) -> None:
    """Writes its transformers and their tokenizers, and the files that sentence-transformers reads beside them."""
    top = made.layout.folder
    for folder, (model, tokenizer) in made.transformers.items():
        inner = target / folder.relative_to(top)
        cast(PreTrainedModel, model).save_pretrained(inner, safe_serialization=safe)
        tokenizer.save_pretrained(inner)
    if made.layout.assumed:
        [source] = made.sources
        chat = source.chat if isinstance(source, OfTransformer) else None
        write_assumed(made.layout, source.width, chat, target, settings)
    copy_layout(top, target, settings)


RERANKERS: dict[Task | None, type[PreTrainedModel]] = {
    "sequence-classification": auto.AutoModelForSequenceClassification,
    "causal-lm": auto.AutoModelForCausalLM,
}


class RerankingPipeline(Pipeline):
    """`[{"corpus_id", "score", "text"}, …]` of a query's documents, the best first, by a cross-encoder.

    An input is a query, and `documents` are those of every one; or it is a dict, `{"query", "documents"}`.

    Options:
        documents: texts.
        top_k: so many of the best; None for all.
        prompt_name, prompt: the name of one of the model's prompts, or a text, to put before the query.
    """

    task = "reranking"
    models = tuple(RERANKERS.values())

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, **defaults: Any) -> None:
        super().__init__(model, tokenizer, **defaults)
        self.made = cross_model(model, tokenizer, model.folder)
        self.made.require_one_label()
        self.tokenizer = self.made.tokenizer

    @classmethod
    def opened(cls, model: Any, where: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Any, Any]:
        folder = hub.resolve(model, **where)
        return RERANKERS[task_of_pairs(folder)].from_pretrained(folder, **options), folder

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, str | Mapping)

    def _results(
        self, inputs: Iterable[Any], size: int | None, progress: bool, options: dict[str, Any]
    ) -> Iterator[Any]:
        """What takes long of one query are its documents: they are counted then, and else the queries."""
        alone = progress and size == 1
        return super()._results(inputs, size, progress and not alone, {**options, "progress": alone})

    def run(
        self,
        inputs: list[Any],
        *,
        documents: Sequence[str] | None = None,
        top_k: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        progress: bool = False,
    ) -> list[list[tuple[Ranked, str]]]:
        most = None if top_k is None else whole_number("top_k", top_k)
        made = self.made
        before = prompt if prompt is not None else prompt_named(prompt_name, made.prompts, made.default_prompt)
        found = []
        for row, each in enumerate(inputs):
            query, texts = _asked(row, each, documents)
            watch = partial(counted, task=self.task, size=len(texts)) if progress else iter
            with of_input(row):
                ranked = made.rank(query, texts, prompt=before, watch=watch)[:most]
            found.append([(one, texts[one.index]) for one in ranked])
        return found

    def show(self, found: list[tuple[Ranked, str]]) -> Any:
        return [
            with_lost({"corpus_id": one.index, "score": one.score, "text": text}, one.dropped) for one, text in found
        ]


def _asked(row: int, given: Any, documents: Sequence[str] | None) -> tuple[str, list[str]]:
    """A query and its documents.

    Raises:
        InputRefused: something else.
    """
    values = given if isinstance(given, Mapping) else {"query": given}
    query, texts = values.get("query"), values.get("documents", documents)
    if values.keys() - {"query", "documents"} or not isinstance(query, str):
        raise InputRefused(row, f"no query: {given!r:.60}", next='give a text, or {"query": …, "documents": […]}')
    if texts is None or isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputRefused(row, f"documents={texts!r:.60}", next="give texts in a list: documents=[…]")
    return query, list(texts)
