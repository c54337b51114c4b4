"""Flint: sinks in every layer, rotary positions in windowed layers only. huggingface.co/RecursiveSI/flint."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms, windows
from pellucid.families._moe import experts, moe_weights, qwen_sparse_layers
from pellucid.spec import Block, PreNorm, QkNorm, Router, SharedExpert, Spec

CLASSES = classes("Flint", "causal-lm")
DEFAULTS = {
    "vocab_size": 150144, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 49,
    "num_attention_heads": 32, "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "sliding_window": 513, "attention_dropout": 0.0, "decoder_sparse_step": 1,
    "moe_intermediate_size": 512, "shared_expert_intermediate_size": 1024, "num_experts_per_tok": 6,
    "num_experts": 256, "norm_topk_prob": True, "router_aux_loss_coef": 0.0005, "mlp_only_layers": None,
    "layer_types": None, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "head_dim": 128,
    "attention_bias": False,
}  # fmt: skip
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | moe_weights(shared="shared_expert") | {
    "model.layers.{i}.self_attn.softmax_offset": "blocks.{i}.attn.sinks",
}  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense, last = rms(c, round_first=False), gated(c), c.layers("num_hidden_layers") - 1
    attn = attention(c, qk_norm=QkNorm(norm=norm), sinks=True)
    layers = windows(
        c, attn, lambda i: "full_attention" if i in (0, last) or i % 4 == 1 else "sliding_attention",
        ropes={"sliding_attention": attn.rope, "full_attention": None},
    )  # fmt: skip
    top_k = c.size("num_experts_per_tok")
    router = Router(top_k=top_k, score="sigmoid", renormalise=c.norm_topk_prob, float32=True)
    moe = experts(c, router, shared=SharedExpert(mlp=gated(c, hidden="shared_expert_intermediate_size")))
    sparse = qwen_sparse_layers(c, (0, 1))
    blocks = [Block(attn=a, mlp=moe if s else dense, order=PreNorm(norm=norm)) for a, s in zip(layers, sparse)]
    return decoder(c, "flint", blocks, norm=norm)
