"""LFM3: short convolutions between layers of windowed and of full attention, both gated. huggingface.co/LiquidAI."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, layer_types, rms
from pellucid.families._read import read_ropes
from pellucid.families.lfm2 import WEIGHTS as LFM2
from pellucid.spec import Block, Gate, Mixer, Mlp, PreNorm, QkNorm, Sandwich, ShortConv, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Lfm3", "causal-lm")
DEFAULTS = {
    "vocab_size": 128000, "hidden_size": 2048, "intermediate_size": 7680, "num_hidden_layers": 24,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 128000, "norm_eps": 1e-5,
    "pad_token_id": 124893, "bos_token_id": 124894, "eos_token_id": 124900, "tie_word_embeddings": True,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
    },
    "conv_bias": False, "conv_L_cache": 7, "layer_types": None, "head_dim": 128, "sliding_window": 256,
    "use_sandwich_norm": True, "use_attention_gate": True, "attention_bias": False, "attention_dropout": 0.0,
}  # fmt: skip
ALIASES = {"rms_norm_eps": "norm_eps"}

BASE = "model."
OWN: dict[str, Entry] = {
    "model.layers.{i}.post_operator_norm.weight": "blocks.{i}.attn_post_norm.weight",
    "model.layers.{i}.post_ffn_norm.weight": "blocks.{i}.mlp_post_norm.weight",
    "model.layers.{i}.self_attn.gate_proj.weight": "blocks.{i}.attn.gate.proj.weight",
    **{f"model.layers.{{i}}.self_attn.{x}_proj.{{p}}": f"blocks.{{i}}.attn.{x}.{{p}}" for x in "qkvo"},
    **{f"model.layers.{{i}}.self_attn.{x}_norm.weight": f"blocks.{{i}}.attn.{x}_norm.weight" for x in "qk"},
}
WEIGHTS = OWN | {name: entry for name, entry in LFM2.items() if name not in OWN}


def usual(i: int) -> str:
    return "full_attention" if i % 4 == 2 else "sliding_attention" if i % 4 == 0 and i else "conv"


def spec(c: Config) -> Spec:
    norm, ropes = rms(c), read_ropes(c, c.size("head_dim"))
    gate = Gate(per="head") if c.use_attention_gate else None
    attn = attention(c, rope=ropes["full_attention"], qk_norm=QkNorm(norm=norm), gate=gate)
    kinds: dict[str, Mixer] = {
        "full_attention": attn,
        "sliding_attention": replace(attn, rope=ropes["sliding_attention"], window=c.size("sliding_window")),
        "conv": ShortConv(kernel=c.size("conv_L_cache"), bias=c.conv_bias),
    }
    mlp = Mlp(hidden=c.size("intermediate_size"), act="silu", gated=True)
    order = Sandwich(norm=norm) if c.use_sandwich_norm else PreNorm(norm=norm)
    types = layer_types(c, [*kinds], usual)
    return decoder(c, "lfm3", [Block(attn=kinds[kind], mlp=mlp, order=order) for kind in types], norm=norm)
