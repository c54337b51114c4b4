"""Qwen 1.5 and 2. Paper: arXiv 2407.10671."""

from pellucid.config import Config
from pellucid.families._decoder import (
    GENERIC,
    LLAMA,
    attention,
    classes,
    decoder,
    gated,
    qwen_windows,
    rms,
    span_under_transformer,
)
from pellucid.families._gguf import DECODER, KEYS, RMS, Gguf, rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Qwen2", *GENERIC)
DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "use_sliding_window": False, "sliding_window": 4096,
    "max_window_layers": 28, "layer_types": None, "attention_dropout": 0.0, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA
HEADS = span_under_transformer(WEIGHTS)
GGUF = Gguf(KEYS | RMS, DECODER, more=rope)


def spec(c: Config) -> Spec:
    attn = attention(c, biases="qkv")
    blocks = [Block(attn=one, mlp=gated(c), order=PreNorm(norm=rms(c))) for one in qwen_windows(c, attn)]
    return decoder(c, "qwen2", blocks)
