"""ModernVBERT: its text part, a ModernBERT. Paper: arXiv 2510.01149."""

from dataclasses import replace
from types import ModuleType

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import modernbert
from pellucid.families._encoder import classes
from pellucid.families._text import text_part
from pellucid.families.modernbert import hidden
from pellucid.spec import Pool, SequenceHead, Spec, Task, TokenHead
from pellucid.weights.table import Entry, Unused

CLASSES = classes("ModernVBert", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "text_config": None, "vision_config": None, "image_token_id": 50407, "pixel_shuffle_factor": 4,
    "classifier_pooling": "cls", "classifier_dropout": 0.0, "classifier_bias": False, "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = {
    "vision_config": None, "image_token_id": None, "pixel_shuffle_factor": None,  # of the eyes
    "initializer_cutoff_factor": None, "classifier_bias": None,  # the text part has its own
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = {
    **{name.replace("model.", "model.text_model.", 1): entry for name, entry in modernbert.WEIGHTS.items()},
    "model.vision_model.*": Unused("reads pictures, not text", kept=True),
    "model.connector.*": Unused("reads pictures, not text", kept=True),
}
HEADS: dict[Task | None, dict[str, Entry]] = {
    "masked-lm": hidden("lm_head.transform", "projection_head") | {"lm_head.{p}": "lm_head.out.{p}"},
    "sequence-classification": modernbert.LABELS, "token-classification": modernbert.LABELS,
}  # fmt: skip


def spec(c: Config) -> Spec:
    return seeing(c, modernbert, "modernvbert")


def seeing(c: Config, family: ModuleType, name: str) -> Spec:
    """The text part with the pooling and the dropout of the whole."""
    part, drop = text_part(c, family, name), c.share("classifier_dropout")
    sequence, token = part.heads["sequence-classification"], part.heads["token-classification"]
    if c.classifier_pooling not in ("cls", "mean"):
        what = f"classifier_pooling={c.classifier_pooling!r}"
        raise ConfigError(what, where=c.where, next="use 'cls' or 'mean'")
    assert isinstance(sequence, SequenceHead) and isinstance(token, TokenHead)
    pool: Pool = "mean" if c.classifier_pooling == "mean" else "first"
    return replace(part, heads={
        "masked-lm": part.heads["masked-lm"],
        "sequence-classification": replace(sequence, pool=pool, dropout=drop),
        "token-classification": replace(token, dropout=drop),
    })  # fmt: skip
