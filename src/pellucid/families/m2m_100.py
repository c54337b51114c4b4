"""M2M-100 and NLLB-200. Papers: arXiv 2010.11125, 2207.04672."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec

CLASSES = b.both("M2M100", "seq2seq-lm")
DEFAULTS = b.DEFAULTS | {
    "vocab_size": 128112, "activation_function": "relu", "attention_dropout": 0.1, "scale_embedding": True,
}  # fmt: skip
ALIASES, IGNORED = b.ALIASES, b.IGNORED

BASE = "model."
WEIGHTS = b.table_with_waves


def spec(c: Config) -> Spec:
    return b.encoder_decoder(c, "m2m_100", order=b.PRE, positions=b.fairseq(c), fixed_bias=False)
