"""What families with multi-head latent attention share: DeepSeek's names and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.config import Config
from pellucid.families._decoder import LLAMA
from pellucid.families._read import read_rope, yarn_score_scale
from pellucid.spec import Indexer, LatentAttention, RmsNorm, Rope
from pellucid.weights.table import Entry, Unused

INNER = RmsNorm(eps=1e-6)  # of the small vectors, whatever `rms_norm_eps` says
SELF = "model.layers.{i}.self_attn"
MLA: dict[str, Entry] = {
    **{name: entry for name, entry in LLAMA.items() if not name.startswith(f"{SELF}.")},
    f"{SELF}.q_proj.weight": "blocks.{i}.attn.q.weight",
    f"{SELF}.q_a_proj.{{p}}": "blocks.{i}.attn.q_a.{p}",
    f"{SELF}.q_a_layernorm.weight": "blocks.{i}.attn.q_norm.weight",
    f"{SELF}.q_b_proj.weight": "blocks.{i}.attn.q_b.weight",
    f"{SELF}.kv_a_proj_with_mqa.{{p}}": "blocks.{i}.attn.kv_a.{p}",
    f"{SELF}.kv_a_layernorm.weight": "blocks.{i}.attn.kv_norm.weight",
    f"{SELF}.kv_b_proj.weight": "blocks.{i}.attn.kv_b.weight",
    f"{SELF}.o_proj.{{p}}": "blocks.{i}.attn.o.{p}",
}

INDEXER: dict[str, Entry] = {
    f"{SELF}.indexer.wq_b.weight": "blocks.{i}.attn.indexer.q.weight",
    f"{SELF}.indexer.wk.weight": "blocks.{i}.attn.indexer.k.weight",
    f"{SELF}.indexer.k_norm.{{p}}": "blocks.{i}.attn.indexer.k_norm.{p}",
    f"{SELF}.indexer.weights_proj.weight": "blocks.{i}.attn.indexer.weigh.weight",
}


def latent(c: Config, *, interleaved: bool | None = None, **options: Any) -> LatentAttention:
    """Latent attention, by DeepSeek's keys.

    Args:
        interleaved: which channels make a pair, where `rope_interleave` does not say it.
        options: further fields of `spec.LatentAttention`.
    """
    nope, turned = c.size("qk_nope_head_dim"), c.size("qk_rope_head_dim")
    heads = c.size("num_attention_heads")
    rope: Rope = read_rope(c, turned, interleaved=c.rope_interleave if interleaved is None else interleaved)
    own: dict[str, Any] = {
        "heads": heads, "q_rank": c.size("q_lora_rank", null=None), "kv_rank": c.size("kv_lora_rank"),
        "nope_dim": nope, "rope_dim": turned, "value_dim": c.size("v_head_dim", null=c.size("hidden_size") // heads),
        "scale": (nope + turned) ** -0.5 * yarn_score_scale(c), "rope": rope, "norm": INNER,
        "biases": "qko" if c.attention_bias else "", "dropout": c.share("attention_dropout", null=0.0),
    }  # fmt: skip
    return LatentAttention(**(own | options))


def indexer(c: Config, *, interleaved: bool) -> Indexer:
    """DeepSeek V3.2's choice of keys."""
    rope = read_rope(c, c.size("qk_rope_head_dim"), interleaved=interleaved)
    return Indexer(
        heads=c.size("index_n_heads"), head_dim=c.size("index_head_dim"), top_k=c.size("index_topk"), rope=rope
    )


# Sizes that follow from the others, written beside them: the width of a rotated part, of a key, of all keys.
DERIVED: dict[str, tuple[Any, ...] | None] = {
    "head_dim": None, "qk_head_dim": None, "num_key_value_heads": None, "pretraining_tp": None,
}  # fmt: skip


def further_layers(c: Config, table: Mapping[str, Entry]) -> dict[str, Entry]:
    """The table with the layers behind the last one, which predict the tokens after the next, as unused."""
    first, count = c.layers("num_hidden_layers"), c.number("num_nextn_predict_layers", null=0, most=64)
    unused = Unused("predicts more than one token")
    names = [name for name in table if "{i}" in name] + ["model.layers.{i}.*"]
    return {**table, **{name.replace("{i}", str(first + i)): unused for i in range(count) for name in names}}
