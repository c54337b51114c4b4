"""token-classification, which people also call ner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.compat import auto
from pellucid.compat.pipelines.base import Pipeline, with_lost
from pellucid.tasks import token_classification
from pellucid.tasks.token_classification import Aggregation, Entity, Tagged


class TokenClassificationPipeline(Pipeline):
    """`[{"entity", "score", "index", "word", "start", "end"}, …]` of tokens, or of runs of them, "entity_group" then.

    A text that is too long is cut, and said so, unless there is a `stride`.

    Options:
        aggregation_strategy: "none", "simple", "first", "average" or "max".
        ignore_labels: what is left out; `["O"]` by default.
        stride: reads all of a long text, in windows that share so many tokens.
        is_split_into_words, delimiter: an input is a list of words, joined by the delimiter (a space).
        grouped_entities, ignore_subwords: version 4's names for strategies.
    """

    task = "token-classification"
    models = (auto.AutoModelForTokenClassification,)

    def __call__(self, inputs: Any, *, progress: bool = False, **options: Any) -> Any:
        if {**self.defaults, **options}.get("is_split_into_words") and isinstance(inputs, list | tuple):
            inputs = inputs if all(isinstance(words, list | tuple) for words in inputs) else [inputs]
        return super().__call__(inputs, progress=progress, **options)

    def run(
        self,
        inputs: list[Any],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] | None = None,
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str | None = None,
        grouped_entities: bool | None = None,
        ignore_subwords: bool | None = None,
    ) -> Sequence[Tagged]:
        aggregation: Any = str(getattr(aggregation_strategy, "value", aggregation_strategy)).lower()
        if grouped_entities is not None or ignore_subwords is not None:
            aggregation = older(grouped=bool(grouped_entities), whole_words=bool(ignore_subwords))
        return token_classification.tag(
            self.model, self.tokenizer, inputs, aggregation=aggregation, stride=stride,
            ignore=("O",) if ignore_labels is None else ignore_labels,
            delimiter=(" " if delimiter is None else delimiter) if is_split_into_words else None,
        )  # fmt: skip

    def show(self, found: Tagged) -> Any:
        return [with_lost(shown(one), found.dropped) for one in found.entities]


def older(*, grouped: bool, whole_words: bool) -> Aggregation:
    """What `grouped_entities` and `ignore_subwords` mean."""
    if not grouped:
        return "none"
    return "first" if whole_words else "simple"


def shown(one: Entity) -> dict[str, Any]:
    """An entity in the reference's shape."""
    place = {"word": one.word, "start": one.start, "end": one.end}
    if one.index is None:
        return {"entity_group": one.label, "score": one.score, **place}
    return {"entity": one.label, "score": one.score, "index": one.index, **place}
