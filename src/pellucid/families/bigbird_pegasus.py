"""BigBird-Pegasus: PEGASUS whose encoder leaves blocks out of long texts. Paper: arXiv 2007.14062."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.families.big_bird import sparse
from pellucid.spec import Block, Spec, Stack
from pellucid.weights.table import Entry

CLASSES = b.both("BigBirdPegasus", *b.LABELLED)
DEFAULTS = b.DEFAULTS | {
    "vocab_size": 96103, "max_position_embeddings": 4096, "encoder_layers": 16, "decoder_layers": 16,
    "activation_function": "gelu_new", "scale_embedding": True, "pad_token_id": 0, "bos_token_id": 2,
    "eos_token_id": 1, "attention_type": "block_sparse", "block_size": 64, "num_random_blocks": 3, "use_bias": False,
}  # fmt: skip
ALIASES = b.ALIASES | {"attention_probs_dropout_prob": "attention_dropout"}
IGNORED = b.IGNORED

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    attn, slots = "model.encoder.layers.{i}.self_attn", "encoder.blocks.{i}.attn"
    own: dict[str, Entry] = {
        f"{attn}.self.{name}.{{p}}": f"{slots}.{name[0]}.{{p}}" for name in ("query", "key", "value")
    }
    last: dict[str, Entry] = {
        "model.encoder.layernorm_embedding.{p}": "encoder.norm.{p}",
        "model.decoder.layernorm_embedding.{p}": "norm.{p}",
    }
    return own | {f"{attn}.output.{{p}}": f"{slots}.o.{{p}}"} | last | b.table(c) | last


def spec(c: Config) -> Spec:
    biases = "qkvo" if c.use_bias else ""
    reads, writes = b.block(c, "encoder", b.PRE), b.block(c, "decoder", b.PRE)
    full = replace(b.attention(c, "encoder"), biases=biases)
    reads = replace(reads, attn=sparse(c, full.heads, full.head_dim, full.dropout, biases) or full)
    own = replace(b.attention(c, "decoder"), biases=biases)
    writes = replace(writes, attn=own, cross=replace(own, causal=False))
    embed = b.embedding(c, b.learned(c), None)

    def stack(side: b.Side, block: Block) -> Stack:
        return b.stack(c, side, b.PRE, embed, [block] * c.layers(f"{side}_layers"))

    sides: dict[b.Side, Stack] = {"encoder": stack("encoder", reads), "decoder": stack("decoder", writes)}
    return b.encoder_decoder(c, "bigbird_pegasus", order=b.PRE, positions=b.learned(c), sides=sides)
