"""Qwen 3. Paper: arXiv 2505.09388."""

from pellucid.config import Config
from pellucid.families._decoder import (
    GENERIC,
    LLAMA,
    QK_NORM,
    attention,
    classes,
    decoder,
    gated,
    qwen_windows,
    rms,
    span_under_transformer,
)
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, rope
from pellucid.families.qwen2 import DEFAULTS as QWEN2
from pellucid.spec import Block, PreNorm, QkNorm, Spec

CLASSES = classes("Qwen3", *GENERIC)
DEFAULTS = QWEN2 | {"head_dim": 128, "attention_bias": False}

BASE = "model."
WEIGHTS = LLAMA | QK_NORM
HEADS = span_under_transformer(WEIGHTS)
GGUF = Gguf(KEYS | RMS | HEAD_DIM, DECODER, more=rope)


def spec(c: Config) -> Spec:
    attn = attention(c, qk_norm=QkNorm(norm=rms(c)))
    blocks = [Block(attn=one, mlp=gated(c), order=PreNorm(norm=rms(c))) for one in qwen_windows(c, attn)]
    return decoder(c, "qwen3", blocks)
