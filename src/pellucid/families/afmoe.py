"""Arcee's Trinity: four norms, gated attention, rotary positions in windowed layers only. huggingface.co/arcee-ai."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import DECODER, EXPERTS, HEAD_DIM, KEYS, RMS, WINDOW, Gguf
from pellucid.families._moe import experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, Embed, Gate, QkNorm, Router, Sandwich, Spec

CLASSES = classes("Afmoe", "causal-lm")
DEFAULTS = {
    "vocab_size": 200192, "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 1408,
    "num_hidden_layers": 32, "num_dense_layers": 1, "num_attention_heads": 16, "num_key_value_heads": None,
    "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 16384, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "num_experts": 64, "num_experts_per_tok": 6, "num_shared_experts": 2, "route_scale": 1.0,
    "global_attn_every_n_layers": 4, "sliding_window": 1024, "layer_types": None, "attention_dropout": 0.0,
    "mup_enabled": False, "eos_token_id": None, "pad_token_id": None, "bos_token_id": None, "attention_bias": False,
}  # fmt: skip
IGNORED = {
    "output_router_logits": None, "score_func": ("sigmoid",), "route_norm": (True,), "n_group": (1,),
    "topk_group": (1,), "num_expert_groups": (1,), "num_limited_groups": (1,), "load_balance_coeff": None,
    "use_grouped_mm": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | moe_weights(router="router.gate.weight", bias="expert_bias") | {
    "model.layers.{i}.self_attn.gate_proj.weight": "blocks.{i}.attn.gate.proj.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.attn_post_norm.weight",  # Llama: before the MLP
    "model.layers.{i}.pre_mlp_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.post_mlp_layernorm.weight": "blocks.{i}.mlp_post_norm.weight",
}  # fmt: skip
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | WINDOW | EXPERTS | {
        "num_shared_experts": "expert_shared_count", "moe_intermediate_size": "expert_feed_forward_length",
        "num_dense_layers": "leading_dense_block_count", "route_scale": "expert_weights_scale",
    },
    lambda c: DECODER | _gguf.SANDWICH | _gguf.experts(c.num_experts) | {
        "blk.{i}.attn_gate.weight": "blocks.{i}.attn.gate.proj.weight",
    },
    set={"mup_enabled": True}, more=_gguf.rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense, every = rms(c, round_first=False), gated(c), c.size("global_attn_every_n_layers")
    attn = attention(c, qk_norm=QkNorm(norm=norm), gate=Gate(per="channel"))
    ropes = {"sliding_attention": attn.rope, "full_attention": None}
    layers = windows(c, attn, lambda i: "sliding_attention" if (i + 1) % every else "full_attention", ropes=ropes)
    router = Router(
        top_k=c.size("num_experts_per_tok"), score="sigmoid", select_bias=True, renormalise=True,
        renormalise_eps=1e-20, scale=c.number("route_scale", float),
    )  # fmt: skip
    moe = experts(c, router, shared=shared_experts(c, "num_shared_experts"))
    sparse = sparse_layers(c, c.number("num_dense_layers", null=0))
    blocks = [Block(attn=a, mlp=moe if s else dense, order=Sandwich(norm=norm)) for a, s in zip(layers, sparse)]
    scale = c.size("hidden_size") ** 0.5 if c.mup_enabled else None
    return decoder(c, "afmoe", blocks, norm=norm, embed=Embed(vocab=c.size("vocab_size"), scale=scale))
