"""Jamba: Mamba with a layer of attention now and then, and experts in every second layer. Paper: arXiv 2403.19887."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, EXPERTS, HYBRID_KEYS, RMS, Gguf, Said
from pellucid.families._moe import experts, moe_weights
from pellucid.families._read import activation
from pellucid.families._recurrent import BESIDE, JAMBA, MAMBA, step_rank
from pellucid.spec import Block, Mamba, PreNorm, Router, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Jamba", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 65536, "tie_word_embeddings": False, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "router_aux_loss_coef": 0.001, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "max_position_embeddings": 262144, "attention_dropout": 0.0, "num_experts_per_tok": 2, "num_experts": 16,
    "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 8, "attn_layer_offset": 4,
    "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": None, "mamba_conv_bias": True,
    "mamba_proj_bias": False,
}  # fmt: skip
ALIASES = {"num_local_experts": "num_experts"}
IGNORED = BESIDE | {
    "sliding_window": (None,), "mamba_inner_layernorms": (True,), "calc_logits_for_entire_prompt": None,
    "output_router_logits": None, "layer_types": None, "layers_block_type": None,
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = JAMBA | moe_weights("feed_forward", router="router.weight") | {
    **{f"model.layers.{{i}}.mamba.{name}": slot for name, slot in MAMBA.items()},
}  # fmt: skip


def periods(said: Said) -> dict[str, Any]:
    """How often layers attend, and have experts; what files say layer by layer."""
    found: dict[str, Any] = {}
    heads, count = said.by_layer("attention.head_count_kv") or [], said.get("block_count")
    sparse = [i for i in range(count) if said.has(f"blk.{i}.ffn_gate_inp.weight")]
    for kind, layers in {"attn": [i for i, kv in enumerate(heads) if kv], "expert": sparse}.items():
        first, second = (*layers, *(count, 2 * count)[len(layers) :])[:2]
        found |= {f"{kind}_layer_offset": first, f"{kind}_layer_period": second - first}
    return found | _gguf.state_at(said, heads.index(0)) | {"num_key_value_heads": max(heads, default=None)}


GGUF = Gguf(
    HYBRID_KEYS | RMS | EXPERTS | {
        "mamba_d_conv": "ssm.conv_kernel", "mamba_d_state": "ssm.state_size", "mamba_dt_rank": "ssm.time_step_rank",
    },
    lambda c: DECODER | _gguf.MAMBA | _gguf.experts(c.num_experts),
    more=periods,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, mlp = rms(c), gated(c)
    moe = experts(c, Router(top_k=c.size("num_experts_per_tok")), expert=mlp)
    attn = attention(c, rope=None)
    mamba = Mamba(
        inner=c.size("mamba_expand") * c.size("hidden_size"), state=c.size("mamba_d_state"),
        kernel=c.size("mamba_d_conv"), dt_rank=step_rank(c, "mamba_dt_rank"), conv_bias=c.mamba_conv_bias,
        bias=c.mamba_proj_bias, act=activation(c.hidden_act, c), norm=norm,
    )  # fmt: skip

    def every(kind: str, i: int) -> bool:
        return bool(i % c.size(f"{kind}_layer_period") == c.number(f"{kind}_layer_offset"))

    blocks = [
        Block(
            attn=attn if every("attn", i) else mamba, mlp=moe if every("expert", i) and moe.experts > 1 else mlp,
            order=PreNorm(norm=norm),
        )
        for i in range(c.layers("num_hidden_layers"))
    ]  # fmt: skip
    return decoder(c, "jamba", blocks)
