"""dots.llm1. Paper: arXiv 2506.05767."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, ROUTED_EXPERTS, Gguf, rope
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, QkNorm, Spec

CLASSES = classes("Dots1", "causal-lm")
DEFAULTS = {
    "vocab_size": 152064, "hidden_size": 4608, "intermediate_size": 10944, "moe_intermediate_size": 1408,
    "num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": None,
    "n_shared_experts": None, "n_routed_experts": None, "n_group": 1, "topk_group": 1, "num_experts_per_tok": None,
    "first_k_dense_replace": 0, "norm_topk_prob": False, "hidden_act": "silu", "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0, "routed_scaling_factor": 1.0,
    "sliding_window": 4096, "max_window_layers": 62, "layer_types": None, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
ALIASES = {"num_local_experts": "n_routed_experts"}
IGNORED = {
    "output_router_logits": None, "moe_layer_freq": (1,), "scoring_func": ("noaux_tc", "sigmoid"),
    "topk_method": ("noaux_tc",), "pretraining_tp": None, "ep_size": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | moe_weights()
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | ROUTED_EXPERTS, lambda c: DECODER | _gguf.experts(c.n_routed_experts),
    set={"sliding_window": None}, more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense, first = rms(c), gated(c), c.number("max_window_layers", null=0)
    window = c.size("sliding_window", null=None)
    layers = windows(
        c, attention(c, qk_norm=QkNorm(norm=norm)),
        lambda i: "sliding_attention" if window and i >= first else "full_attention", window=window,
    )  # fmt: skip
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c))
    sparse = sparse_layers(c, c.number("first_k_dense_replace", null=0))
    blocks = [Block(attn=a, mlp=moe if s else dense, order=PreNorm(norm=norm)) for a, s in zip(layers, sparse)]
    return decoder(c, "dots1", blocks)
