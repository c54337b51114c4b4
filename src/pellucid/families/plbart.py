"""PLBART. Paper: arXiv 2103.06333."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec

CLASSES = b.both("PLBart", "seq2seq-lm", "causal-lm", "sequence-classification")
DEFAULTS = b.DEFAULTS | {
    "vocab_size": 50005, "encoder_layers": 6, "encoder_ffn_dim": 3072, "encoder_attention_heads": 12,
    "decoder_layers": 6, "decoder_ffn_dim": 3072, "decoder_attention_heads": 12, "d_model": 768,
    "attention_dropout": 0.1, "scale_embedding": True, "decoder_start_token_id": None,
}  # fmt: skip
ALIASES, IGNORED = b.ALIASES, b.IGNORED

BASE = "model."
WEIGHTS = b.table


def spec(c: Config) -> Spec:
    return b.encoder_decoder(c, "plbart", order=b.POST, positions=b.learned(c, 2), embed_norm=b.NORM, start="last")
