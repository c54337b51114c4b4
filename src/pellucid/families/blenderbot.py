"""Blenderbot, 400M to 9B. Paper: arXiv 2004.13637."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec

CLASSES = b.both("Blenderbot", *b.WRITING)
DEFAULTS = b.DEFAULTS | {
    "vocab_size": 8008, "max_position_embeddings": 128, "encoder_layers": 2, "encoder_ffn_dim": 10240,
    "encoder_attention_heads": 32, "decoder_layers": 24, "decoder_ffn_dim": 10240, "decoder_attention_heads": 32,
    "d_model": 2560, "pad_token_id": 0, "bos_token_id": 1, "decoder_start_token_id": 1,
}  # fmt: skip
ALIASES, IGNORED = b.ALIASES, b.IGNORED | {"layernorm_variant": None, "do_blenderbot_90_layernorm": None}

BASE = "model."
WEIGHTS = b.table


def spec(c: Config) -> Spec:
    return b.encoder_decoder(c, "blenderbot", order=b.PRE, positions=b.learned(c))
