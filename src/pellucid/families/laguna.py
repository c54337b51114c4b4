"""Laguna: gated attention, a number of heads for each layer. huggingface.co/poolside."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import Said
from pellucid.families._moe import experts, moe_weights, sparse_layers
from pellucid.families._read import grouped_heads, read_ropes
from pellucid.spec import Block, Gate, PreNorm, QkNorm, Router, SharedExpert, Spec

CLASSES = classes("Laguna", "causal-lm")
DEFAULTS = {
    "vocab_size": 100352, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 40,
    "num_attention_heads": 48, "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "sliding_window": 512, "attention_dropout": 0.0,
    "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_experts_per_tok": 8,
    "num_experts": 256, "router_aux_loss_coef": 0.001, "layer_types": None, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None, "head_dim": 128, "attention_bias": False, "gating": None,
    "num_attention_heads_per_layer": None, "mlp_layer_types": None, "moe_routed_scaling_factor": 1.0,
    "moe_router_logit_softcapping": 0.0, "rope_scaling": None, "rope_theta": 10000.0,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    },
}  # fmt: skip
IGNORED = {"output_router_logits": None, "moe_apply_router_weight_on_input": (False,)}

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | moe_weights(bias="experts.e_score_correction_bias", shared="shared_expert") | {
    "model.layers.{i}.self_attn.g_proj.weight": "blocks.{i}.attn.gate.proj.weight",
}  # fmt: skip


def gguf_layers(said: Said) -> dict[str, Any]:
    """Which layers have a window, experts, and how many heads; what kind of gate."""
    count, first = said.get("block_count"), said.get("leading_dense_block_count", 0)
    heads = said.by_layer("attention.head_count") or [said.get("attention.head_count")] * count
    types = ["sliding_attention" if i % 4 else "full_attention" for i in range(count)]  # as llama.cpp counts
    return _gguf.ropes(said) | {
        "num_attention_heads": heads[0], "num_attention_heads_per_layer": heads,
        "gating": "per-head" if said.rows("blk.0.attn_gate.weight") == heads[0] else "per-element",
        "layer_types": types if said.get("attention.sliding_window") else ["full_attention"] * count,
        "mlp_layer_types": ["dense"] * first + ["sparse"] * (count - first),
    }  # fmt: skip


GGUF = _gguf.Gguf(
    {key: name for key, name in _gguf.UNTURNED_KEYS.items() if key != "num_attention_heads"}
    | _gguf.RMS | _gguf.HEAD_DIM | _gguf.WINDOW | _gguf.EXPERTS | {
        "moe_intermediate_size": "expert_feed_forward_length", "moe_routed_scaling_factor": "expert_weights_scale",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    },
    lambda c: _gguf.DECODER | _gguf.experts(c.num_experts) | {
        "blk.{i}.attn_gate.weight": "blocks.{i}.attn.gate.proj.weight",
    },
    more=gguf_layers,
    says=lambda c, spec: {"expert_weights_norm": True},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense, ropes = rms(c), gated(c), read_ropes(c, grouped_heads(c)[2])
    gate = Gate(per="head" if c.gating in (None, True, "per-head") else "channel", act="softplus")
    attn = attention(c, rope=None, qk_norm=QkNorm(norm=norm), gate=gate)
    layers = windows(c, attn, ropes=ropes)
    heads = c.num_attention_heads_per_layer or [attn.heads] * len(layers)
    if (
        not isinstance(heads, list)
        or len(heads) != len(layers)
        or any(type(h) is not int or h < 1 or h % attn.kv_heads for h in heads)
    ):
        what = f"num_attention_heads_per_layer={heads} for {len(layers)} layers, {attn.kv_heads} key heads"
        raise ConfigError(what, where=c.where, next="give a multiple of num_key_value_heads for each")
    router = Router(
        top_k=c.size("num_experts_per_tok"), score="sigmoid", select_bias=True, renormalise=True,
        scale=c.number("moe_routed_scaling_factor", float),
        cap=c.number("moe_router_logit_softcapping", float) or None,
    )  # fmt: skip
    moe = experts(c, router, shared=SharedExpert(mlp=gated(c, hidden="shared_expert_intermediate_size")))
    blocks = [
        Block(attn=replace(one, heads=h), mlp=moe if sparse else dense, order=PreNorm(norm=norm))
        for one, h, sparse in zip(layers, heads, sparse_layers(c, 1))
    ]
    return decoder(c, "laguna", blocks)
