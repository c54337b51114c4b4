"""Kolibri 1: four norms, rotary positions in windowed layers only. huggingface.co/Aleph-Alpha."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms, windows
from pellucid.families._moe import experts, moe_weights
from pellucid.spec import Block, QkNorm, Router, Sandwich, SharedExpert, Spec

CLASSES = classes("Kolibri1", "causal-lm")
DEFAULTS = {
    "vocab_size": 128000, "hidden_size": 2560, "num_hidden_layers": 50, "num_attention_heads": 48,
    "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 262144, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "sliding_window": 513, "attention_dropout": 0.0, "moe_intermediate_size": 512, "num_experts_per_tok": 6,
    "num_experts": 384, "norm_topk_prob": False, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    "head_dim": 128, "shared_expert_intermediate_size": 512, "layer_types": None,
}  # fmt: skip
ALIASES = {"num_local_experts": "num_experts"}
IGNORED = {"output_router_logits": None, "intermediate_size": None}  # every layer has experts

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | moe_weights() | {
    "model.layers.{i}.moe.router.expert_bias": "blocks.{i}.mlp.router.select_bias",
    "model.layers.{i}.post_attn_norm.weight": "blocks.{i}.attn_post_norm.weight",
    "model.layers.{i}.post_ffn_norm.weight": "blocks.{i}.mlp_post_norm.weight",
}  # fmt: skip
del WEIGHTS["model.layers.{i}.mlp.gate.e_score_correction_bias"]


def spec(c: Config) -> Spec:
    norm, attn = rms(c), attention(c, biases="", qk_norm=QkNorm(norm=rms(c)))
    ropes = {"sliding_attention": attn.rope, "full_attention": None if c.sliding_window else attn.rope}
    layers = windows(c, attn, lambda i: "sliding_attention" if (i + 1) % 5 else "full_attention", ropes=ropes)
    router = Router(
        top_k=c.size("num_experts_per_tok"), score="topk_sigmoid", select_bias=True, renormalise=c.norm_topk_prob,
        float32=True,
    )  # fmt: skip
    moe = experts(c, router, shared=SharedExpert(mlp=gated(c, hidden="shared_expert_intermediate_size")))
    return decoder(c, "kolibri1", [Block(attn=one, mlp=moe, order=Sandwich(norm=norm)) for one in layers])
