"""Gemma 4 without side inputs and experts: the text part of its encoder-free model. Blog: ai.google.dev/gemma."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import gemma4_text
from pellucid.spec import Spec

CLASSES = {None: "Gemma4UnifiedTextModel", "causal-lm": "Gemma4UnifiedForCausalLM"}
DEFAULTS = gemma4_text.DEFAULTS | {
    "max_position_embeddings": 262144, "sliding_window": 1024, "use_bidirectional_attention": "vision",
    "hidden_size_per_layer_input": 0,
}  # fmt: skip
IGNORED = gemma4_text.IGNORED

BASE = "model."
WEIGHTS = gemma4_text.WEIGHTS


def spec(c: Config) -> Spec:
    return replace(gemma4_text.spec(c), family="gemma4_unified_text")
