"""DeepSeek V3, V3.1 and R1. Papers: arXiv 2412.19437, 2501.12948."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._gguf import KEYS, RMS, ROUTED_EXPERTS, Gguf
from pellucid.families._latent import DERIVED, MLA, further_layers, latent
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("DeepseekV3", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "output_router_logits": False, "routed_scaling_factor": 2.5, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 8,
    "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "norm_topk_prob": True,
    "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "pad_token_id": None,
    "bos_token_id": 0, "eos_token_id": 1, "pretraining_tp": 1, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "rope_interleave": True, "attention_bias": False,
    "attention_dropout": 0.0, "num_nextn_predict_layers": 1,
}  # fmt: skip
ALIASES = {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"}
IGNORED = DERIVED | {
    "num_nextn_predict_layers": None, "output_router_logits": None, "ep_size": None, "aux_loss_alpha": None,
    "seq_aux": None, "moe_layer_freq": (1,), "scoring_func": ("sigmoid",), "topk_method": ("noaux_tc",),
}  # fmt: skip

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    return further_layers(c, MLA | moe_weights())


GGUF = Gguf(
    KEYS | RMS | ROUTED_EXPERTS,
    lambda c: _gguf.latent(c) | _gguf.experts(c.n_routed_experts),
    set={"q_lora_rank": None, "num_nextn_predict_layers": 0}, more=_gguf.latent_sizes,
    says=_gguf.latent_factor,
)  # fmt: skip


def spec(c: Config) -> Spec:
    order, attn, dense = PreNorm(norm=rms(c)), latent(c), gated(c)
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c))
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    return decoder(c, "deepseek_v3", [Block(attn=attn, mlp=moe if s else dense, order=order) for s in sparse])
