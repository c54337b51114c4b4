"""Texts to labels that nobody trained for: a model of inference says how well "This example is {label}." follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pellucid.errors import ArgumentError, Unsupported
from pellucid.models.model import Model
from pellucid.tasks.rows import Cut, InputRefused, check_texts, encode
from pellucid.tasks.text_classification import Label, labels_of, logits_of
from pellucid.text.tokenizer import Tokenizer

TEMPLATE = "This example is {}."
CUT = Cut(truncation="only_first")  # of the text, so that all of the label is read


@dataclass(frozen=True)
class Judged:
    """A text and its labels, the best first.

    Args:
        dropped: tokens of the text that were cut off, where the longest label stands beside it.
    """

    text: str
    labels: list[Label]
    dropped: int = 0


def judge(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    multi: bool = False,
    cut: Cut = CUT,
) -> list[Judged]:
    """How well each label suits each text.

    Args:
        template: a sentence, with `{}` where the label goes.
        multi: each label by itself, entailment against contradiction; otherwise the scores of a text add up to 1.

    Raises:
        ArgumentError: no labels, or a template without a place for one.
        Unsupported: none of the model's labels is entailment.
    """
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ArgumentError(f"candidate_labels={labels!r}", where="candidate_labels", next="give at least one, as text")
    hypotheses = [filled(template, label) for label in labels]
    follows = entailment(model)
    denied = -1 if follows == 0 else 0
    n = len(labels)
    check_texts(texts)
    try:
        rows = encode(model, tokenizer, list(product(texts, hypotheses)), cut=cut, pairs=True)
    except InputRefused as error:
        raise error.at(error.row // n) from None
    logits_RNC = logits_of(model, rows).unflatten(0, (-1, n)) if rows else []
    found = []
    for i, (text, logits_NC) in enumerate(zip(texts, logits_RNC)):
        if multi or n == 1:
            scores = logits_NC[:, [denied, follows]].softmax(-1)[:, 1].tolist()
        else:
            scores = logits_NC[:, follows].softmax(-1).tolist()
        judged = sorted((Label(name, score) for name, score in zip(labels, scores)), key=lambda label: -label.score)
        found.append(Judged(text, judged, max(row.dropped for row in rows[i * n : (i + 1) * n])))
    return found


def filled(template: str, label: str) -> str:
    """The sentence that says a label of a text.

    Raises:
        ArgumentError: the template has no place for one label, or for more.
    """
    try:
        with_label, with_another = template.format(label), template.format(f"{label}?")
    except (LookupError, ValueError, AttributeError):  # "{} {}", "{x}", "{", "{.x}", a template that is no text
        with_label = with_another = ""
    if with_label == with_another:
        what = f"no one place for a label in {template!r}"
        raise ArgumentError(what, where="hypothesis_template", next="write {} there")
    return with_label


def entailment(model: Model) -> int:
    """Which of a model's labels says that the second text follows from the first.

    Raises:
        Unsupported: none is called so.
    """
    names = labels_of(model)
    found = [i for i, name in enumerate(names) if name.lower().startswith("entail")]
    if not found:
        what = (
            f"none of the labels {', '.join(names[:6])} is entailment: the model is none of inference, or has no names"
        )
        next = "give an NLI checkpoint, or name its labels: model_kwargs={'id2label': {0: 'contradiction', 1: …}}"
        raise Unsupported(what, where=model.config.where, next=next)
    return found[0]
