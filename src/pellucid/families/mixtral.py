"""Mixtral. Paper: arXiv 2401.04088."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import ATTENTION, EMBEDDING, GENERIC, HEAD_WEIGHTS, attention, classes, decoder, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, paired, rope
from pellucid.families._moe import NUMBERED, experts, moe_weights
from pellucid.spec import Block, PreNorm, Router, Spec

CLASSES = classes("Mixtral", *GENERIC)
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": False, "sliding_window": None, "attention_dropout": 0.0,
    "num_experts_per_tok": 2, "num_local_experts": 8, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 1000000.0,
}  # fmt: skip
ALIASES = {"num_experts": "num_local_experts"}
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS = EMBEDDING | ATTENTION | HEAD_WEIGHTS | moe_weights("block_sparse_moe", matrices=NUMBERED)
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
    lambda c: paired(DECODER)(c) | _gguf.experts(c.num_local_experts), more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    attn = attention(c, biases="", window=c.size("sliding_window", null=None))
    router = Router(top_k=c.size("num_experts_per_tok"), renormalise=True)
    jitter = c.share("router_jitter_noise")
    moe = experts(c, router, count="num_local_experts", hidden="intermediate_size", jitter=jitter)
    return decoder(
        c, "mixtral", [Block(attn=attn, mlp=moe, order=PreNorm(norm=rms(c)))] * c.layers("num_hidden_layers")
    )
