"""OLMoE. Paper: arXiv 2409.02060."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, rms
from pellucid.families._gguf import DECODER, EXPERTS, KEYS, RMS, Gguf, rope
from pellucid.families._moe import experts, moe_weights
from pellucid.spec import Block, PreNorm, QkNorm, Router, Spec

CLASSES = classes("Olmoe", "causal-lm")
DEFAULTS = {
    "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": None, "eos_token_id": 50279,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None, "num_experts_per_tok": 8, "num_experts": 64,
    "router_aux_loss_coef": 0.01, "norm_topk_prob": False,
}  # fmt: skip
ALIASES = {"num_local_experts": "num_experts"}
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS = LLAMA | QK_NORM | moe_weights()
GGUF = Gguf(KEYS | RMS | EXPERTS, lambda c: DECODER | _gguf.experts(c.num_experts), more=rope)


def spec(c: Config) -> Spec:
    clip = c.number("clip_qkv", float, null=None)
    attn = attention(c, qk_norm=QkNorm(norm=rms(c), over="full"), clip=clip)
    router = Router(top_k=c.size("num_experts_per_tok"), renormalise=c.norm_topk_prob)
    block = Block(attn=attn, mlp=experts(c, router, hidden="intermediate_size"), order=PreNorm(norm=rms(c)))
    return decoder(c, "olmoe", [block] * c.layers("num_hidden_layers"))
