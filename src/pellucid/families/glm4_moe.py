"""GLM 4.5 and 4.6. Paper: arXiv 2508.06471."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, POST_NORM, RMS, ROUTED_EXPERTS, Gguf, extra_layers, partial
from pellucid.families._latent import further_layers
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, QkNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Glm4Moe", "causal-lm")
DEFAULTS = {
    "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 10944, "num_hidden_layers": 46,
    "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "attention_bias": False,
    "attention_dropout": 0.0, "moe_intermediate_size": 1408, "num_experts_per_tok": 8, "n_shared_experts": 1,
    "n_routed_experts": 128, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "norm_topk_prob": True, "use_qk_norm": False, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None, "num_nextn_predict_layers": 1,
}  # fmt: skip
ALIASES = {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"}
IGNORED = {"num_nextn_predict_layers": None, "output_router_logits": None}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    return further_layers(c, LLAMA | QK_NORM | moe_weights())


GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | ROUTED_EXPERTS,
    lambda c: _gguf.further_layers(c, DECODER | POST_NORM | _gguf.experts(c.n_routed_experts)),
    more=lambda said: partial(said) | extra_layers(said) | {
        "attention_bias": said.has("blk.0.attn_q.bias"), "use_qk_norm": said.has("blk.0.attn_q_norm.weight"),
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense = rms(c), gated(c)
    qk_norm = QkNorm(norm=norm) if c.use_qk_norm else None
    attn = attention(c, biases="qkv" if c.attention_bias else "", qk_norm=qk_norm)
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c))
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    return decoder(c, "glm4_moe", [Block(attn=attn, mlp=moe if s else dense, order=PreNorm(norm=norm)) for s in sparse])
