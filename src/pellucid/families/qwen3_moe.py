"""Qwen 3 with experts. Paper: arXiv 2505.09388."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import (
    GENERIC,
    LLAMA,
    QK_NORM,
    attention,
    classes,
    decoder,
    gated,
    rms,
    span_under_transformer,
)
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, rope
from pellucid.families._moe import experts, moe_weights, qwen_sparse_layers
from pellucid.spec import Block, PreNorm, QkNorm, Router, Spec

CLASSES = classes("Qwen3Moe", *GENERIC)
DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "attention_bias": False, "use_sliding_window": False,
    "sliding_window": 4096, "attention_dropout": 0.0, "decoder_sparse_step": 1, "moe_intermediate_size": 768,
    "num_experts_per_tok": 8, "num_experts": 128, "norm_topk_prob": False, "router_aux_loss_coef": 0.001,
    "mlp_only_layers": None, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
ALIASES = {"num_local_experts": "num_experts"}
IGNORED = {"output_router_logits": None, "max_window_layers": None}  # a window is for all layers

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | moe_weights()
HEADS = span_under_transformer(WEIGHTS)
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | _gguf.EXPERTS | {"moe_intermediate_size": "expert_feed_forward_length"},
    lambda c: DECODER | _gguf.experts(c.num_experts), set={"norm_topk_prob": True}, more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    window = c.size("sliding_window", null=None)
    attn = attention(c, qk_norm=QkNorm(norm=rms(c)), window=window if c.use_sliding_window else None)
    moe, mlp = experts(c, Router(top_k=c.size("num_experts_per_tok"), renormalise=c.norm_topk_prob)), gated(c)
    blocks = [Block(attn=attn, mlp=moe if it else mlp, order=PreNorm(norm=rms(c))) for it in qwen_sparse_layers(c)]
    return decoder(c, "qwen3_moe", blocks)
