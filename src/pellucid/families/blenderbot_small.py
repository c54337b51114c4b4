"""Blenderbot, 90M. Paper: arXiv 2004.13637."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec, Stack

CLASSES = b.both("BlenderbotSmall", *b.WRITING)
DEFAULTS = b.DEFAULTS | {
    "max_position_embeddings": 512, "encoder_layers": 8, "encoder_ffn_dim": 2048, "decoder_layers": 8,
    "decoder_ffn_dim": 2048, "d_model": 512, "pad_token_id": 0, "bos_token_id": 1, "decoder_start_token_id": 1,
}  # fmt: skip
ALIASES, IGNORED = b.ALIASES, b.IGNORED | {"layernorm_variant": None, "do_blenderbot_90_layernorm": None}

BASE = "model."
WEIGHTS = b.table


def spec(c: Config) -> Spec:
    """The decoder norms its tokens before positions are added, and never scales them."""
    positions = b.learned(c)
    embed = b.embedding(c, positions, b.NORM)
    sides: dict[b.Side, Stack] = {
        "encoder": b.stack(c, "encoder", b.POST, embed),
        "decoder": b.stack(c, "decoder", b.POST, replace(embed, norm_first=True, scale=None)),
    }
    return b.encoder_decoder(c, "blenderbot-small", order=b.POST, positions=positions, sides=sides)
