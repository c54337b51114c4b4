"""EuroBERT: Llama's layers, read in both directions. Paper: arXiv 2503.05500."""

from dataclasses import replace
from typing import cast

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import LLAMA, attention, gated, rms
from pellucid.families._encoder import classes, encoder
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, rope
from pellucid.spec import Block, Dense, Embed, LmHead, Pool, PreNorm, SequenceHead, Spec, TokenHead

CLASSES = classes("EuroBert", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 128256, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "pad_token_id": 128001, "bos_token_id": 128000,
    "eos_token_id": 128001, "mask_token_id": 128002, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
    "classifier_pooling": "late",
}  # fmt: skip
IGNORED = {"pretraining_tp": None, "clf_pooling": None, "hidden_dropout": (0.0,)}
POOLS = {"bos": "first", "mean": "mean", "late": "late"}

BASE = "model."
WEIGHTS = {"dense.{p}": "classifier.dense.{p}", "classifier.{p}": "classifier.out.{p}"} | LLAMA
GGUF = Gguf(KEYS | RMS | HEAD_DIM, DECODER, more=rope)


def spec(c: Config) -> Spec:
    if c.classifier_pooling not in POOLS:
        what = f"classifier_pooling={c.classifier_pooling!r}"
        raise ConfigError(what, where=c.where, next=f"use one of {', '.join(POOLS)}")
    attn = replace(attention(c), causal=False)
    block = Block(attn=attn, mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=rms(c)))
    labels, pool = c.size("num_labels"), cast(Pool, POOLS[c.classifier_pooling])
    return encoder(
        c, "eurobert", [block] * c.layers("num_hidden_layers"), embed=Embed(vocab=c.size("vocab_size")), norm=rms(c),
        heads={
            "masked-lm": LmHead(tied=c.tie_word_embeddings, bias=c.mlp_bias),
            "sequence-classification": SequenceHead(labels=labels, pool=pool, hidden=Dense(act="gelu")),
            "token-classification": TokenHead(labels=labels),
        },
        pooler=None, context=c.size("max_position_embeddings"),
    )  # fmt: skip
