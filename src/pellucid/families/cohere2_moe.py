"""Command A with experts: as Cohere 2, and dense layers first. huggingface.co/CohereLabs."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, layer_norm, rms, windows
from pellucid.families._gguf import (
    DECODER,
    EXPERTS,
    HEAD_DIM,
    KEYS,
    LAYER,
    RMS,
    SIGMOID,
    SOFTMAX,
    WINDOW,
    Gguf,
    rope,
    window_types,
)
from pellucid.families._moe import experts, moe_weights, shared_experts, sparse_layers
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, LmHead, Moe, Parallel, Router, Spec

CLASSES = classes("Cohere2Moe", "causal-lm")
DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "logit_scale": 0.0625,
    "num_hidden_layers": 40, "num_attention_heads": 64, "num_key_value_heads": None, "head_dim": 128,
    "hidden_act": "silu", "max_position_embeddings": 8192, "layer_norm_eps": 1e-5, "pad_token_id": 0,
    "bos_token_id": 5, "eos_token_id": 255001, "tie_word_embeddings": True, "rope_parameters": None,
    "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0,
    "sliding_window": 4096, "num_experts_per_tok": 2, "num_experts": 8, "num_shared_experts": 0,
    "shared_expert_combination_strategy": "average", "expert_selection_fn": "softmax", "layer_types": None,
    "mlp_layer_types": None, "prefix_dense_sliding_window_pattern": 1, "norm_topk_prob": True,
    "prefix_dense_intermediate_size": None, "rms_norm_eps": None, "sliding_window_pattern": 4,
    "first_k_dense_replace": 0,
}  # fmt: skip
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS = LLAMA | moe_weights()
GGUF = Gguf(
    KEYS | RMS | LAYER | HEAD_DIM | WINDOW | EXPERTS | {
        "intermediate_size": "expert_feed_forward_length", "prefix_dense_intermediate_size": "feed_forward_length",
        "num_shared_experts": "expert_shared_count", "first_k_dense_replace": "leading_dense_block_count",
        "norm_topk_prob": "expert_weights_norm", "logit_scale": "logit_scale",
    },
    lambda c: DECODER | _gguf.experts(c.num_experts),
    more=lambda said: rope(said) | window_types(said) | {
        "expert_selection_fn": "softmax" if said.get("expert_gating_func") == SOFTMAX else "sigmoid",
    },
    says=lambda c, spec: {"expert_gating_func": SOFTMAX if c.expert_selection_fn == "softmax" else SIGMOID},
)  # fmt: skip


def spec(c: Config) -> Spec:
    usual_norm = layer_norm(c, bias=False)
    norm = usual_norm if c.rms_norm_eps is None else rms(c)
    wide = c.size("prefix_dense_intermediate_size", null=None)
    dense = replace(gated(c), hidden=wide) if wide else gated(c)
    first, every, before = c.number("first_k_dense_replace"), c.size("sliding_window_pattern"), c.size(PREFIX)

    def usual(i: int) -> str:  # the dense layers have a pattern of their own
        local = (i + 1) % before if i < first else (i - first + 1) % every
        return "sliding_attention" if local else "full_attention"

    attn = attention(c, rope=read_rope(c, grouped_heads(c)[2], interleaved=True))
    moe, order = _moe(c), Parallel(norm=norm, shared=True)
    blocks = [
        Block(
            attn=one if one.window or (before == 1 and not sparse) else replace(one, rope=None),
            mlp=moe if sparse else dense, order=order,
        )
        for one, sparse in zip(windows(c, attn, usual), sparse_layers(c, first))
    ]  # fmt: skip
    head = LmHead(tied=c.tie_word_embeddings, logit_scale=c.number("logit_scale", float))
    return decoder(c, "cohere2_moe", blocks, norm=norm, head=head)


PREFIX = "prefix_dense_sliding_window_pattern"


def _moe(c: Config) -> Moe:
    score, sum_up = c.expert_selection_fn, c.shared_expert_combination_strategy
    if score not in ("softmax", "sigmoid") or sum_up not in ("average", "sum"):
        what = f"expert_selection_fn={score!r}, shared_expert_combination_strategy={sum_up!r}"
        raise ConfigError(what, where=c.where, next="known: softmax or sigmoid; average or sum")
    top_k, renormalise = c.size("num_experts_per_tok"), c.norm_topk_prob
    router = (
        Router(top_k=top_k, score="topk_softmax")  # sums to 1 as it is
        if score == "softmax"
        else Router(top_k=top_k, score="topk_sigmoid", renormalise=renormalise)
    )
    shared = shared_experts(c, "num_shared_experts", "intermediate_size", average=sum_up == "average")
    return experts(c, router, hidden="intermediate_size", shared=shared)
