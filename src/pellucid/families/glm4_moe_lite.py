"""GLM-4.7 Flash: DeepSeek V3's layers. Model card: huggingface.co/zai-org/GLM-4.7-Flash."""

from pellucid.config import Config
from pellucid.families import deepseek_v3
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._latent import latent
from pellucid.families._moe import deepseek_router, experts, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Glm4MoeLite", "causal-lm")
DEFAULTS = {
    "vocab_size": 154880, "hidden_size": 2048, "intermediate_size": 10240, "moe_intermediate_size": 1536,
    "num_hidden_layers": 47, "num_attention_heads": 20, "num_key_value_heads": 20, "n_shared_experts": 1,
    "n_routed_experts": 64, "output_router_logits": False, "routed_scaling_factor": 1.8, "kv_lora_rank": 512,
    "q_lora_rank": 768, "qk_rope_head_dim": 64, "v_head_dim": 256, "qk_nope_head_dim": 192, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 4, "norm_topk_prob": True, "hidden_act": "silu",
    "max_position_embeddings": 202752, "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": 0,
    "eos_token_id": 1, "pretraining_tp": 1, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "rope_interleave": True, "mlp_layer_types": None,
    "attention_bias": False, "attention_dropout": 0.0, "num_nextn_predict_layers": 1,
}  # fmt: skip
ALIASES = {"num_local_experts": "n_routed_experts"}
IGNORED = deepseek_v3.IGNORED | {"first_k_dense_replace": (1,)}

BASE = "model."
WEIGHTS = deepseek_v3.WEIGHTS


def spec(c: Config) -> Spec:
    order, attn, dense = PreNorm(norm=rms(c)), latent(c), gated(c)
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c))
    blocks = [Block(attn=attn, mlp=moe if sparse else dense, order=order) for sparse in sparse_layers(c, 1)]
    return decoder(c, "glm4_moe_lite", blocks)
