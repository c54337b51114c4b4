"""PEGASUS-X: PEGASUS for long texts. Paper: arXiv 2208.04347."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _bart as b
from pellucid.spec import Custom, Sinusoidal, Spec, Stack
from pellucid.weights.table import Entry

CLASSES = b.both("PegasusX", "seq2seq-lm")
DEFAULTS = b.DEFAULTS | {
    "vocab_size": 96103, "max_position_embeddings": 16384, "encoder_layers": 16, "decoder_layers": 16,
    "scale_embedding": True, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "decoder_start_token_id": 0,
    "num_global_tokens": 32, "block_size": 512, "stagger_local_blocks": True,
}  # fmt: skip
ALIASES, IGNORED = b.ALIASES, b.IGNORED

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    """BART's, with the encoder's layers in a body of their own."""
    names = {
        name: slot.replace("encoder.blocks", "encoder.body.blocks").replace("encoder.norm", "encoder.body.norm")
        if isinstance(slot, str)
        else slot
        for name, slot in b.table(c).items()
    }
    return names | {
        "model.encoder.embed_global.weight": "encoder.body.tokens.weight",
        "model.encoder.layers.{i}.global_self_attn_layer_norm.{p}": "encoder.body.blocks.{i}.global_norm.{p}",
    }


def spec(c: Config) -> Spec:
    positions, size = Sinusoidal(), c.size("block_size")
    if size % 2:
        raise ConfigError(f"block_size={size} cannot be halved", where=c.where, next="use an even number")
    embed = b.embedding(c, positions, None)
    reads, writes = b.block(c, "encoder", b.PRE), b.block(c, "decoder", b.PRE)
    full, own = b.attention(c, "encoder"), replace(b.attention(c, "decoder"), biases="")
    body = Custom(
        path="pellucid.families.pegasus_x.encoder:Encoder",
        options=(
            ("layers", c.layers("encoder_layers")), ("heads", full.heads), ("head_dim", full.head_dim),
            ("mlp", reads.mlp), ("norm", b.NORM), ("global", c.size("num_global_tokens")), ("block", size),
            ("stagger", bool(c.stagger_local_blocks)), ("dropout", reads.dropout), ("attn_dropout", full.dropout),
        ),
    )  # fmt: skip
    writes = replace(writes, attn=own, cross=replace(own, causal=False))
    sides: dict[b.Side, Stack] = {
        "encoder": Stack(width=c.size("d_model"), embed=embed, blocks=(), norm=None, body=body),
        "decoder": b.stack(c, "decoder", b.PRE, embed, [writes] * c.layers("decoder_layers")),
    }
    return b.encoder_decoder(c, "pegasus_x", order=b.PRE, positions=positions, sides=sides, fixed_bias=False)
