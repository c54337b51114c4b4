"""Youtu-LLM: latent attention in a dense decoder. Paper: arXiv 2512.24618."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._gguf import KEYS, RMS
from pellucid.families._latent import DERIVED, MLA, latent
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Youtu", "causal-lm")
DEFAULTS = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 32,
    "num_attention_heads": 16, "num_key_value_heads": 16, "kv_lora_rank": 512, "q_lora_rank": 1536,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "pad_token_id": None, "bos_token_id": 128000,
    "eos_token_id": 128001, "tie_word_embeddings": True, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "rope_interleave": True, "attention_bias": False, "attention_dropout": 0.0,
    "mlp_bias": False, "embedding_initializer_range": None,
}  # fmt: skip
IGNORED = DERIVED | {"embedding_initializer_range": None}

BASE = "model."
WEIGHTS = MLA

GGUF = _gguf.Gguf(  # llama.cpp asks for sizes of experts that are not there
    KEYS | RMS, _gguf.latent, set={"q_lora_rank": None}, more=_gguf.latent_sizes,
    says=lambda c, spec: _gguf.latent_factor(c, spec) | {
        "leading_dense_block_count": len(spec.stack.blocks), "expert_feed_forward_length": c.intermediate_size,
        "expert_shared_count": 0,
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    block = Block(attn=latent(c), mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=rms(c)))
    return decoder(c, "youtu", [block] * c.layers("num_hidden_layers"))
