"""ALBERT: one layer, or a few groups of them, run many times. Paper: arXiv 1909.11942."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    BERT,
    CLS,
    USUAL,
    attention,
    before_labels,
    classes,
    embedding,
    encoder,
    heads,
    layer_norm,
    lm_head,
    mlp,
)
from pellucid.spec import Block, PairHead, PostNorm, PretrainingHead, Projection, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Albert", *USUAL, "pretraining", encoding=True)
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 30000, "embedding_size": 128, "hidden_size": 4096, "num_hidden_groups": 1, "inner_group_num": 1,
    "num_attention_heads": 64, "intermediate_size": 16384, "hidden_act": "gelu_new", "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.1, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    # of the code it was released with, which never read them
    "net_structure_type": (0,), "gap_size": (0,), "num_memory_blocks": (0,), "down_scale_factor": (1,),
}  # fmt: skip

BASE = "albert."
LAYER = {
    "attention.query": "attn.q", "attention.key": "attn.k", "attention.value": "attn.v", "attention.dense": "attn.o",
    "attention.LayerNorm": "attn_norm", "ffn": "mlp.up", "ffn_output": "mlp.down", "full_layer_layer_norm": "mlp_norm",
}  # fmt: skip


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    groups, inner = c.size("num_hidden_groups"), c.size("inner_group_num")
    layers: dict[str, Entry] = {
        f"albert.encoder.albert_layer_groups.{g}.albert_layers.{i}.{name}.{{p}}": f"blocks.{g * inner + i}.{slot}.{{p}}"
        for g in range(groups) for i in range(inner) for name, slot in LAYER.items()
    }  # fmt: skip
    return (
        layers
        | {
            "albert.encoder.embedding_hidden_mapping_in.{p}": "embed.project.{p}",
            "albert.pooler.{p}": "pooler.dense.{p}",
            "predictions.dense.{p}": "lm_head.transform.dense.{p}",
            "predictions.LayerNorm.{p}": "lm_head.transform.norm.{p}",
            "predictions.decoder.weight": "lm_head.out.weight",
            "predictions.bias": "lm_head.out.bias",
            "predictions.decoder.bias": "lm_head.out.bias",
            "sop_classifier.classifier.{p}": "next_sentence.out.{p}",
        }
        | under(BASE, BERT, "bert.")
        | CLS
    )


def spec(c: Config) -> Spec:
    layers, groups, inner = c.layers("num_hidden_layers"), c.layers("num_hidden_groups"), c.layers("inner_group_num")
    if groups > layers:
        raise ConfigError(f"{groups} groups for {layers} layers", where=c.where, next="correct num_hidden_groups")
    depth = tuple(step * groups // layers * inner + i for step in range(layers) for i in range(inner))
    block = Block(attn=attention(c), mlp=mlp(c), order=PostNorm(norm=layer_norm(c)), dropout=c.hidden_dropout_prob)
    size = c.size("embedding_size")
    lm, order = lm_head(c, width=size), PairHead(asks="order", labels=c.size("num_labels"), dropout=before_labels(c))
    found = heads(c, lm) | {"pretraining": PretrainingHead(lm=lm, pair=order)}
    embed = embedding(c, width=size, projection=Projection())
    return encoder(c, "albert", [block] * (groups * inner), embed=embed, heads=found, depth=depth)
