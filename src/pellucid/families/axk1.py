"""A.X K1: DeepSeek V3's layers, with a norm behind the experts. Model card: huggingface.co/skt/A.X-K1."""

from pellucid.config import Config
from pellucid.families import deepseek_v3
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._latent import MLA, further_layers, latent
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("AXK1", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 163840, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61, "num_attention_heads": 64, "num_key_value_heads": 64, "n_shared_experts": 1,
    "n_routed_experts": 192, "output_router_logits": False, "routed_scaling_factor": 2.5, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 8,
    "topk_group": 4, "num_experts_per_tok": 8, "norm_topk_prob": True, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "pad_token_id": None, "bos_token_id": 163691,
    "eos_token_id": 163691, "pretraining_tp": 1, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "rope_interleave": True, "attention_bias": False,
    "attention_dropout": 0.0, "mlp_layer_types": None, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "num_nextn_predict_layers": 0,
}  # fmt: skip
ALIASES = {"num_local_experts": "n_routed_experts"}
IGNORED = deepseek_v3.IGNORED

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    norm = {"model.layers.{i}.post_mlp_layernorm.weight": "blocks.{i}.mlp.norm.weight"}
    return further_layers(c, MLA | moe_weights() | norm)


def spec(c: Config) -> Spec:
    norm, attn, dense = rms(c), latent(c), gated(c)
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c), norm=norm)
    every = c.size("moe_layer_freq")
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    if c.mlp_layer_types is None:
        sparse = [s and i % every == 0 for i, s in enumerate(sparse)]
    blocks = [Block(attn=attn, mlp=moe if s else dense, order=PreNorm(norm=norm)) for s in sparse]
    return decoder(c, "axk1", blocks)
