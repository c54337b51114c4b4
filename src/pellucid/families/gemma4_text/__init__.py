"""Gemma 4, text: layers of two shapes, inputs of each layer's own, shared keys, experts. Blog: ai.google.dev/gemma.

`block.py` has what no other family does: the inputs of each layer, and the sum of a dense part and experts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, SANDWICH, decoder, gated, layer_types, rms
from pellucid.families._gguf import DECODER, Said, window_types
from pellucid.families._read import read_ropes
from pellucid.spec import Attention, Block, Custom, Embed, LmHead, Moe, QkNorm, RmsNorm, Router, Sandwich, Spec
from pellucid.weights.table import Entry, Fused, Stacked, Unused

CLASSES = {None: "Gemma4TextModel", "causal-lm": "Gemma4ForCausalLM"}
DEFAULTS: dict[str, Any] = {
    "vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "global_head_dim": 512,
    "num_global_key_value_heads": None, "per_layer_config": None, "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    "tie_word_embeddings": True, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    },
    "sliding_window": 512, "layer_types": None, "final_logit_softcapping": None, "use_bidirectional_attention": None,
    "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256, "attention_k_eq_v": False,
    "num_kv_shared_layers": 0, "enable_moe_block": False, "use_double_wide_mlp": False, "num_experts": None,
    "top_k_experts": None, "moe_intermediate_size": None,
}  # fmt: skip
IGNORED = {"use_bidirectional_attention": (None, "vision")}  # tokens of images alone look both ways

BASE = "model."
TYPES = ("sliding_attention", "full_attention")


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer, experts, layers = "model.layers.{i}", c.number("num_experts", null=0), c.layers("num_hidden_layers")
    shared = range(layers - c.number("num_kv_shared_layers"), layers)
    parts = ("k_proj", "v_proj", "k_norm", "v_norm")
    return {
        **LLAMA, **SANDWICH, **QK_NORM,
        f"{layer}.layer_scalar": "blocks.{i}.scalar",
        "model.embed_tokens_per_layer.weight": "blocks.0.inputs.tokens.weight",
        "model.per_layer_model_projection.weight": "blocks.0.inputs.project.weight",
        "model.per_layer_projection_norm.weight": "blocks.0.inputs.norm.weight",
        f"{layer}.per_layer_input_gate.weight": "blocks.{i}.side.gate.weight",
        f"{layer}.per_layer_projection.weight": "blocks.{i}.side.up.weight",
        f"{layer}.post_per_layer_input_norm.weight": "blocks.{i}.side.norm.weight",
        f"{layer}.router.proj.weight": "blocks.{i}.moe.router.weight",
        f"{layer}.router.scale": "blocks.{i}.moe.scale",
        f"{layer}.router.per_expert_scale": "blocks.{i}.moe.expert_scale",
        f"{layer}.experts.gate_up_proj": Stacked(
            Fused("blocks.{i}.moe.experts.{e}.{}.weight", ("gate", "up")), experts
        ),
        f"{layer}.experts.down_proj": Stacked("blocks.{i}.moe.experts.{e}.down.weight", experts),
        f"{layer}.pre_feedforward_layernorm_2.weight": "blocks.{i}.moe.norm_in.weight",
        f"{layer}.post_feedforward_layernorm_2.weight": "blocks.{i}.moe.norm_out.weight",
        f"{layer}.post_feedforward_layernorm_1.weight": "blocks.{i}.dense_norm.weight",
        **{
            f"model.layers.{i}.self_attn.{part}.weight": Unused("keys and values are those of an earlier layer")
            for i in shared for part in parts
        },
    }  # fmt: skip


def gguf_weights(c: Config) -> dict[str, Entry]:
    count, layers = c.number("num_experts", null=0), c.layers("num_hidden_layers")
    shared = range(layers - c.number("num_kv_shared_layers"), layers)
    return DECODER | _gguf.SANDWICH | {
        "blk.{i}.layer_output_scale.weight": "blocks.{i}.scalar",
        "per_layer_token_embd.weight": "blocks.0.inputs.tokens.weight",
        "per_layer_model_proj.weight": "blocks.0.inputs.project.weight",
        "per_layer_proj_norm.weight": "blocks.0.inputs.norm.weight",
        "blk.{i}.inp_gate.weight": "blocks.{i}.side.gate.weight",
        "blk.{i}.proj.weight": "blocks.{i}.side.up.weight",
        "blk.{i}.post_norm.weight": "blocks.{i}.side.norm.weight",
        "blk.{i}.ffn_gate_inp.weight": "blocks.{i}.moe.router.weight",
        "blk.{i}.ffn_gate_inp.scale": "blocks.{i}.moe.scale",
        "blk.{i}.ffn_down_exps.scale": "blocks.{i}.moe.expert_scale",
        "blk.{i}.ffn_gate_up_exps.weight": Stacked(
            Fused("blocks.{i}.moe.experts.{e}.{}.weight", ("gate", "up")), count
        ),
        "blk.{i}.ffn_down_exps.weight": Stacked("blocks.{i}.moe.experts.{e}.down.weight", count),
        "blk.{i}.pre_ffw_norm_2.weight": "blocks.{i}.moe.norm_in.weight",
        "blk.{i}.post_ffw_norm_2.weight": "blocks.{i}.moe.norm_out.weight",
        "blk.{i}.post_ffw_norm_1.weight": "blocks.{i}.dense_norm.weight",
        **{
            f"blk.{i}.attn_{part}.weight": Unused("keys and values are those of an earlier layer", kept=True)
            for i in shared for part in ("k", "v", "k_norm")
        },
    }  # fmt: skip


def gguf_layers(said: Said) -> dict[str, Any]:
    """Sizes of both types of layers; full ones turn as many channels as have a frequency."""
    types = window_types(said)["layer_types"] or []
    counts = said.by_layer("attention.head_count_kv") or [said.get("attention.head_count_kv")] * len(types)
    widths = said.by_layer("feed_forward_length") or [said.get("feed_forward_length")]
    heads = {kind: next((n for n, one in zip(counts, types) if one == kind), counts[0]) for kind in TYPES}
    full = types.index("full_attention") if "full_attention" in types else 0
    turned = said.numbers("rope_freqs.weight") if said.has("rope_freqs.weight") else [1.0]
    sections = {
        "full_attention": {
            "rope_type": "proportional", "rope_theta": said.get("rope.freq_base"),
            "partial_rotary_factor": sum(factor == 1 for factor in turned) / len(turned),
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": said.get("rope.freq_base_swa", 10000.0)},
    }  # fmt: skip
    return {
        "layer_types": types, "num_key_value_heads": heads["sliding_attention"], "rope_parameters": sections,
        "num_global_key_value_heads": heads["full_attention"], "intermediate_size": widths[0],
        "use_double_wide_mlp": max(widths) > widths[0], "enable_moe_block": said.has("blk.0.ffn_gate_inp.weight"),
        "attention_k_eq_v": not said.has(f"blk.{full}.attn_v.weight"),
        "vocab_size_per_layer_input": said.rows("per_layer_token_embd.weight") or said.rows("token_embd.weight"),
    }  # fmt: skip


def gguf_shapes(c: Config, spec: Spec) -> dict[str, Any]:
    """The way back: layers with a window have sizes of their own."""
    head_dim = c.size("head_dim")
    found = {"attention.key_length_swa": head_dim, "attention.value_length_swa": head_dim}
    return found | {"rope.dimension_count_swa": head_dim}


GGUF = _gguf.Gguf(
    {
        "hidden_size": "embedding_length", "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count", "head_dim": "attention.key_length_swa",
        "global_head_dim": "attention.key_length", "max_position_embeddings": "context_length",
        "final_logit_softcapping": "final_logit_softcapping", "num_experts": "expert_count",
        "hidden_size_per_layer_input": "embedding_length_per_layer_input", "top_k_experts": "expert_used_count",
        "num_kv_shared_layers": "attention.shared_kv_layers", "moe_intermediate_size": "expert_feed_forward_length",
    } | _gguf.RMS | _gguf.WINDOW,
    gguf_weights, more=gguf_layers, says=gguf_shapes,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, layers = rms(c, round_first=False), c.layers("num_hidden_layers")
    shared = c.number("num_kv_shared_layers", most=layers - 1)
    mixers = attentions(c, norm, layers - shared)
    side, rows = c.number("hidden_size_per_layer_input"), c.size("vocab_size_per_layer_input")
    lent = {mixer.kv_from for mixer in mixers}
    moe, bare = experts(c) if c.enable_moe_block else None, replace(norm, weight=False)
    narrow = gated(c, act="hidden_activation")
    wide = replace(narrow, hidden=2 * narrow.hidden) if c.use_double_wide_mlp else narrow
    blocks: list[Block | Custom] = []
    for i, mixer in enumerate(mixers):
        mlp = narrow if mixer.kv_from is None else wide
        block = Block(attn=mixer, mlp=mlp, order=Sandwich(norm=norm), scalar=True)
        options = {
            "block": block, "lends": i in lent, "moe": moe, "bare": bare, "side": side, "act": narrow.act,
            "layers": layers, "rows": rows,
        }  # fmt: skip
        layered = Custom(path="pellucid.families.gemma4_text.block:LayeredBlock", options=tuple(options.items()))
        blocks.append(layered if side or moe else block)
    cap = c.number("final_logit_softcapping", float, least=1e-6, null=None)
    return decoder(
        c, "gemma4_text", blocks, norm=norm,
        embed=Embed(vocab=c.size("vocab_size"), scale=c.size("hidden_size") ** 0.5),
        head=LmHead(tied=c.tie_word_embeddings, cap=cap),
    )  # fmt: skip


def attentions(c: Config, norm: RmsNorm, first_shared: int) -> list[Attention]:
    """Each layer's attention; from `first_shared` on, with the keys and values of the last layer of its type before."""
    types = layer_types(c, TYPES, lambda i: "sliding_attention" if (i + 1) % 6 else "full_attention")
    types = [*types[:-1], "full_attention"]  # the last one always is
    shapes = [shape(c, i, kind) for i, kind in enumerate(types)]
    ropes = read_ropes(c, {kind: head_dim for kind, (head_dim, _) in zip(types, shapes)}, types=sorted({*types}))
    window = c.size("sliding_window")
    last = {kind: first_shared - 1 - types[:first_shared][::-1].index(kind) for kind in {*types[:first_shared]}}
    if {*types} - {*last}:
        what = f"num_kv_shared_layers={c.num_kv_shared_layers} leaves no layer of some type that has keys of its own"
        raise ConfigError(what, where=c.where, next="correct config.json")
    return [
        Attention(
            heads=c.size("num_attention_heads"), kv_heads=kv_heads, head_dim=head_dim, scale=1.0,
            causal=True, window=window if kind == "sliding_attention" else None, rope=ropes[kind],
            biases="qkvo" if c.attention_bias else "", qk_norm=QkNorm(norm=norm),
            v_norm=replace(norm, weight=False), v_from_k=bool(c.attention_k_eq_v) and kind == "full_attention",
            kv_from=None if i < first_shared else last[kind], dropout=c.share("attention_dropout", null=0.0),
        )
        for i, (kind, (head_dim, kv_heads)) in enumerate(zip(types, shapes))
    ]  # fmt: skip


def shape(c: Config, layer: int, kind: str) -> tuple[int, int]:
    """Channels of a head and number of key heads: by layer in newer files, by type of layer in released ones."""
    whole: tuple[int, int] = c.size("head_dim"), c.size("num_key_value_heads")
    full: tuple[int, int] = c.size("global_head_dim"), c.size("num_global_key_value_heads", null=whole[1])
    by_layer = c.section("per_layer_config")
    if by_layer is None:
        return whole if kind != "full_attention" else full if c.attention_k_eq_v else (full[0], whole[1])
    own = by_layer.section(str(layer)) or Config({}, where=c.where)
    return own.size("head_dim", null=whole[0]), own.size("num_key_value_heads", null=whole[1])


def experts(c: Config) -> Moe:
    """The experts beside the dense part."""
    expert = gated(c, hidden="moe_intermediate_size", act="hidden_activation")
    router = Router(top_k=c.size("top_k_experts"), renormalise=True)
    return Moe(experts=c.size("num_experts"), expert=expert, router=router)
