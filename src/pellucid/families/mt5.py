"""mT5. Paper: arXiv 2010.11934."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import t5
from pellucid.families._decoder import classes
from pellucid.spec import LmHead, Spec

CLASSES = classes("MT5", *t5.TASKS) | {"pretraining": "MT5ForConditionalGeneration"}
DEFAULTS = t5.DEFAULTS | {
    "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
}  # fmt: skip
ALIASES, IGNORED = t5.ALIASES, t5.IGNORED

BASE = t5.BASE
WEIGHTS, HEADS = t5.WEIGHTS, t5.HEADS


def spec(c: Config) -> Spec:
    """T5 1.1: the head reads what the decoder says, unscaled, whatever the config says of tied matrices."""
    whole = t5.spec(c)
    return replace(whole, family="mt5", heads={**whole.heads, "seq2seq-lm": LmHead(tied=c.tie_word_embeddings)})
