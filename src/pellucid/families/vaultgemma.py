"""VaultGemma: Gemma 2 without the norms behind its sublayers. Paper: arXiv 2510.15001."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import gemma2
from pellucid.families._decoder import LLAMA, classes, rms
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("VaultGemma", "causal-lm")
DEFAULTS = gemma2.DEFAULTS
IGNORED = gemma2.IGNORED

BASE = "model."
WEIGHTS = {name: entry for name, entry in LLAMA.items() if "post_attention_layernorm" not in name} | {
    "model.layers.{i}.pre_feedforward_layernorm.weight": "blocks.{i}.mlp_norm.weight"
}


def spec(c: Config) -> Spec:
    order, like = PreNorm(norm=rms(c, offset=1.0, round_first=False)), gemma2.spec(c)
    blocks = tuple(replace(block, order=order) for block in like.stack.blocks if isinstance(block, Block))
    return replace(like, family="vaultgemma", stack=replace(like.stack, blocks=blocks))
