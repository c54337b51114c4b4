"""text-classification, zero-shot-classification, fill-mask, feature-extraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.compat import auto
from pellucid.compat.modeling import PreTrainedModel
from pellucid.compat.pipelines.base import Pipeline, cut_of, with_lost
from pellucid.errors import ArgumentError
from pellucid.tasks import fill_mask, hidden, text_classification, zero_shot_classification
from pellucid.tasks.fill_mask import Filled
from pellucid.tasks.hidden import Hidden
from pellucid.tasks.rows import InputRefused
from pellucid.tasks.text_classification import Classified
from pellucid.tasks.zero_shot_classification import Judged
from pellucid.text.tokenizer import Tokenizer


class TextClassificationPipeline(Pipeline):
    """`{"label", "score"}` of the best label, or a list of those of `top_k`, for each text.

    A pair of texts is a dict, `{"text", "text_pair"}`. The result for one text without `top_k` in the call is a list of
    one, as it is in the reference.

    Options:
        top_k: how many labels, the best first; None for all.
        function_to_apply: "softmax", "sigmoid" or "none"; by default what the model was trained for.
        return_all_scores: version 4's name for `top_k=None`, in the order of the model's labels.
        truncation, max_length, padding: as of the tokenizer; nothing is padded.
    """

    task = "text-classification"
    models = (auto.AutoModelForSequenceClassification,)

    def __call__(self, inputs: Any, *, progress: bool = False, **options: Any) -> Any:
        found = super().__call__(inputs, progress=progress, **options)
        return [found] if isinstance(inputs, str) and "top_k" not in options else found

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, str | Mapping)

    def run(
        self,
        inputs: list[Any],
        *,
        function_to_apply: str | None = None,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        padding: bool | str | None = None,
    ) -> Sequence[Classified]:
        return text_classification.classify(
            self.model, self.tokenizer, [pair_of(row, each) for row, each in enumerate(inputs)],
            scoring=text_classification.check_scoring("function_to_apply", function_to_apply),
            cut=cut_of(None, truncation=truncation, max_length=max_length),
        )  # fmt: skip

    def show(self, found: Classified, *, top_k: int | None | str = "", return_all_scores: bool | None = None) -> Any:
        if top_k != "" and (type(top_k) is not int or top_k < 1) and top_k is not None:
            raise ArgumentError(f"top_k={top_k!r}", where="top_k", next="use a whole number, or None for all labels")
        if top_k == "" and not return_all_scores:
            best = max(found.labels, key=lambda label: label.score)
            return with_lost({"label": best.name, "score": best.score}, found.dropped)
        labels = found.labels if top_k == "" else found.best(top_k)  # type: ignore[arg-type]  # a number or None
        return [with_lost({"label": one.name, "score": one.score}, found.dropped) for one in labels]


def pair_of(row: int, given: Any) -> Any:
    """A text, or two of them from a dict.

    Raises:
        InputRefused: a dict with other keys.
    """
    if not isinstance(given, Mapping):
        return given
    if "text" not in given or given.keys() - {"text", "text_pair"}:
        raise InputRefused(row, f"a dict of {', '.join(map(repr, given))}", next='give {"text": …, "text_pair": …}')
    return given["text"] if given.get("text_pair") is None else (given["text"], given["text_pair"])


class ZeroShotClassificationPipeline(Pipeline):
    """`{"sequence", "labels", "scores"}` for each text, the best label first.

    Options:
        candidate_labels: a list, or a string with commas; also the second argument of the call.
        hypothesis_template: what a label is put into; "This example is {}." by default.
        multi_label: every label by itself; `multi_class` is version 4's name.
    """

    task = "zero-shot-classification"
    models = (auto.AutoModelForSequenceClassification,)

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, **defaults: Any) -> None:
        super().__init__(model, tokenizer, **defaults)
        zero_shot_classification.entailment(model)

    def __call__(self, inputs: Any, candidate_labels: Any = None, *, progress: bool = False, **options: Any) -> Any:
        options |= {} if candidate_labels is None else {"candidate_labels": candidate_labels}
        return super().__call__(inputs, progress=progress, **options)

    def run(
        self,
        inputs: list[Any],
        *,
        candidate_labels: str | Sequence[str] = (),
        hypothesis_template: str = zero_shot_classification.TEMPLATE,
        multi_label: bool = False,
        multi_class: bool | None = None,
    ) -> Sequence[Judged]:
        if isinstance(candidate_labels, str):
            candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
        return zero_shot_classification.judge(
            self.model, self.tokenizer, inputs, candidate_labels, template=hypothesis_template,
            multi=multi_label if multi_class is None else multi_class,
        )  # fmt: skip

    def show(self, found: Judged) -> Any:
        labels = {"labels": [one.name for one in found.labels], "scores": [one.score for one in found.labels]}
        return with_lost({"sequence": found.text, **labels}, found.dropped)


class FillMaskPipeline(Pipeline):
    """`[{"score", "token", "token_str", "sequence"}, …]` for each text; a list of these where there are more masks.

    Options:
        top_k: guesses for each mask.
        targets: a word or words to choose from.
        tokenizer_kwargs: `truncation` and `max_length`.
    """

    task = "fill-mask"
    models = (auto.AutoModelForMaskedLM,)

    def __call__(self, inputs: Any, *, progress: bool = False, **options: Any) -> Any:
        found = super().__call__(inputs, progress=progress, **options)
        return found[0] if isinstance(inputs, list) and len(inputs) == 1 else found  # so does the reference

    def run(
        self,
        inputs: list[Any],
        *,
        top_k: int | None = 5,
        targets: str | Sequence[str] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
    ) -> Sequence[Filled]:
        return fill_mask.fill(
            self.model, self.tokenizer, inputs, top_k=5 if top_k is None else top_k,
            targets=[targets] if isinstance(targets, str) else targets, cut=cut_of(tokenizer_kwargs),
        )  # fmt: skip

    def show(self, found: Filled) -> Any:
        masks = [[with_lost(dict(vars(guess)), found.dropped) for guess in mask] for mask in found.masks]
        return masks[0] if len(masks) == 1 else masks


class FeatureExtractionPipeline(Pipeline):
    """Hidden states of each token, `[1, T, D]` as nested lists, or a tensor.

    Options:
        return_tensors: True for tensors.
        truncation, tokenize_kwargs: as of the tokenizer.
    """

    task = "feature-extraction"
    models = (auto.AutoModel,)

    def run(
        self,
        inputs: list[Any],
        *,
        truncation: bool | str | None = None,
        tokenize_kwargs: Mapping[str, Any] | None = None,
    ) -> Sequence[Hidden]:
        if truncation is not None and "truncation" in (tokenize_kwargs or {}):
            raise ArgumentError("truncation is given twice", where="tokenize_kwargs", next="give it once")
        return hidden.extract(self.model, self.tokenizer, inputs, cut=cut_of(tokenize_kwargs, truncation=truncation))

    def show(self, found: Hidden, *, return_tensors: bool | str = False) -> Any:
        return found.states[None] if return_tensors else [found.states.float().tolist()]
