"""ELECTRA: a discriminator finds the tokens that a generator replaced. Paper: arXiv 2003.10555."""

from typing import cast

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, HIDDEN, LABELS, USUAL, classes, embedding, encoder, heads, lm_head
from pellucid.families._read import activation
from pellucid.spec import ChoiceHead, Dense, Pool, PretrainingHead, Spec, TokenHead

CLASSES = classes("Electra", *USUAL, "causal-lm", "pretraining", encoding=True)
DEFAULTS = shared.DEFAULTS | {
    "embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024,
    "summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu", "summary_last_dropout": 0.1,
}  # fmt: skip
IGNORED = shared.IGNORED

BASE = "electra."
WEIGHTS = (
    {
        "electra.embeddings_project.{p}": "embed.project.{p}",
        "generator_predictions.dense.{p}": "lm_head.transform.dense.{p}",
        "generator_predictions.LayerNorm.{p}": "lm_head.transform.norm.{p}",
        "generator_lm_head.{p}": "lm_head.out.{p}",
    }
    | under(BASE, BERT, "bert.")
    | LABELS
)
HEADS = HIDDEN | {
    "multiple-choice": {"sequence_summary.summary.{p}": "classifier.dense.{p}", **LABELS},
    "pretraining": {
        "discriminator_predictions.dense.{p}": "classifier.dense.{p}",
        "discriminator_predictions.dense_prediction.{p}": "classifier.out.{p}",
    },
}


def spec(c: Config) -> Spec:
    size = c.size("embedding_size")
    replaced = TokenHead(labels=1, hidden=Dense(act=activation(c.hidden_act, c)))
    found = heads(c, lm_head(c, act="gelu", width=size), hidden=Dense(act="gelu"), pool="first") | {
        "multiple-choice": choice(c), "pretraining": PretrainingHead(lm=None, token=replaced),
    }  # fmt: skip
    return encoder(c, "electra", embed=embedding(c, width=size), heads=found, pooler=None)


def choice(c: Config) -> ChoiceHead:
    """A summary of the sequence, and one logit."""
    pool, act = c.summary_type, c.summary_activation
    if pool not in ("first", "last", "mean") or not c.summary_use_proj:
        what = f"summary_type={pool!r} with summary_use_proj={c.summary_use_proj}"
        raise ConfigError(what, where=c.where, next="use 'first', 'last' or 'mean', with a projection")
    hidden = Dense(act=activation(act, c) if act else "linear", drop_first=False)
    return ChoiceHead(pool=cast(Pool, pool), hidden=hidden, dropout=c.share("summary_last_dropout", null=0.0))
