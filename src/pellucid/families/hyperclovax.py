"""HyperCLOVA X SEED: Granite's multipliers, norms behind the sublayers too. Papers: arXiv 2404.01954, 2502.02732."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, rms
from pellucid.families._read import grouped_heads
from pellucid.families.granite import DEFAULTS as GRANITE
from pellucid.families.granite import granite_block, granite_decoder
from pellucid.spec import PreNorm, Sandwich, Spec

CLASSES = classes("HyperCLOVAX", "causal-lm")
DEFAULTS = GRANITE | {"attention_multiplier": None, "use_post_norm": True}

BASE = "model."
WEIGHTS = LLAMA | {
    "model.layers.{i}.post_norm1.weight": "blocks.{i}.attn_post_norm.weight",
    "model.layers.{i}.post_norm2.weight": "blocks.{i}.mlp_post_norm.weight",
}


def spec(c: Config) -> Spec:
    order = Sandwich(norm=rms(c)) if c.use_post_norm else PreNorm(norm=rms(c))
    scale = c.number("attention_multiplier", float, null=grouped_heads(c)[2] ** -0.5)
    blocks = [granite_block(c, attention(c, scale=scale), order)] * c.layers("num_hidden_layers")
    return granite_decoder(c, "hyperclovax", blocks, c.number("logits_scaling", float))
