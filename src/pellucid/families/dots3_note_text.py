"""dots.3 Note, text: latent attention of two shapes, one with an indexer and one with a window."""

from array import array
from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import decoder, gated, layer_types, rms
from pellucid.families._latent import DERIVED, INDEXER, MLA, further_layers
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.families._read import read_ropes
from pellucid.spec import Block, Gate, Indexer, LatentAttention, PreNorm, Rope, Spec
from pellucid.weights.table import Entry, Scaled, Share

CLASSES = {None: "Dots3NoteTextModel", "causal-lm": "Dots3NoteForCausalLM"}
DEFAULTS = {
    "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 13824, "moe_intermediate_size": 1536,
    "num_hidden_layers": 46, "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "output_router_logits": False, "routed_scaling_factor": 1.0, "kv_lora_rank": 512,
    "q_lora_rank": 1024, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 8, "norm_topk_prob": True, "hidden_act": "silu",
    "max_position_embeddings": 524288, "rms_norm_eps": 1e-5, "pad_token_id": 151659, "bos_token_id": 151643,
    "eos_token_id": 151668, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 80000000.0, "rope_local_base_freq": 50000.0, "mlp_layer_types": None, "first_k_dense_replace": 1,
    "attention_bias": False, "attention_dropout": 0.0, "index_topk": 2048, "index_head_dim": 128,
    "index_n_heads": 64, "mlp_bias": False, "head_dim": 256, "layer_types": None, "sliding_window": 512,
    "shared_experts_intermediate_size": 1536, "per_layer_config": None, "num_nextn_predict_layers": 0,
}  # fmt: skip
ALIASES = {
    "num_local_experts": "n_routed_experts", "sliding_window_size": "sliding_window",
    "moe_shared_expert_intermediate_size": "shared_experts_intermediate_size",
    "swa_rope_theta": "rope_local_base_freq",
}  # fmt: skip
IGNORED = DERIVED | {
    "num_nextn_predict_layers": None, "output_router_logits": None, "use_dsa": (True,), "moe_layer_freq": (1,),
    "use_sliding_window": (True,), "mlp_bias": (False,), "swa_num_key_value_heads": None, "head_dim": None,
}  # fmt: skip

BASE = "model."
TYPES = ("full_attention", "indexed_attention", "sliding_attention")
# What sliding layers have instead, where the file names neither them nor a section for each layer.
SLIDING = {
    "num_attention_heads": 64, "q_lora_rank": 1024, "kv_lora_rank": 1024, "head_dim": 256, "qk_nope_head_dim": 192,
    "v_head_dim": 128,
}  # fmt: skip


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    own: dict[str, Entry] = {
        "model.layers.{i}.self_attn.g_proj.weight": "blocks.{i}.attn.gate.proj.weight",
        "model.layers.{i}.self_attn.k_rope_only_layernorm.weight": "blocks.{i}.attn.rope_norm.weight",
    }
    return further_layers(c, MLA | INDEXER | own | moe_weights())


def gguf_weights(c: Config) -> dict[str, Entry]:
    """What scales the small vectors is in the weights of their norms; both kinds of layers have their own sizes."""
    table = _gguf.DECODER | _gguf.LATENT | _gguf.INDEXER | _gguf.experts(c.n_routed_experts) | {
        "blk.{i}.attn_k_norm.{p}": "blocks.{i}.attn.rope_norm.{p}",
        "blk.{i}.attn_gate.weight": "blocks.{i}.attn.gate.proj.weight",
    }  # fmt: skip
    width, own = c.size("hidden_size"), dict[str, Entry]()
    for i, sizes in enumerate(kinds_and_shapes(c)[1]):
        name, slot = f"blk.{i}.attn_", f"blocks.{i}.attn."
        heads, nope = sizes["num_attention_heads"], sizes["qk_nope_head_dim"]
        own |= {
            f"{name}q_a_norm.weight": Scaled(f"{slot}q_norm.weight", (width / sizes["q_lora_rank"]) ** 0.5),
            f"{name}kv_a_norm.weight": Scaled(f"{slot}kv_norm.weight", (width / sizes["kv_lora_rank"]) ** 0.5),
            f"{name}k_b.weight": Share(f"{slot}kv_b.weight", heads, 0, nope, turned=True),
            f"{name}v_b.weight": Share(f"{slot}kv_b.weight", heads, nope, nope + sizes["v_head_dim"]),
        }
    return _gguf.further_layers(c, own | table)


def gguf_sizes(said: _gguf.Said) -> dict[str, Any]:
    """Sizes of both kinds of layers; those with a window have no indexer, and all others have one."""
    windows, turned = said.by_layer("attention.sliding_window_pattern") or [], said.get("rope.dimension_count")
    count = said.get("block_count") - said.get("nextn_predict_layers", 0)
    heads = said.by_layer("attention.head_count") or [said.get("attention.head_count")] * count
    near = [own for own, window in zip(heads, windows) if window]
    far = [own for own, window in zip(heads, windows) if not window]
    key, swa_key = said.get("attention.key_length_mla"), said.get("attention.key_length_mla_swa")
    return _gguf.rope(said) | _gguf.extra_layers(said) | {
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows[:count]],
        "num_attention_heads": next(iter(far), None), "qk_nope_head_dim": key - turned, "qk_rope_head_dim": turned,
        "v_head_dim": said.get("attention.value_length_mla"), "kv_lora_rank": said.get("attention.kv_lora_rank"),
        "swa_num_attention_heads": next(iter(near), None), "swa_qk_nope_head_dim": swa_key - turned,
        "swa_qk_rope_head_dim": turned, "swa_head_dim": swa_key,
        "swa_v_head_dim": said.get("attention.value_length_mla_swa"),
        "swa_q_lora_rank": said.get("attention.q_lora_rank"),
        "swa_kv_lora_rank": said.get("attention.kv_lora_rank_swa"),
        "shared_experts_intermediate_size": said.get("expert_feed_forward_length"),
    }  # fmt: skip


