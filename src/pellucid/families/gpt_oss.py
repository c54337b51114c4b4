"""gpt-oss. Paper: arXiv 2508.10925."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import ATTENTION, EMBEDDING, HEAD_WEIGHTS, attention, classes, decoder, rms, windows
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, LOCAL_EXPERTS, POST_NORM, RMS, WINDOW, Gguf, Said, rope
from pellucid.families._moe import experts
from pellucid.spec import Block, ClampedGlu, Mlp, PreNorm, Router, Spec
from pellucid.weights.table import Entry, Fused, Stacked, Transposed

CLASSES = classes("GptOss", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "num_hidden_layers": 36, "num_local_experts": 128, "vocab_size": 201088, "hidden_size": 2880,
    "intermediate_size": 2880, "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8,
    "sliding_window": 128, "tie_word_embeddings": False, "hidden_act": "silu", "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "attention_dropout": 0.0, "num_experts_per_tok": 4, "swiglu_alpha": 1.702,
    "swiglu_limit": 7.0, "router_aux_loss_coef": 0.001, "layer_types": None, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None, "attention_bias": True, "rope_theta": 150000.0, "rope_scaling": None,
    "rope_parameters": {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 4096,
    },
}  # fmt: skip
ALIASES = {"num_experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"}
IGNORED = {
    "hidden_act": ("silu",),  # the clamped GLU is built on it
    "output_router_logits": None, "initial_context_length": None,  # said again in the rotary section
}  # fmt: skip

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count, hidden = c.size("num_local_experts"), c.size("intermediate_size")
    at, expert = "model.layers.{i}.mlp.", "blocks.{i}.mlp.experts.{e}."

    def in_turn(p: str) -> Fused:
        return Fused(f"{expert}{{}}.{p}", ("gate", "up"), groups=hidden)  # row by row

    return EMBEDDING | ATTENTION | HEAD_WEIGHTS | {
        "model.layers.{i}.self_attn.sinks": "blocks.{i}.attn.sinks",
        at + "router.{p}": "blocks.{i}.mlp.router.{p}",
        at + "experts.gate_up_proj": Stacked(Transposed(in_turn("weight")), count),
        at + "experts.gate_up_proj_bias": Stacked(in_turn("bias"), count),
        at + "experts.down_proj": Stacked(Transposed(expert + "down.weight"), count),
        at + "experts.down_proj_bias": Stacked(expert + "down.bias", count),
    }  # fmt: skip


def stretched(said: Said) -> dict[str, Any]:
    """YaRN as gpt-oss has it: its ramp begins and ends where it falls."""
    found = rope(said)
    return {"rope_scaling": found["rope_scaling"] | {"truncate": False}} if found else {"rope_parameters": None}


GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | LOCAL_EXPERTS | WINDOW | {"intermediate_size": "expert_feed_forward_length"},
    lambda c: DECODER | POST_NORM | _gguf.experts(c.num_local_experts) | {
        "blk.{i}.attn_sinks.weight": "blocks.{i}.attn.sinks",
    },
    more=stretched,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = rms(c, round_first=False)
    act = ClampedGlu(alpha=c.number("swiglu_alpha", float), limit=c.number("swiglu_limit", float))
    expert = Mlp(hidden=c.size("intermediate_size"), act=act, gated=True, bias=True)
    router = Router(top_k=c.size("num_experts_per_tok"), score="topk_softmax", bias=True)
    moe = experts(c, router, count="num_local_experts", expert=expert)
    layers = windows(c, attention(c, sinks=True), lambda i: "full_attention" if i % 2 else "sliding_attention")
    return decoder(c, "gpt_oss", [Block(attn=a, mlp=moe, order=PreNorm(norm=norm)) for a in layers], norm=norm)
