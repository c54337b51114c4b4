"""Gemma 2. Paper: arXiv 2408.00118."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._read import activation, grouped_heads, read_rope
from pellucid.families.llama import WEIGHTS as LLAMA
from pellucid.spec import (
    Attention,
    Block,
    Embed,
    LmHead,
    Mlp,
    RmsNorm,
    Sandwich,
    SequenceHead,
    Spec,
    Stack,
    TokenHead,
)

CLASSES = {
    None: "Gemma2Model", "causal-lm": "Gemma2ForCausalLM",
    "sequence-classification": "Gemma2ForSequenceClassification",
    "token-classification": "Gemma2ForTokenClassification",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "attention_bias": False, "attention_dropout": 0.0,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "layer_types": None, "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES: dict[str, str] = {}
IGNORED = {
    "hidden_act": None,  # early files say "gelu" here and mean hidden_activation
    "use_bidirectional_attention": (None, False),
}

BASE = "model."
WEIGHTS = LLAMA | {
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.attn_post_norm.weight",  # Llama: before the MLP
    "model.layers.{i}.pre_feedforward_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.post_feedforward_layernorm.weight": "blocks.{i}.mlp_post_norm.weight",
}


def spec(c: Config) -> Spec:
    norm = RmsNorm(eps=c.number("rms_norm_eps", float), offset=1.0, round_first=False)
    heads, kv_heads, head_dim = grouped_heads(c)
    full = Attention(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, causal=True,
        # not head_dim: 144 against 128 in the 27B model
        scale=c.number("query_pre_attn_scalar", float, least=1e-6) ** -0.5,
        biases="qkvo" if c.attention_bias else "", rope=read_rope(c, head_dim),
        cap=c.number("attn_logit_softcapping", float, least=1e-6, null=None),
        dropout=c.share("attention_dropout"),
    )  # fmt: skip
    kinds = {
        "full_attention": full,
        "sliding_attention": replace(full, window=c.size("sliding_window", null=None)),
    }
    layers = c.layers("num_hidden_layers")
    types = c.layer_types or [("sliding_attention", "full_attention")[i % 2] for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not all(kind in [*kinds] for kind in types):
        raise ConfigError(f"layer_types={types} for {layers} layers", where=c.where, next=f"use {sorted(kinds)}")
    mlp = Mlp(hidden=c.size("intermediate_size"), act=activation(c.hidden_activation, c), gated=True)
    width, labels = c.size("hidden_size"), c.size("num_labels")
    cap = c.number("final_logit_softcapping", float, least=1e-6, null=None)
    return Spec(
        family="gemma2",
        stack=Stack(
            width=width, embed=Embed(vocab=c.size("vocab_size"), scale=width**0.5), norm=norm,
            blocks=tuple(Block(attn=kinds[kind], mlp=mlp, order=Sandwich(norm=norm)) for kind in types),
        ),
        heads={
            "causal-lm": LmHead(tied=c.tie_word_embeddings, cap=cap),
            "sequence-classification": SequenceHead(labels=labels, pool="last", bias=False),
            "token-classification": TokenHead(labels=labels, dropout=0.1),
        },
        context=c.size("max_position_embeddings"),
    )  # fmt: skip
