"""Llama 4, its text part. ai.meta.com/blog/llama-4-multimodal-intelligence."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import (
    ATTENTION,
    EMBEDDING,
    GATED,
    HEAD_WEIGHTS,
    attention,
    classes,
    decoder,
    gated,
    layer_types,
    rms,
)
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, LOCAL_EXPERTS, RMS, Gguf, rope
from pellucid.families._moe import experts
from pellucid.families._read import read_rope
from pellucid.spec import Attention, Block, PreNorm, QkNorm, Router, SharedExpert, Spec, Temperature
from pellucid.weights.table import Entry, Fused, Stacked, Transposed

CLASSES = classes("Llama4", "causal-lm") | {None: "Llama4TextModel"}
DEFAULTS = {
    "vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
    "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "pad_token_id": None,
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "attention_dropout": 0.0,
    "num_experts_per_tok": 1, "num_local_experts": 16, "moe_layers": None, "interleave_moe_layer_step": 1,
    "use_qk_norm": True, "router_aux_loss_coef": 0.001, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 500000.0, "no_rope_layers": None, "no_rope_layer_interval": 4, "attention_chunk_size": 8192,
    "layer_types": None, "attn_temperature_tuning": True, "floor_scale": 8192, "attn_scale": 0.1,
    "attention_bias": False,
}  # fmt: skip
IGNORED = {"output_router_logits": None, "router_jitter_noise": None, "for_llm_compressor": None}

CHUNKED = ("chunked_attention", "full_attention")
BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count, at, slot = c.size("num_local_experts"), "model.layers.{i}.feed_forward.", "blocks.{i}.mlp."
    gate_up = Fused(slot + "experts.{e}.{}.weight", ("gate", "up"))
    dense = {name.replace(".mlp.", ".feed_forward."): entry for name, entry in GATED.items()}
    return EMBEDDING | ATTENTION | HEAD_WEIGHTS | dense | {
        at + "router.weight": slot + "router.weight",
        at + "experts.gate_up_proj": Stacked(Transposed(gate_up), count),
        at + "experts.down_proj": Stacked(Transposed(slot + "experts.{e}.down.weight"), count),
        **{f"{at}shared_expert.{x}_proj.weight": f"{slot}shared.{x}.weight" for x in ("gate", "up", "down")},
    }  # fmt: skip


GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | LOCAL_EXPERTS | {
        "intermediate_size": "expert_feed_forward_length", "intermediate_size_mlp": "feed_forward_length",
        "interleave_moe_layer_step": "interleave_moe_layer_step",
    },
    lambda c: DECODER | _gguf.experts(c.num_local_experts), more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    layers, order, shared = c.layers("num_hidden_layers"), PreNorm(norm=rms(c)), SharedExpert(mlp=gated(c))
    router = Router(top_k=c.size("num_experts_per_tok"), score="topk_sigmoid")
    moe = experts(c, router, count="num_local_experts", hidden="intermediate_size", shared=shared, scale_input=True)
    dense = gated(c, hidden="intermediate_size_mlp")
    step, interval = c.size("interleave_moe_layer_step"), c.size("no_rope_layer_interval")
    sparse = range(step - 1, layers, step) if c.moe_layers is None else c.moe_layers
    turned = c.no_rope_layers or [(i + 1) % interval for i in range(layers)]  # 0 for a layer without rotation
    if not isinstance(turned, list) or len(turned) != layers or not isinstance(sparse, (list, range)):
        what = f"no_rope_layers={turned} and moe_layers={sparse} for {layers} layers"
        raise ConfigError(what, where=c.where, next="give one number for each layer, and a list of layers")
    types = layer_types(c, CHUNKED, lambda i: CHUNKED[not turned[i]])
    chunk, (plain, rotated) = c.size("attention_chunk_size", null=None), _attention(c)
    blocks = [
        Block(
            attn=replace(rotated if turned[i] else plain, chunk=chunk if kind == CHUNKED[0] else None),
            mlp=moe if i in sparse else dense, order=order,
        )
        for i, kind in enumerate(types)
    ]  # fmt: skip
    return decoder(c, "llama4_text", blocks)


def _attention(c: Config) -> tuple[Attention, Attention]:
    """Without rotation, where queries grow with the logarithm of the position, and with it."""
    norm = QkNorm(norm=rms(c, weight=False), after_rope=True) if c.use_qk_norm else None
    growth = Temperature(scale=c.number("attn_scale", float), floor=c.number("floor_scale", float), shift=1.0)
    plain = attention(c, rope=None, temperature=growth if c.attn_temperature_tuning else None)
    return plain, replace(plain, rope=read_rope(c, plain.head_dim, interleaved=True), temperature=None, qk_norm=norm)
