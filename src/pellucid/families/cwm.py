"""Code World Model: Llama with windows in three of four layers. Paper: arXiv 2510.02387."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms, windows
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Cwm", "causal-lm")
DEFAULTS = {
    "vocab_size": 128256, "hidden_size": 6144, "intermediate_size": 21504, "num_hidden_layers": 64,
    "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "sliding_window": 8192, "layer_types": None,
    "mlp_bias": False, "attention_dropout": 0.0,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 1000000.0, "factor": 16.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    },
    "rope_scaling": None, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
    "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = {"pretraining_tp": None}

BASE = "model."
WEIGHTS = LLAMA


def spec(c: Config) -> Spec:
    every = windows(c, attention(c, biases=""), lambda i: "sliding_attention" if i % 4 else "full_attention")
    blocks = [Block(attn=one, mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=rms(c))) for one in every]
    return decoder(c, "cwm", blocks)
