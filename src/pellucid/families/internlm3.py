"""InternLM 3: Llama's architecture with defaults of its own. Paper: arXiv 2403.17297."""

from pellucid.config import Config
from pellucid.families import llama
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Llama", "causal-lm")
DEFAULTS = llama.DEFAULTS | {
    "vocab_size": 128512, "intermediate_size": 10240, "num_hidden_layers": 48, "num_key_value_heads": 2,
    "head_dim": 128, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "pad_token_id": 2,
}  # fmt: skip
ALIASES = {"qkv_bias": "attention_bias", "bias": "mlp_bias"}

BASE = "model."
WEIGHTS = LLAMA


def spec(c: Config) -> Spec:
    biases = ("qkv" if c.attention_bias else "") + ("o" if c.mlp_bias else "")
    block = Block(attn=attention(c, biases=biases), mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=rms(c)))
    return decoder(c, "internlm3", [block] * c.layers("num_hidden_layers"))
