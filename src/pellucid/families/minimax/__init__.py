"""MiniMax 01: lightning attention in every other layer, residuals taken after the norm. Paper: arXiv 2501.08313."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import (
    ATTENTION,
    EMBEDDING,
    GENERIC,
    HEAD_WEIGHTS,
    attention,
    classes,
    decoder,
    layer_types,
    rms,
)
from pellucid.families._moe import NUMBERED, experts, moe_weights
from pellucid.families._read import activation
from pellucid.families._recurrent import of_layers
from pellucid.spec import Block, Custom, KimiDelta, Mixer, PreNorm, RmsNorm, Router, Spec
from pellucid.weights.table import Entry, Fused, Unused

CLASSES = classes("MiniMax", *GENERIC)
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": False, "sliding_window": None, "attention_dropout": 0.0,
    "num_experts_per_tok": 2, "num_local_experts": 8, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 1000000.0, "layer_types": None, "block_size": 256,
    "full_attn_alpha_factor": 1, "full_attn_beta_factor": 1, "linear_attn_alpha_factor": 1,
    "linear_attn_beta_factor": 1, "mlp_alpha_factor": 1, "mlp_beta_factor": 1,
}  # fmt: skip
ALIASES = {"num_experts": "num_local_experts"}
IGNORED = {"output_router_logits": None}

BASE = "model."
AT = "model.layers.{i}.self_attn."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    decays = ("slope_rate", "query_decay", "key_decay", "diagonal_decay")
    moe = moe_weights("block_sparse_moe", matrices=NUMBERED)
    return EMBEDDING | ATTENTION | HEAD_WEIGHTS | moe | {
        AT + "qkv_proj.weight": Fused("blocks.{i}.attn.{}_in.weight", "qkv", groups=c.size("num_attention_heads")),
        AT + "norm.weight": "blocks.{i}.attn.norm.weight",
        AT + "output_gate.weight": "blocks.{i}.attn.gate.weight",
        AT + "out_proj.weight": "blocks.{i}.attn.out.weight",
        **{AT + name: Unused("follows from the number of heads and the layer", kept=True) for name in decays},
    }  # fmt: skip


def gguf_weights(c: Config) -> dict[str, Entry]:
    linear: dict[str, Entry] = {
        "blk.{i}.attn_qkv.weight": Fused("blocks.{i}.attn.{}_in.weight", "qkv", groups=c.size("num_attention_heads")),
        "blk.{i}.attn_norm_2.weight": "blocks.{i}.attn.norm.weight",
        "blk.{i}.attn_gate.weight": "blocks.{i}.attn.gate.weight",
        "blk.{i}.attn_output.weight": "blocks.{i}.attn.out.weight",
    }
    layers = [i for i, kind in enumerate(kinds(c)) if kind == "linear_attention"]
    return _gguf.DECODER | _gguf.experts(c.num_local_experts) | of_layers(layers, linear)


def gguf_layers(said: _gguf.Said) -> dict[str, Any]:
    """One factor for all residuals; which layers attend, for each or by their distance."""
    count, every = said.get("block_count"), said.get("full_attention_interval", 8)
    recurs = said.by_layer("attention.recurrent_layers") or [(i + 1) % every > 0 for i in range(count)]
    factors = dict.fromkeys((f"{part}_alpha_factor" for part in PARTS), said.get("residual_scale"))
    return (
        _gguf.partial(said)
        | factors
        | {
            "layer_types": ["linear_attention" if yes else "full_attention" for yes in recurs[:count]],
        }
    )


GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS | _gguf.HEAD_DIM | _gguf.LOCAL_EXPERTS, gguf_weights, more=gguf_layers,
    says=lambda c, spec: {
        "residual_scale": float(c.mlp_alpha_factor), "attention.head_count_kv": c.num_key_value_heads,
        "attention.recurrent_layers": [kind == "linear_attention" for kind in kinds(c)],
    },
)  # fmt: skip
PARTS = ("full_attn", "linear_attn", "mlp")


def kinds(c: Config) -> list[str]:
    types = ("full_attention", "linear_attention")
    return layer_types(c, types, lambda i: "full_attention" if (i + 1) % 2 else "linear_attention")


def spec(c: Config) -> Spec:
    full = attention(c, biases="", window=c.size("sliding_window", null=None))
    layers = c.layers("num_hidden_layers")
    lightning = Custom(path="pellucid.families.minimax.lightning:Lightning", options=(
        ("heads", full.heads), ("head_dim", full.head_dim), ("act", activation(c.hidden_act, c)),
        ("chunk", c.size("block_size")), ("layers", layers),
    ))  # fmt: skip
    router = Router(top_k=c.size("num_experts_per_tok"), renormalise=True)
    jitter = c.share("router_jitter_noise")
    moe = experts(c, router, count="num_local_experts", hidden="intermediate_size", jitter=jitter)
    mixers: dict[str, Mixer] = {"full_attention": full, "linear_attention": lightning}

    def factors(part: str) -> tuple[float, float]:
        return c.number(f"{part}_alpha_factor", float), c.number(f"{part}_beta_factor", float)

    def block(kind: str) -> Custom:
        inner = Block(attn=mixers[kind], mlp=moe, order=PreNorm(norm=rms(c)))
        own = (("block", inner), ("attn", factors(kind.replace("attention", "attn"))), ("mlp", factors("mlp")))
        return Custom(path="pellucid.families.minimax.lightning:Weighted", options=own)

    made = {kind: block(kind) for kind in mixers}
    return decoder(c, "minimax", [made[kind] for kind in kinds(c)])


# A matrix for each head, as Kimi's delta rule has it; no convolution.
KEEPS = {
    "Lightning": lambda part: (
        KimiDelta(heads=part["heads"], head_dim=part["head_dim"], kernel=1, norm=RmsNorm(eps=0.0)),
    ),
}
