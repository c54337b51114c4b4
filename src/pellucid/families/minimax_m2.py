"""MiniMax M2. huggingface.co/MiniMaxAI/MiniMax-M2."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import ATTENTION, EMBEDDING, HEAD_WEIGHTS, QK_NORM, attention, classes, decoder, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, LOCAL_EXPERTS, RMS, Gguf, rope
from pellucid.families._moe import NUMBERED, experts, moe_weights
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, PreNorm, QkNorm, Router, Spec

CLASSES = classes("MiniMaxM2", "causal-lm")
DEFAULTS = {
    "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 1536, "num_hidden_layers": 62,
    "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 196608, "rms_norm_eps": 1e-6, "pad_token_id": None, "bos_token_id": 200034,
    "eos_token_id": 200020, "tie_word_embeddings": False, "attention_dropout": 0.0, "num_experts_per_tok": 8,
    "num_local_experts": 256, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 5000000.0, "rotary_dim": None,
}  # fmt: skip
ALIASES = {"num_experts": "num_local_experts"}
IGNORED = {
    "output_router_logits": None, "use_qk_norm": (True,), "qk_norm_type": ("per_layer",), "sliding_window": (None,),
    "scoring_func": ("sigmoid",), "use_routing_bias": (True,), "shared_intermediate_size": (0,),
    # of other layers than these: linear attention, dense ones, those that predict several tokens at once
    "attn_type_list": None, "layernorm_full_attention_beta": None, "layernorm_linear_attention_beta": None,
    "layernorm_mlp_beta": None, "mlp_intermediate_size": None, "shared_moe_mode": None, "use_mtp": None,
    "num_mtp_modules": None, "mtp_transformer_layers": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = EMBEDDING | ATTENTION | QK_NORM | HEAD_WEIGHTS | moe_weights(
    "block_sparse_moe", matrices=NUMBERED, bias="e_score_correction_bias"
)  # fmt: skip
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | LOCAL_EXPERTS | {
        "intermediate_size": "expert_feed_forward_length", "rotary_dim": "rope.dimension_count",
    },
    lambda c: DECODER | _gguf.experts(c.num_local_experts), more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    head_dim, turned = grouped_heads(c)[2], c.size("rotary_dim", null=None)
    rope = read_rope(c, head_dim)
    if turned is not None and rope.dim == head_dim:  # the released files' way to say partial_rotary_factor
        rope = replace(rope, dim=turned)
    attn = attention(c, rope=rope, biases="", qk_norm=QkNorm(norm=rms(c), over="full"))
    router = Router(top_k=c.size("num_experts_per_tok"), score="sigmoid", select_bias=True, renormalise=True)
    moe = experts(
        c, router, count="num_local_experts", hidden="intermediate_size", jitter=c.share("router_jitter_noise")
    )
    block = Block(attn=attn, mlp=moe, order=PreNorm(norm=rms(c)))
    return decoder(c, "minimax_m2", [block] * c.layers("num_hidden_layers"))
