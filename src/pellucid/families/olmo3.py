"""OLMo 3: OLMo 2 with windows in three of four layers. Paper: arXiv 2512.13961."""

from typing import Any

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import KEYS, RMS, WINDOW, Gguf, Said, rope, window_types
from pellucid.families._read import grouped_heads, read_ropes
from pellucid.families.olmo2 import DEFAULTS as OLMO2
from pellucid.families.olmo2 import GGUF as OLMO2_GGUF
from pellucid.families.olmo2 import WEIGHTS as OLMO2_WEIGHTS
from pellucid.spec import Block, OutNorm, QkNorm, Spec

CLASSES = classes("Olmo3", "causal-lm", "sequence-classification")
DEFAULTS = OLMO2 | {"sliding_window": 4096, "layer_types": None, "rope_theta": 500000.0}

BASE = "model."
WEIGHTS = OLMO2_WEIGHTS


def ropes(said: Said) -> dict[str, Any]:
    """Layers with a window turn without scaling."""
    theta, plain = said.get("rope.freq_base", 10000.0), {"rope_type": "default"}
    full = rope(said).get("rope_scaling", plain)
    kinds = {"full_attention": full, "sliding_attention": plain}
    return {"rope_parameters": {kind: section | {"rope_theta": theta} for kind, section in kinds.items()}}


GGUF = Gguf(KEYS | RMS | WINDOW, OLMO2_GGUF.weights, more=lambda said: ropes(said) | window_types(said))


def spec(c: Config) -> Spec:
    norm = rms(c, round_first=False)
    ropes = read_ropes(c, grouped_heads(c)[2])
    attn = attention(c, rope=None, qk_norm=QkNorm(norm=norm, over="full"))
    every = windows(c, attn, lambda i: "sliding_attention" if (i + 1) % 4 else "full_attention", ropes=ropes)
    blocks = [Block(attn=one, mlp=gated(c), order=OutNorm(norm=norm)) for one in every]
    return decoder(c, "olmo3", blocks, norm=norm)
