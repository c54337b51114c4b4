"""Qwen3-VL's text part: Qwen 3, whose pairs take turns with the axes of positions. Paper: arXiv 2511.21631."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, attention, decoder, gated, rms
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, PreNorm, QkNorm, Spec

CLASSES = {None: "Qwen3VLTextModel"}
DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 128000, "rms_norm_eps": 1e-6, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 500000.0, "attention_bias": False, "attention_dropout": 0.0, "pad_token_id": None,
    "tie_word_embeddings": True,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | QK_NORM


def spec(c: Config) -> Spec:
    rope = read_rope(c, grouped_heads(c)[2], sections=(24, 20, 20), woven=True)
    block = Block(attn=attention(c, rope=rope, qk_norm=QkNorm(norm=rms(c))), mlp=gated(c), order=PreNorm(norm=rms(c)))
    return decoder(c, "qwen3_vl_text", [block] * c.layers("num_hidden_layers"))
