"""Helium. Model card: huggingface.co/kyutai/helium-1-2b."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Helium", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 48000, "hidden_size": 2560, "intermediate_size": 7040, "num_hidden_layers": 24,
    "num_attention_heads": 20, "num_key_value_heads": 20, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-8, "attention_bias": False, "mlp_bias": False,
    "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None, "rope_theta": 100000.0,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA


def spec(c: Config) -> Spec:
    norm = rms(c, round_first=False)
    rope = read_rope(c, grouped_heads(c)[2], interleaved=True)
    attn = attention(c, rope=rope, biases="qkv" if c.attention_bias else "")
    block = Block(attn=attn, mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=norm))
    return decoder(c, "helium", [block] * c.layers("num_hidden_layers"), norm=norm)
