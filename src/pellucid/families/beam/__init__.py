"""Beam: four norms, gated attention, a residual stream that is scaled with the depth. huggingface.co/reflection."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, SANDWICH, attention, classes, decoder, gated, rms, windows
from pellucid.families._moe import deepseek_router, experts, moe_weights, sparse_layers
from pellucid.families._read import grouped_heads, read_ropes
from pellucid.spec import Attention, Block, Custom, Gate, LmHead, Mlp, Moe, QkNorm, Sandwich, Spec

CLASSES = classes("Beam", "causal-lm")
DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 5120, "intermediate_size": 20480, "num_hidden_layers": 52,
    "num_attention_heads": 48, "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False, "sliding_window": 512,
    "attention_dropout": 0.0, "moe_intermediate_size": 2560, "num_experts_per_tok": 8, "num_experts": 256,
    "norm_topk_prob": True, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "head_dim": 128,
    "layer_types": None, "mlp_layer_types": None, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5,
    "final_logit_softcapping": 30.0, "rope_scaling": None, "rope_theta": 10000.0,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}, "full_attention": None,
    },
}  # fmt: skip
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | SANDWICH | moe_weights() | {
    "model.layers.{i}.self_attn.gate_proj.weight": "blocks.{i}.attn.gate.proj.weight",
    "model.layers.{i}.self_attn.gate_bias": "blocks.{i}.attn.gate_bias",
}  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense, last = rms(c, round_first=False), gated(c), c.layers("num_hidden_layers") - 1
    attn = attention(c, rope=None, qk_norm=QkNorm(norm=norm), gate=Gate(per="channel"))
    layers = windows(
        c, attn, lambda i: "sliding_attention" if (i + 1) % 6 and i != last else "full_attention",
        ropes=read_ropes(c, grouped_heads(c)[2]),
    )  # fmt: skip
    moe = experts(c, deepseek_router(c))
    blocks = [_block(a, moe if s else dense, Sandwich(norm=norm)) for a, s in zip(layers, sparse_layers(c, 3))]
    head = LmHead(tied=c.tie_word_embeddings, cap=c.number("final_logit_softcapping", float, null=None))
    return decoder(c, "beam", blocks, norm=norm, head=head)


def _block(attn: Attention, mlp: Mlp | Moe, order: Sandwich) -> Custom:
    at = "pellucid.families.beam.block:"
    inner = Custom(path=at + "GatedAttention", options=(("attention", attn),))
    return Custom(path=at + "DepthScaled", options=(("block", Block(attn=inner, mlp=mlp, order=order)),))
