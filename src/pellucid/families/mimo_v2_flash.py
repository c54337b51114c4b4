"""MiMo V2 Flash: windowed layers have sinks and twice the key heads. huggingface.co/XiaomiMiMo."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, layer_types, rms
from pellucid.families._gguf import Said
from pellucid.families._moe import deepseek_router, experts, moe_weights, sparse_layers
from pellucid.families._read import grouped_heads, read_rope, read_ropes
from pellucid.spec import Block, PreNorm, Rope, Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("MiMoV2Flash", "causal-lm")
DEFAULTS = {
    "vocab_size": 152576, "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 48,
    "num_attention_heads": 64, "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "attention_bias": False, "attention_dropout": 0.0,
    "moe_intermediate_size": 2048, "num_experts_per_tok": 8, "n_routed_experts": 256, "routed_scaling_factor": 1.0,
    "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "bos_token_id": 1, "eos_token_id": None,
    "pad_token_id": None, "head_dim": 192, "v_head_dim": 128, "sliding_window": 129, "layer_types": None,
    "mlp_layer_types": None, "attention_value_scale": 0.707, "rope_theta": 5000000.0, "rope_scaling": None,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.334},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.334},
    },
}  # fmt: skip
ALIASES = {"num_local_experts": "n_routed_experts", "layernorm_epsilon": "rms_norm_eps"}
IGNORED = {
    "output_router_logits": None, "scoring_func": ("sigmoid",), "topk_method": ("noaux_tc",),
    "n_shared_experts": (None, 0), "hybrid_block_size": (None,), "attention_chunk_size": None,
    "add_swa_attention_sink_bias": (True,), "add_full_attention_sink_bias": (False,),
    # sizes that the weights would not fit if they were others
    "swa_head_dim": None, "swa_v_head_dim": None, "swa_num_attention_heads": None, "swa_num_key_value_heads": None,
}  # fmt: skip

KINDS = ("full_attention", "sliding_attention")
BASE = "model."
WEIGHTS: dict[str, Entry] = LLAMA | moe_weights() | {
    "model.layers.{i}.self_attn.attention_sink_bias": "blocks.{i}.attn.sinks",
    "model.mtp.*": Unused("predicts several tokens at once"),
}  # fmt: skip


NOT_SAID = ("n_shared_experts", "first_k_dense_replace")


def gguf_layers(said: Said) -> dict[str, Any]:
    """What layers are, by their tensors; those with a window have twice the key heads."""
    count = said.get("block_count") - said.get("nextn_predict_layers", 0)
    types, heads = _gguf.window_types(said)["layer_types"], said.by_layer("attention.head_count_kv")
    sparse = [said.has(f"blk.{i}.ffn_gate_inp.weight") for i in range(count)]
    full = zip(heads or [], types or [])
    return _gguf.ropes(said) | {
        "num_hidden_layers": count, "layer_types": types,
        "num_key_value_heads": next((kv for kv, kind in full if kind == KINDS[0]), None),
        "mlp_layer_types": ["sparse" if yes else "dense" for yes in sparse],
    }  # fmt: skip


GGUF = _gguf.Gguf(
    {key: name for key, name in _gguf.UNTURNED_KEYS.items() if key != "num_key_value_heads"}
    | _gguf.RMS | _gguf.HEAD_DIM | _gguf.WINDOW | {
        "v_head_dim": "attention.value_length", "attention_value_scale": "attention.value_scale",
        **{key: name for key, name in _gguf.ROUTED_EXPERTS.items() if key not in NOT_SAID},
    },
    lambda c: _gguf.beyond(c.layers("num_hidden_layers"), 3, _gguf.DECODER | _gguf.experts(c.n_routed_experts) | {
        "blk.{i}.attn_sinks.weight": "blocks.{i}.attn.sinks",
    }),
    set={"attention_value_scale": None}, more=gguf_layers,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense, window = rms(c), gated(c), c.size("sliding_window")
    if c.get("sliding_window_size") is not None:  # the older key counts the tokens before
        window = c.size("sliding_window_size") + 1
    full = attention(
        c, rope=None, biases="qkv" if c.attention_bias else "", value_dim=c.size("v_head_dim"),
        v_scale=c.number("attention_value_scale", float, null=1.0),
    )  # fmt: skip
    local = replace(full, window=window, kv_heads=2 * full.kv_heads, sinks=True)
    turned = {kind: replace(a, rope=_ropes(c)[kind]) for kind, a in zip(KINDS, (full, local))}
    pattern = _flags(c, "hybrid_layer_pattern", lambda i: i > 0 and (i + 1) % 6 > 0)
    types = layer_types(c, KINDS, lambda i: KINDS[pattern[i]])
    moe = experts(c, deepseek_router(c), count="n_routed_experts")
    sparse = sparse_layers(c, 1) if c.get("moe_layer_freq") is None else _flags(c, "moe_layer_freq", bool)
    blocks = [Block(attn=turned[t], mlp=moe if s else dense, order=PreNorm(norm=norm)) for t, s in zip(types, sparse)]
    return decoder(c, "mimo_v2_flash", blocks)


def _flags(c: Config, key: str, usual: Callable[[int], bool]) -> list[bool]:
    """The released files' 0 or 1 for each layer."""
    layers, given = c.layers("num_hidden_layers"), c.get(key)
    if given is None:
        return [usual(i) for i in range(layers)]
    if not isinstance(given, list) or len(given) != layers or not all(flag in (0, 1) for flag in given):
        raise ConfigError(f"{key}={given} for {layers} layers", where=c.where, next="give 0 or 1 for each")
    return [bool(flag) for flag in given]


def _ropes(c: Config) -> dict[str, Rope | None]:
    """Released files have a base of their own for the windowed layers, beside the others' keys."""
    head_dim, local = grouped_heads(c)[2], c.number("swa_rope_theta", float, least=1, null=None)
    if local is None:
        return read_ropes(c, head_dim)
    rope = read_rope(c, head_dim, section=Config({}, where=c.where))
    return {"full_attention": rope, "sliding_attention": replace(rope, theta=float(local))}
