"""Granite with windows, attention sinks (arXiv 2309.17453), and a rotary base for each layer, 0 where there is none."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import LLAMA, attention, classes, windows
from pellucid.families._gguf import DECODER, WINDOW, Gguf, Said, paired, rope, window_types
from pellucid.families.granite import DEFAULTS as GRANITE
from pellucid.families.granite import GRANITE_KEYS, granite_block, granite_decoder
from pellucid.spec import Attention, Block, Rope, Spec

CLASSES = classes("GraniteSWA", "causal-lm")
DEFAULTS = GRANITE | {
    "vocab_size": 100352, "hidden_size": 2560, "intermediate_size": 8192, "num_hidden_layers": 24,
    "num_attention_heads": 20, "num_key_value_heads": 4, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "bos_token_id": 100257, "eos_token_id": 100257, "tie_word_embeddings": True, "sliding_window": 128,
    "layer_types": None, "layer_rope_theta": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | {"model.layers.{i}.self_attn.sinks": "blocks.{i}.attn.sinks"}


def gguf_layers(said: Said) -> dict[str, Any]:
    """Windows, and which layers turn their positions."""
    turned, theta = said.by_layer("attention.rope_pattern"), said.get("rope.freq_base")
    return rope(said) | window_types(said) | {
        "layer_rope_theta": turned and [theta if yes else 0 for yes in turned],
    }  # fmt: skip


def gguf_pattern(c: Config, spec: Spec) -> dict[str, Any]:
    attns = [block.attn for block in spec.stack.blocks if isinstance(block, Block)]
    return {"attention.rope_pattern": [isinstance(attn, Attention) and attn.rope is not None for attn in attns]}


GGUF = Gguf(
    GRANITE_KEYS | WINDOW, paired(DECODER | {"blk.{i}.attn_sinks.weight": "blocks.{i}.attn.sinks"}),
    more=gguf_layers, says=gguf_pattern,
)  # fmt: skip


def spec(c: Config) -> Spec:
    attn = attention(c, scale=c.number("attention_multiplier", float), sinks=True)
    layers = by_theta(c, windows(c, attn, lambda i: "sliding_attention" if i % 4 else "full_attention"))
    blocks = [granite_block(c, one) for one in layers]
    return granite_decoder(c, "granite_swa", blocks, 1 / c.number("logits_scaling", float, least=1e-6))


def by_theta(c: Config, layers: list[Attention]) -> list[Attention]:
    """Each layer with its own rotary base."""
    thetas = c.get("layer_rope_theta")
    if thetas is None:
        return layers
    right = isinstance(thetas, list) and all(type(t) in (int, float) and (t == 0 or t > 1) for t in thetas)
    if not right or len(thetas) != len(layers):
        what = f"layer_rope_theta={thetas} for {len(layers)} layers"
        raise ConfigError(what, where=c.where, next="give one base for each, 0 where positions are not rotated")

    def turned(old: Rope | None, theta: float) -> Rope | None:
        return replace(old, theta=float(theta)) if old is not None and theta else None

    return [replace(one, rope=turned(one.rope, theta)) for one, theta in zip(layers, thetas)]
