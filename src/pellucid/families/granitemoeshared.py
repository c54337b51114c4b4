"""Granite with experts, and an MLP beside them that sees every token. huggingface.co/ibm-granite."""

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, gated
from pellucid.families.granitemoe import ALIASES as ALIASES
from pellucid.families.granitemoe import DEFAULTS as GRANITEMOE
from pellucid.families.granitemoe import GGUF as GRANITEMOE_GGUF
from pellucid.families.granitemoe import IGNORED as IGNORED
from pellucid.families.granitemoe import WEIGHTS as WEIGHTS
from pellucid.families.granitemoe import sparse_granite
from pellucid.spec import Mlp, Spec

CLASSES = classes("GraniteMoeShared", "causal-lm")
DEFAULTS = GRANITEMOE | {"shared_intermediate_size": 0}

BASE = "model."
GGUF = GRANITEMOE_GGUF


def spec(c: Config) -> Spec:
    attn = attention(c, scale=c.number("attention_multiplier", float))
    return sparse_granite(c, "granitemoeshared", [attn] * c.layers("num_hidden_layers"), shared_mlp(c))


def shared_mlp(c: Config) -> Mlp | None:
    return gated(c, hidden="shared_intermediate_size") if c.number("shared_intermediate_size") else None
