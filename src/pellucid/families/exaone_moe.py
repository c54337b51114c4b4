"""K-EXAONE: rotary positions in windowed layers only. huggingface.co/LGAI-EXAONE."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, WINDOW, Gguf, extra_layers, rope, window_types
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, QkNorm, Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("ExaoneMoe", "causal-lm")
DEFAULTS = {
    "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 53, "pad_token_id": 0,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "attention_dropout": 0.0, "sliding_window": 4096, "sliding_window_pattern": 4, "layer_types": None,
    "mlp_layer_types": None, "first_k_dense_replace": 1, "moe_intermediate_size": 1024, "num_experts": 64,
    "num_experts_per_tok": 8, "num_shared_experts": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": None,
}  # fmt: skip
IGNORED = {
    "output_router_logits": None, "num_nextn_predict_layers": None, "scoring_func": ("sigmoid",),
    "topk_method": ("noaux_tc",), "is_moe_layer": None, "first_last_k_dense_replace": None,
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = LLAMA | QK_NORM | moe_weights(bias="e_score_correction_bias") | {
    "mtp.*": Unused("predicts several tokens at once"),
}  # fmt: skip
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | WINDOW | {
        "num_experts": "expert_count", "num_shared_experts": "expert_shared_count",
        **{key: name for key, name in _gguf.ROUTED_EXPERTS.items() if not key.startswith("n_")},
    },
    lambda c: _gguf.further_layers(c, DECODER | _gguf.experts(c.num_experts)),
    set={"sliding_window": None}, more=lambda said: rope(said) | extra_layers(said) | window_types(said),
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense = rms(c), gated(c)
    every = c.number("sliding_window_pattern", null=1) or 1
    attn = attention(c, biases="", qk_norm=QkNorm(norm=norm))
    layers = windows(c, attn, lambda i: "sliding_attention" if (i + 1) % every else "full_attention")
    if c.sliding_window is not None:
        layers = [one if one.window else replace(one, rope=None) for one in layers]
    moe = experts(c, deepseek_router(c), shared=shared_experts(c, "num_shared_experts"))
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    blocks = [Block(attn=one, mlp=moe if s else dense, order=PreNorm(norm=norm)) for one, s in zip(layers, sparse)]
    return decoder(c, "exaone_moe", blocks)
