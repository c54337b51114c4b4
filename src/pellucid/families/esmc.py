"""ESM Cambrian: a protein language model. EvolutionaryScale, 2024, "ESM Cambrian"."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, attention, gated, under
from pellucid.families._encoder import HIDDEN, classes, encoder
from pellucid.spec import (
    Block,
    Dense,
    Embed,
    LayerNorm,
    LmHead,
    PreNorm,
    QkNorm,
    SequenceHead,
    Spec,
    TokenHead,
    Transform,
)  # fmt: skip

CLASSES = classes("Esmc", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 64, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 80,
    "num_attention_heads": 40, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "mask_token_id": 32,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "classifier_dropout": 0.1,
}  # fmt: skip
IGNORED = {"tie_word_embeddings": (False,)}

BASE = "esmc."
WEIGHTS = {
    "lm_head.dense.{p}": "lm_head.transform.dense.{p}",
    "lm_head.layer_norm.{p}": "lm_head.transform.norm.{p}",
    "lm_head.decoder.{p}": "lm_head.out.{p}",
} | under("esmc.", LLAMA | QK_NORM)
HEADS = HIDDEN


def spec(c: Config) -> Spec:
    norm, bare, layers = LayerNorm(eps=1e-5), LayerNorm(eps=1e-5, bias=False), c.layers("num_hidden_layers")
    attn = replace(attention(c, qk_norm=QkNorm(norm=bare, over="full")), causal=False)
    scale = (36 / layers) ** 0.5
    block = Block(attn=attn, mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=norm), residual_scale=scale)
    labels, drop = c.size("num_labels"), c.share("classifier_dropout", null=0.1)
    return encoder(
        c, "esmc", [block] * layers, embed=Embed(vocab=c.size("vocab_size")), norm=bare, pooler=None,
        heads={
            "masked-lm": LmHead(tied=False, bias=True, transform=Transform(act="gelu", norm=norm)),
            "sequence-classification": SequenceHead(
                labels=labels, pool="first", hidden=Dense(act="tanh"), dropout=drop
            ),
            "token-classification": TokenHead(labels=labels, dropout=drop),
        },
        context=c.size("max_position_embeddings"),
    )  # fmt: skip
