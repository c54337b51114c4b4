"""Phi 4 multimodal: its text part, which is Phi 3. Paper: arXiv 2503.01743."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import phi3
from pellucid.spec import Spec
from pellucid.weights.table import Unused

CLASSES = {None: "Phi4MultimodalModel", "causal-lm": "Phi4MultimodalForCausalLM"}
DEFAULTS = phi3.DEFAULTS | {
    "vocab_size": 200064, "num_key_value_heads": 8, "max_position_embeddings": 131072, "bos_token_id": 199999,
    "eos_token_id": None, "pad_token_id": 199999, "vision_config": None, "audio_config": None,
}  # fmt: skip
IGNORED = phi3.IGNORED | {"vision_config": None, "audio_config": None}

BASE = "model."
WEIGHTS = phi3.WEIGHTS | {
    "model.embed_tokens_extend.*": Unused("a part that reads something else than text", kept=True),
}


def spec(c: Config) -> Spec:
    return replace(phi3.spec(c), family="phi4_multimodal")
