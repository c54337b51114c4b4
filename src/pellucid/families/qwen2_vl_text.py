"""Qwen2-VL's text part: Qwen 2 with positions on three axes. Paper: arXiv 2409.12191, section 2.1."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, decoder, gated, qwen_windows, rms
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = {None: "Qwen2VLTextModel"}
DEFAULTS = {
    "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 80,
    "layer_types": None, "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 1000000.0, "bos_token_id": 151643, "eos_token_id": 151645, "pad_token_id": None,
    "tie_word_embeddings": True,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA


def spec(c: Config) -> Spec:
    rope = read_rope(c, grouped_heads(c)[2], sections=(16, 24, 24))
    layers = qwen_windows(c, attention(c, biases="qkv", rope=rope))
    mlp, order = gated(c), PreNorm(norm=rms(c))
    return decoder(c, "qwen2_vl_text", [Block(attn=one, mlp=mlp, order=order) for one in layers])
