"""RoBERTa. Paper: arXiv 1907.11692."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    BERT,
    HIDDEN,
    ROBERTA,
    USUAL,
    classes,
    counted,
    embedding,
    encoder,
    heads,
    lm_head,
)
from pellucid.spec import Dense, Spec

CLASSES = classes("Roberta", *USUAL, "causal-lm", pretraining="masked-lm", encoding=True)
DEFAULTS = shared.ROBERTA_DEFAULTS
IGNORED = shared.IGNORED

BASE = "roberta."
WEIGHTS = under("roberta.", BERT, "bert.") | ROBERTA
HEADS = HIDDEN


def spec(c: Config) -> Spec:
    return roberta(c, "roberta")


def roberta(c: Config, family: str, **parts: Any) -> Spec:
    """The same model under its other names; `parts` say what differs (`_encoder.encoder`)."""
    found = heads(c, lm_head(c, act="gelu"), hidden=Dense(act="tanh"), pool="first")
    return encoder(c, family, heads=found, **{"embed": embedding(c, positions=counted(c))} | parts)
