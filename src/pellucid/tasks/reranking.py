"""Pairs of texts to scores by a cross-encoder: both are read together, so that documents can be put in order.

A cross-encoder is a model with a sequence-classification head. sentence-transformers wrote what is made of its logits
into config.json (`sbert_ce_default_activation_function`, later `sentence_transformers`) or, since version 6, beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pellucid.config import read_json
from pellucid.errors import Unsupported
from pellucid.models.model import Model
from pellucid.ops.elementwise import activation
from pellucid.spec import Activation
from pellucid.tasks.flow import forwards
from pellucid.tasks.rows import Cut, InputRefused, encode, room
from pellucid.tasks.sentence_layout import LIST, SETTINGS, read_modules, read_settings
from pellucid.tasks.sentence_layout import is_sentence_model as is_laid_out
from pellucid.tasks.sentence_modules import activation_named
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Scored:
    """Of one pair: a score for each label, [C], float32.

    Args:
        dropped: tokens of the pair that were cut off.
    """

    scores: Tensor
    dropped: int = 0


@dataclass(frozen=True)
class Ranked:
    """A document, by its number, and how well it answers the query."""

    index: int
    score: float
    dropped: int = 0


Act = Callable[[Tensor], Tensor]


@dataclass
class CrossModel:
    """A model with a sequence-classification head, its tokenizer, and what is made of its logits."""

    model: Model
    tokenizer: Tokenizer
    act: Activation
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    longest: int | None = None  # tokens of a pair

    def __post_init__(self) -> None:
        self.longest = self.longest or room(self.model, self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model."""
        return self.model.dtype

    @property
    def context(self) -> int | None:
        """Positions that the model has."""
        return self.model.spec.context

    def to(self, device: torch.device | str) -> None:
        """Moves the model."""
        self.model.to(device)

    @property
    def labels(self) -> int:
        """Scores of a pair."""
        return int(self.model.config.num_labels)

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]], act: Act | None = None, prompt: str = "") -> list[Scored]:
        """Scores of each pair.

        Args:
            act: what is made of logits [R, C]; None for what the model says.
            prompt: stands before the first text.

        Raises:
            InputRefused: one that is no pair of strings.
        """
        for i, pair in enumerate(pairs):
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise InputRefused(i, f"a pair of texts is needed, not {pair!r:.60}", next='give ("a", "b")')
        given = [(prompt + first, second) for first, second in pairs]
        rows = encode(self.model, self.tokenizer, given, cut=Cut(True, self.longest), pairs=True)
        logits_RC = torch.empty(len(rows), self.labels)
        for group, output in forwards(self.model, rows):
            logits_RC[group] = output.logits.float().cpu()
        scores_RC = activation(logits_RC, self.act) if act is None else act(logits_RC)
        return [Scored(scores_C, row.dropped) for scores_C, row in zip(scores_RC, rows)]

    def require_one_label(self) -> None:
        """
        Raises:
            Unsupported: the model has several labels, and none of them is a document's rank.
        """
        if self.labels != 1:
            what = f"the model has {self.labels} labels, a document's rank is one number"
            raise Unsupported(what, where="rank", next="score the pairs, and choose a label")

    def rank(self, query: str, documents: Sequence[str], act: Act | None = None, prompt: str = "") -> list[Ranked]:
        """Documents by their scores, the best first; of equal ones the earlier."""
        found = self.score([(query, document) for document in documents], act, prompt)
        ranked = [Ranked(i, float(each.scores[0]), each.dropped) for i, each in enumerate(found)]
        return sorted(ranked, key=lambda one: -one.score)


def cross_model(model: Model, tokenizer: Tokenizer, folder: Path | None) -> CrossModel:
    """A loaded model and tokenizer, with what the folder says of them.

    Raises:
        Unsupported: modules behind the transformer, or an activation that is not known.
    """
    values = model.config
    named = (values.get("sentence_transformers") or {}).get("activation_fn")
    named = named or values.get("sbert_ce_default_activation_function")
    prompts: dict[str, str] = {}
    default, where = None, folder or Path()
    if folder is not None and is_laid_out(folder):
        kinds = [kind for kind, _ in read_modules(folder)]
        if kinds != ["Transformer"]:
            what = f"the modules are {', '.join(kinds)}: a cross-encoder is a Transformer alone"
            raise Unsupported(what, where=folder / LIST, next="for vectors of texts use SentenceTransformer")
        settings = read_settings(folder, "CrossEncoder")
        prompts, default = settings.prompts, settings.default_prompt
    if folder is not None and (folder / SETTINGS).is_file():
        named = read_json(folder / SETTINGS).get("activation_fn") or named
    act: Activation = "sigmoid" if model.config.num_labels == 1 else "linear"
    return CrossModel(model, tokenizer, act if named is None else activation_named(named, where), prompts, default)
