"""Qwen 1.5 and 2 with experts. Paper: arXiv 2407.10671, section 2.2.2."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import DECODER, KEYS, RMS, Gguf, rope
from pellucid.families._moe import experts, moe_weights, qwen_sparse_layers
from pellucid.spec import Block, PreNorm, Router, SharedExpert, Spec

CLASSES = classes("Qwen2Moe", *GENERIC)
DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
    "num_attention_heads": 16, "num_key_value_heads": 16, "hidden_act": "silu", "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
    "attention_dropout": 0.0, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60, "norm_topk_prob": False,
    "router_aux_loss_coef": 0.001, "mlp_only_layers": None, "qkv_bias": True, "layer_types": None,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS = LLAMA | moe_weights(shared="shared_expert") | {
    "model.layers.{i}.mlp.shared_expert_gate.weight": "blocks.{i}.mlp.shared_gate.weight",
}  # fmt: skip
GGUF = Gguf(
    KEYS | RMS | _gguf.EXPERTS | {
        "moe_intermediate_size": "expert_feed_forward_length",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    },
    lambda c: DECODER | _gguf.experts(c.num_experts), more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    first, window, used = c.number("max_window_layers"), c.number("sliding_window", null=0), c.use_sliding_window
    window = window if window and used else None

    def usual(i: int) -> str:  # unlike Qwen 2, every second of the lower layers
        return "sliding_attention" if window and i % 2 == 0 and i < first else "full_attention"

    router = Router(top_k=c.size("num_experts_per_tok"), renormalise=c.norm_topk_prob)
    shared = SharedExpert(mlp=gated(c, hidden="shared_expert_intermediate_size"), gate=True)
    moe, mlp = experts(c, router, shared=shared), gated(c)
    attn = attention(c, biases="qkv" if c.qkv_bias else "")
    blocks = [
        Block(attn=one, mlp=moe if sparse else mlp, order=PreNorm(norm=rms(c)))
        for one, sparse in zip(windows(c, attn, usual, window=window), qwen_sparse_layers(c))
    ]
    return decoder(c, "qwen2_moe", blocks)
