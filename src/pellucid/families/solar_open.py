"""Solar Open. huggingface.co/upstage."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, rms
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("SolarOpen", "causal-lm")
DEFAULTS = {
    "vocab_size": 196608, "hidden_size": 4096, "num_hidden_layers": 48, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 1000000.0, "attention_bias": False, "attention_dropout": 0.0, "moe_intermediate_size": 1280,
    "num_experts_per_tok": 8, "n_shared_experts": 1, "n_routed_experts": 128, "routed_scaling_factor": 1.0,
    "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": None,
}  # fmt: skip
ALIASES = {"num_local_experts": "n_routed_experts"}
IGNORED = {  # every layer has experts
    "output_router_logits": None, "intermediate_size": None, "first_k_dense_replace": (0,), "use_qk_norm": (False,),
    "num_nextn_predict_layers": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | moe_weights()


def spec(c: Config) -> Spec:
    attn = attention(c, biases="qkv" if c.attention_bias else "")
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c))
    block = Block(attn=attn, mlp=moe, order=PreNorm(norm=rms(c)))
    return decoder(c, "solar_open", [block] * c.layers("num_hidden_layers"))
