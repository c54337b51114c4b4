"""LongT5: a T5 whose encoder sees what is near, and perhaps a summary of every block. Paper: arXiv 2112.07916."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import t5
from pellucid.families._decoder import classes
from pellucid.spec import Block, Custom, RelativeBias, Spec
from pellucid.weights.table import Entry

CLASSES = classes("LongT5", "seq2seq-lm", "text-encoding") | {"pretraining": "LongT5ForConditionalGeneration"}
DEFAULTS = t5.DEFAULTS | {"local_radius": 127, "global_block_size": 16, "encoder_attention_type": "local"}
ALIASES, IGNORED = t5.ALIASES, t5.IGNORED

BASE = t5.BASE
KINDS = {"local": "LocalSelfAttention", "transient-global": "TransientGlobalSelfAttention"}
CODE = "pellucid.families.longt5.attention"


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    """T5's, but for the name of the encoder's attention, and what it has more."""
    kind = KINDS[c.encoder_attention_type]
    layer = f"encoder.block.{{i}}.layer.0.{kind}"
    names = {
        name.replace("SelfAttention", kind) if name.startswith("encoder.") else name: slot
        for name, slot in t5.WEIGHTS(c).items()
        if not name.startswith("transformer.")
    }
    return names | {
        f"{layer}.global_input_layer_norm.weight": "encoder.blocks.{i}.attn.block_norm.weight",
        layer.replace("{i}", "0") + ".global_relative_attention_bias.weight": "encoder.relative_bias.blocks.weight",
    }


def spec(c: Config) -> Spec:
    whole, kind = t5.spec(c), c.encoder_attention_type
    if kind not in KINDS:
        raise ConfigError(f"encoder_attention_type={kind!r}", where=c.where, next=f"use one of {', '.join(KINDS)}")
    encoder = whole.encoder
    assert encoder is not None and isinstance(encoder.relative_bias, RelativeBias)
    near, distances, heads = kind == "local", encoder.relative_bias, ("heads", c.size("num_heads"))
    attn = Custom(
        path=f"{CODE}:{'Near' if near else 'NearAndBlocks'}",
        options=(
            heads, ("head_dim", c.size("d_kv")), ("radius", c.size("local_radius")), ("dropout", encoder.dropout),
            ("block", c.size("global_block_size")), ("eps", c.number("layer_norm_epsilon", float)),
        ),
    )  # fmt: skip
    bias = Custom(
        path=f"{CODE}:{'Distances' if near else 'DistancesAndBlocks'}",
        options=(heads, ("buckets", distances.buckets), ("most", distances.max_distance)),
    )
    blocks = tuple(replace(block, attn=attn) for block in encoder.blocks if isinstance(block, Block))
    return replace(whole, family="longt5", encoder=replace(encoder, blocks=blocks, relative_bias=bias))
