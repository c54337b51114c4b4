"""Mellum 2. huggingface.co/JetBrains."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import DECODER, EXPERTS, HEAD_DIM, RMS, UNTURNED_KEYS, WINDOW, Gguf, ropes, window_types
from pellucid.families._moe import experts, moe_weights, sparse_layers
from pellucid.families._read import grouped_heads, read_ropes
from pellucid.spec import Block, PreNorm, QkNorm, Router, Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("Mellum", "causal-lm")
DEFAULTS = {
    "vocab_size": 98304, "hidden_size": 2304, "intermediate_size": 7168, "num_hidden_layers": 28,
    "num_attention_heads": 32, "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False, "sliding_window": 1024,
    "attention_dropout": 0.0, "moe_intermediate_size": 896, "num_experts_per_tok": 8, "num_experts": 64,
    "norm_topk_prob": True, "router_aux_loss_coef": 0.001, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "head_dim": 128, "layer_types": None, "mlp_layer_types": None, "rope_scaling": None,
    "rope_theta": 10000.0,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 500000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip
ALIASES = {"num_local_experts": "num_experts"}
IGNORED = dict.fromkeys((  # of the layer that predicts one more token
    "output_router_logits", "num_mtp_layers", "num_nextn_predict_layers", "mtp_layer_types", "mtp_mlp_layer_types",
))  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = LLAMA | QK_NORM | moe_weights() | {"mtp.*": Unused("predicts more than one token")}
GGUF = Gguf(
    UNTURNED_KEYS | RMS | HEAD_DIM | WINDOW | EXPERTS | {"moe_intermediate_size": "expert_feed_forward_length"},
    lambda c: DECODER | _gguf.experts(c.num_experts), more=lambda said: ropes(said) | window_types(said),
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense, ropes = rms(c), gated(c), read_ropes(c, grouped_heads(c)[2])
    layers = windows(c, attention(c, rope=None, qk_norm=QkNorm(norm=norm)), ropes=ropes)
    moe = experts(c, Router(top_k=c.size("num_experts_per_tok"), renormalise=c.norm_topk_prob))
    sparse = sparse_layers(c)
    blocks = [Block(attn=a, mlp=moe if s else dense, order=PreNorm(norm=norm)) for a, s in zip(layers, sparse)]
    return decoder(c, "mellum", blocks)
