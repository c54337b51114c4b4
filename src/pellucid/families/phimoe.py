"""Phi 3.5 MoE. Papers: arXiv 2404.14219, 2409.12136."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import ATTENTION, EMBEDDING, HEAD_WEIGHTS, attention, classes, decoder, layer_norm
from pellucid.families._gguf import DECODER, KEYS, LOCAL_EXPERTS, WINDOW, Gguf, rope
from pellucid.families._moe import NUMBERED, experts, moe_weights
from pellucid.families._read import grouped_heads, read_rope, rotary_section
from pellucid.spec import Block, LmHead, LongRopeScaling, PreNorm, Rope, Router, Spec

CLASSES = classes("Phimoe", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 6400, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 1000000.0, "sliding_window": None, "attention_dropout": 0.0, "num_experts_per_tok": 2,
    "num_local_experts": 16, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.01, "input_jitter_noise": 0.0,
    "attention_bias": False, "lm_head_bias": False,
}  # fmt: skip
ALIASES = {"num_experts": "num_local_experts"}
IGNORED = {
    "output_router_logits": None, "num_experts_per_tok": (2,),  # sparsemixer always draws two
    "hidden_dropout": (0.0,), "original_max_position_embeddings": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = EMBEDDING | ATTENTION | HEAD_WEIGHTS | moe_weights("block_sparse_moe", matrices=NUMBERED)


GGUF = Gguf(
    KEYS | LOCAL_EXPERTS | WINDOW | {"rms_norm_eps": "attention.layer_norm_rms_epsilon"},
    lambda c: DECODER | _gguf.experts(c.num_local_experts),
    more=lambda said: rope(said) | {
        "attention_bias": said.has("blk.0.attn_q.bias"), "lm_head_bias": said.has("output.bias"),
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = layer_norm(c, "rms_norm_eps")
    attn = attention(c, rope=_rope(c), window=c.size("sliding_window", null=None))
    router = Router(top_k=2, score="sparsemixer", jitter=c.number("router_jitter_noise", float))
    moe = experts(
        c, router, count="num_local_experts", hidden="intermediate_size", jitter=c.share("input_jitter_noise")
    )
    head = LmHead(tied=c.tie_word_embeddings, bias=c.lm_head_bias)
    block = Block(attn=attn, mlp=moe, order=PreNorm(norm=norm))
    return decoder(c, "phimoe", [block] * c.layers("num_hidden_layers"), norm=norm, head=head)


def _rope(c: Config) -> Rope:
    """LongRoPE whose factor on cos and sin is stated, for short and long rows alike."""
    s, head_dim = rotary_section(c), grouped_heads(c)[2]
    if s is None or "short_mscale" not in s:
        return read_rope(c, head_dim)
    rope = read_rope(c, head_dim, also=("short_mscale", "long_mscale"))
    short, long = s.number("short_mscale", float), s.number("long_mscale", float)
    if short != long or not isinstance(rope.scaling, LongRopeScaling):
        what = f"short_mscale={short!r} and long_mscale={long!r} are known in longrope, where they are equal"
        raise ConfigError(what, where=c.where, next="correct rope_scaling")
    return replace(rope, scaling=replace(rope.scaling, attention_factor=short))
