"""Mistral. Paper: arXiv 2310.06825."""

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, gated, rms
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Mistral", *GENERIC)
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 4096, "attention_dropout": 0.0,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA


def spec(c: Config) -> Spec:
    attn = attention(c, biases="", window=c.size("sliding_window", null=None))
    block = Block(attn=attn, mlp=gated(c), order=PreNorm(norm=rms(c)))
    return decoder(c, "mistral", [block] * c.layers("num_hidden_layers"))
