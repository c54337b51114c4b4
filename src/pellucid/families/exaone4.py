"""EXAONE 4: rotary positions in windowed layers only, where there are any. Paper: arXiv 2507.11407."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import (
    GENERIC,
    QK_NORM,
    attention,
    classes,
    decoder,
    gated,
    rms,
    span_under_transformer,
    windows,
)
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, WINDOW, Gguf, rope, window_types
from pellucid.families.olmo2 import OUT_NORMS
from pellucid.families.olmo2 import WEIGHTS as OLMO2
from pellucid.spec import Block, OutNorm, QkNorm, Spec

CLASSES = classes("Exaone4", *GENERIC)
DEFAULTS = {
    "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "sliding_window": 4096, "sliding_window_pattern": 4,
    "layer_types": None, "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = OLMO2 | QK_NORM
HEADS = span_under_transformer(WEIGHTS)
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | WINDOW,
    DECODER | OUT_NORMS,
    set={"sliding_window": None},
    more=lambda said: rope(said) | window_types(said),
)


def spec(c: Config) -> Spec:
    window, pattern = c.size("sliding_window", null=None), c.sliding_window_pattern
    if window and c.layer_types is None and not (isinstance(pattern, (int, str)) and pattern):
        what = f"sliding_window={window} and sliding_window_pattern={pattern!r}, and no layer_types"
        raise ConfigError(what, where=c.where, next="say which layers have the window")

    def usual(i: int) -> str:
        if isinstance(pattern, str):
            last = i == c.layers("num_hidden_layers") - 1
            local = pattern[i % len(pattern)] == "L" and not last
        else:
            local = bool(window and (i + 1) % pattern)
        return "sliding_attention" if local else "full_attention"

    layers = windows(c, attention(c, biases="", qk_norm=QkNorm(norm=rms(c))), usual)
    if window:
        layers = [one if one.window else replace(one, rope=None) for one in layers]
    return decoder(c, "exaone4", [Block(attn=one, mlp=gated(c), order=OutNorm(norm=rms(c))) for one in layers])
