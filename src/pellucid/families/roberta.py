"""RoBERTa. Paper: arXiv 1907.11692."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families import bert
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
from pellucid.families._gguf import AROUND, Gguf
from pellucid.spec import Dense, Spec
from pellucid.weights.table import Behind

CLASSES = classes("Roberta", *USUAL, "causal-lm", pretraining="masked-lm", encoding=True)
DEFAULTS = shared.ROBERTA_DEFAULTS
IGNORED = shared.IGNORED

BASE = "roberta."
WEIGHTS = under("roberta.", BERT, "bert.") | ROBERTA
HEADS = HIDDEN


def shifted(c: Config) -> dict[str, Any]:
    """As BERT, whose positions begin at 0."""
    return {**c.to_dict(), "max_position_embeddings": c.max_position_embeddings - c.pad_token_id - 1}


GGUF = Gguf(
    bert.GGUF.keys,
    lambda c: AROUND | {"position_embd.weight": Behind("embed.positions.weight", c.pad_token_id + 1)}, alike=shifted,
)  # fmt: skip


def spec(c: Config) -> Spec:
    return roberta(c, "roberta")


def roberta(c: Config, family: str, **parts: Any) -> Spec:
    """The same model under its other names; `parts` say what differs (`_encoder.encoder`)."""
    found = heads(c, lm_head(c, act="gelu"), hidden=Dense(act="tanh"), pool="first")
    return encoder(c, family, heads=found, **{"embed": embedding(c, positions=counted(c))} | parts)
