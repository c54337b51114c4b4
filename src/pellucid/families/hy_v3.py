"""Hunyuan 3. huggingface.co/tencent."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms
from pellucid.families._gguf import Said
from pellucid.families._latent import further_layers
from pellucid.families._moe import experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, QkNorm, Router, Spec
from pellucid.weights.table import Entry

CLASSES = classes("HYV3", "causal-lm")
DEFAULTS = {
    "vocab_size": 120832, "hidden_size": 4096, "intermediate_size": 13312, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "tie_word_embeddings": False, "attention_bias": False, "attention_dropout": 0.0,
    "mlp_bias": False, "num_experts": 192, "num_experts_per_tok": 8, "num_shared_experts": 1,
    "moe_intermediate_size": 1536, "router_scaling_factor": 2.826, "mlp_layer_types": None, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 11158840.0, "num_nextn_predict_layers": 1,
}  # fmt: skip
ALIASES = {"num_local_experts": "num_experts"}
IGNORED = {
    "output_router_logits": None, "num_nextn_predict_layers": None,
    "enable_moe_fp32_combine": None,  # the sum is always wide
}  # fmt: skip

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    moe = moe_weights(router="router.gate.weight", bias="expert_bias", shared="shared_mlp")
    return further_layers(c, LLAMA | QK_NORM | moe)


def gguf_weights(c: Config) -> dict[str, Entry]:
    bare: dict[str, Entry] = {"blk.{i}.exp_probs_b": "blocks.{i}.mlp.router.select_bias"}  # the first is written
    return _gguf.further_layers(c, bare | _gguf.DECODER | _gguf.experts(c.num_experts))


def gguf_layers(said: Said) -> dict[str, Any]:
    """Which layers have experts, and how many of them see every token."""
    found = _gguf.extra_layers(said)
    sparse = [said.has(f"blk.{i}.ffn_gate_inp.weight") for i in range(found["num_hidden_layers"])]
    shared, each = said.get("expert_shared_feed_forward_length"), said.get("expert_feed_forward_length")
    return _gguf.rope(said) | found | {
        "mlp_layer_types": ["sparse" if yes else "dense" for yes in sparse],
        "num_shared_experts": said.get("expert_shared_count") or (shared // each if shared else None),
    }  # fmt: skip


GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS | _gguf.HEAD_DIM | _gguf.EXPERTS | {
        "moe_intermediate_size": "expert_feed_forward_length", "router_scaling_factor": "expert_weights_scale",
        "num_shared_experts": "expert_shared_count",
    },
    gguf_weights, more=gguf_layers,
)  # fmt: skip


def spec(c: Config) -> Spec:
    attn, dense = attention(c, qk_norm=QkNorm(norm=rms(c))), gated(c, bias=c.mlp_bias)
    router = Router(
        top_k=c.size("num_experts_per_tok"), score="sigmoid", select_bias=True, renormalise=True,
        renormalise_eps=1e-20, scale=c.number("router_scaling_factor", float), float32=True,
    )  # fmt: skip
    moe = experts(c, router, shared=shared_experts(c, "num_shared_experts"))
    blocks = [Block(attn=attn, mlp=moe if s else dense, order=PreNorm(norm=rms(c))) for s in sparse_layers(c, 1)]
    return decoder(c, "hy_v3", blocks)
