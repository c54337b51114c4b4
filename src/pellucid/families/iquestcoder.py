"""IQuest Coder: Llama's architecture with defaults of its own. Model card: huggingface.co/IQuestLab."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import llama
from pellucid.families._decoder import classes
from pellucid.spec import Spec

CLASSES = classes("Llama", "causal-lm")
DEFAULTS = llama.DEFAULTS | {
    "vocab_size": 76800, "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 80,
    "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
IGNORED = {"clip_qkv": (None,), "use_sliding_window": (False,), "max_window_layers": None, "sliding_window": None}

BASE = "model."
WEIGHTS = llama.WEIGHTS


def spec(c: Config) -> Spec:
    return replace(llama.spec(c), family="iquestcoder")