def gguf_says(c: Config, spec: Spec) -> dict[str, Any]:
    blocks = [block for block in spec.stack.blocks if isinstance(block, Block)]
    attns = [block.attn for block in blocks if isinstance(block.attn, LatentAttention)]
    near = next((attn for attn in attns if attn.window is not None), attns[0])
    return {
        "attention.head_count": array("i", [attn.heads for attn in attns]),
        "attention.sliding_window": near.window,
        "attention.sliding_window_pattern": [attn.window is not None for attn in attns],
        "attention.indexer.types": [attn.indexer is not None for attn in attns],
        "attention.kv_lora_rank_swa": near.kv_rank, "attention.key_length_swa": near.kv_rank + near.rope_dim,
        "attention.value_length_swa": near.kv_rank, "attention.value_length_mla_swa": near.value_dim,
        "attention.key_length_mla_swa": near.nope_dim + near.rope_dim,
        "rope.freq_base_swa": near.rope and near.rope.theta,
    }  # fmt: skip


GGUF = _gguf.Gguf(
    {
        **{key: name for key, name in _gguf.KEYS.items() if key not in ("num_attention_heads", "num_key_value_heads")},
        **{key: name for key, name in _gguf.ROUTED_EXPERTS.items() if key not in ("n_group", "topk_group")},
        **_gguf.RMS, **_gguf.WINDOW, **_gguf.INDEXER_KEYS,
        "q_lora_rank": "attention.q_lora_rank", "rope_local_base_freq": "rope.freq_base_swa",
    },
    gguf_weights, more=gguf_sizes, says=gguf_says,
)  # fmt: skip


def spec(c: Config) -> Spec:
    types, shapes = kinds_and_shapes(c)
    sections = c.section("rope_parameters")  # newer files say which share of a head turns
    wide = any(
        isinstance(one, dict) and "partial_rotary_factor" in one
        for one in (sections.given().values() if sections else ())
    )
    dims = {kind: own["head_dim"] if wide else own["qk_rope_head_dim"] for kind, own in zip(types, shapes)}
    ropes = read_ropes(c, dims, types=sorted({*types}), interleaved=True)
    order, dense = PreNorm(norm=rms(c)), gated(c)
    shared = shared_experts(c, hidden="shared_experts_intermediate_size")
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared)
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    mixers = [attention(c, kind, own, ropes[kind]) for kind, own in zip(types, shapes)]
    blocks = [Block(attn=one, mlp=moe if s else dense, order=order) for one, s in zip(mixers, sparse)]
    return decoder(c, "dots3_note_text", blocks)


def kinds_and_shapes(c: Config) -> tuple[list[str], list[dict[str, int]]]:
    """What each layer sees, and the sizes of its attention."""
    by_layer = c.section("per_layer_config")
    types = layer_types(c, TYPES, lambda i: "indexed_attention" if i < 2 or i % 4 == 1 else "sliding_attention")
    if by_layer is None:  # released files call the layers with an indexer full
        types = ["indexed_attention" if kind == "full_attention" else kind for kind in types]
    return list(types), [shape(c, by_layer, i, kind) for i, kind in enumerate(types)]


def shape(c: Config, by_layer: Config | None, layer: int, kind: str) -> dict[str, int]:
    """The sizes of a layer's attention: its own section's, or those that are named for sliding layers."""
    names = (*SLIDING, "qk_rope_head_dim")
    whole = {name: int(c.size(name)) for name in names}
    if by_layer is not None:
        own = by_layer.section(str(layer)) or Config({}, where=c.where)
        own.get("num_key_value_heads")
        return {name: int(own.size(name, null=whole[name])) for name in names}
    sliding = {name: int(c.size(f"swa_{name}", null=usual)) for name, usual in SLIDING.items()}
    rotated = c.size("swa_qk_rope_head_dim", null=max(sliding["head_dim"] - sliding["qk_nope_head_dim"], 1))
    return sliding | {"qk_rope_head_dim": int(rotated)} if kind == "sliding_attention" else whole


def attention(c: Config, kind: str, own: dict[str, int], rope: Rope | None) -> LatentAttention:
    """Latent attention of a shape, whose small vectors are scaled up to the width's size."""
    width, q_rank, kv_rank = c.size("hidden_size"), own["q_lora_rank"], own["kv_lora_rank"]
    nope, turned = own["qk_nope_head_dim"], own["qk_rope_head_dim"]
    chooser = Indexer(
        heads=c.size("index_n_heads"), head_dim=c.size("index_head_dim"), top_k=c.size("index_topk"), rope=rope
    )
    return LatentAttention(
        heads=own["num_attention_heads"], q_rank=q_rank, kv_rank=kv_rank, nope_dim=nope, rope_dim=turned,
        value_dim=own["v_head_dim"], scale=(nope + turned) ** -0.5, rope=rope, norm=rms(c), rope_norm=rms(c),
        biases="qko" if c.attention_bias else "", gate=Gate(per="head"), q_scale=(width / q_rank) ** 0.5,
        kv_scale=(width / kv_rank) ** 0.5, window=c.size("sliding_window") if kind == "sliding_attention" else None,
        indexer=chooser if kind == "indexed_attention" else None, dropout=c.share("attention_dropout"),
    )  # fmt: skip
