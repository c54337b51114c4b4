"""sentence-embedding and reranking, for which people install a library beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid import hub
from pellucid.compat import auto
from pellucid.compat.modeling import PreTrainedModel
from pellucid.compat.pipelines.base import Pipeline, with_lost
from pellucid.errors import ArgumentError
from pellucid.tasks.fit import report_misfit
from pellucid.tasks.flow import whole_number
from pellucid.tasks.reranking import Ranked, cross_model
from pellucid.tasks.rows import InputRefused
from pellucid.tasks.sentence_layout import prompt_named, read_layout
from pellucid.tasks.sentences import Embedding, How, task_of, with_layout
from pellucid.text.tokenizer import Tokenizer


class SentenceEmbeddingPipeline(Pipeline):
    """A vector for each text, as a list of numbers, by what the folder's modules.json says: `SentenceTransformer`.

    Options:
        prompt_name, prompt: the name of one of the model's prompts, or a text, to put before each.
        windows: read all of a text that is too long, in windows whose vectors are averaged; else it is cut.
        normalize_embeddings: to length 1.
        truncate_dim: so many dimensions, the first.
        return_tensors: True for tensors.
        return_embeddings: True for an `Embedding` of each text, which also has its tokens and what was dropped.
    """

    task = "sentence-embedding"
    models = (auto.AutoModel, auto.AutoModelForTextEncoding)

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, **defaults: Any) -> None:
        self.model, self.defaults = model, defaults
        self.check_options(defaults)
        report_misfit(model, tokenizer)
        if model.folder is None:
            raise ArgumentError("the model came from no folder", where="model", next="save it, and give the folder")
        self.made = with_layout(model, tokenizer, read_layout(model.folder))
        self.tokenizer = self.made.tokenizer

    @classmethod
    def source(cls, model: Any, **where: Any) -> tuple[type[PreTrainedModel], Any]:
        inner = read_layout(hub.resolve(model, **where)).inner
        return cls.models[task_of(inner) == "text-encoding"], inner

    def run(
        self,
        inputs: list[Any],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        windows: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Sequence[Embedding]:
        layout = self.made.layout
        before = prompt if prompt is not None else prompt_named(prompt_name, layout.prompts, layout.default_prompt)
        dim = layout.dim if truncate_dim is None else whole_number("truncate_dim", truncate_dim)
        return self.made.embed(inputs, How(before, windows, dim, normalize_embeddings))

    def show(self, found: Embedding, *, return_tensors: bool = False, return_embeddings: bool = False) -> Any:
        if return_embeddings:
            return found
        return found.vector if return_tensors else found.vector.tolist()


class RerankingPipeline(Pipeline):
    """`[{"corpus_id", "score", "text"}, …]` of a query's documents, the best first, by a cross-encoder.

    An input is a query, and `documents` are those of every one; or it is a dict, `{"query", "documents"}`.

    Options:
        documents: texts.
        top_k: so many of the best; None for all.
    """

    task = "reranking"
    models = (auto.AutoModelForSequenceClassification,)

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, **defaults: Any) -> None:
        super().__init__(model, tokenizer, **defaults)
        self.made = cross_model(model, tokenizer, model.folder)
        self.made.require_one_label()

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, str | Mapping)

    def run(
        self, inputs: list[Any], *, documents: Sequence[str] | None = None, top_k: int | None = None
    ) -> list[list[tuple[Ranked, str]]]:
        most = None if top_k is None else whole_number("top_k", top_k)
        found = []
        for row, each in enumerate(inputs):
            query, texts = _asked(row, each, documents)
            found.append([(one, texts[one.index]) for one in self.made.rank(query, texts)[:most]])
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
