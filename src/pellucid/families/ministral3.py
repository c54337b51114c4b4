"""Ministral 3: YaRN, and queries that grow with the logarithm of the position. Paper: arXiv 2601.08584."""

from typing import Any

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, Said, paired, rope
from pellucid.families._read import grouped_heads, read_rope, rotary_section
from pellucid.spec import Block, PreNorm, Spec, Temperature

CLASSES = classes("Ministral3", *GENERIC)
DEFAULTS = {
    "vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 262144, "rms_norm_eps": 1e-5, "pad_token_id": 11, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False, "sliding_window": None, "attention_dropout": 0.0,
    "rope_parameters": {
        "type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 16384,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
    },
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA


def growing(said: Said) -> dict[str, Any]:
    """YaRN, and queries that grow with the logarithm of the position."""
    section, beta = rope(said).get("rope_scaling", {}), said.get("attention.temperature_scale")
    every = said.get("rope.scaling.yarn_log_multiplier")
    section |= {"mscale": every, "mscale_all_dim": every} if every else {}
    return {"rope_parameters": section | {"rope_theta": said.get("rope.freq_base"), "llama_4_scaling_beta": beta}}


def grown(c: Config, spec: Spec) -> dict[str, Any]:
    section = c.get("rope_parameters") or {}
    return {
        "rope.scaling.yarn_log_multiplier": section.get("mscale_all_dim"),
        "attention.temperature_scale": section.get("llama_4_scaling_beta"),
    }


GGUF = Gguf(KEYS | RMS | HEAD_DIM, paired(DECODER), set={"rope_theta": None}, more=growing, says=grown)


def spec(c: Config) -> Spec:
    s = rotary_section(c) or c
    temperature = Temperature(
        scale=s.number("llama_4_scaling_beta", float), floor=s.size("original_max_position_embeddings")
    )
    rope = read_rope(c, grouped_heads(c)[2], also=("llama_4_scaling_beta", "max_position_embeddings"))
    attn = attention(c, rope=rope, biases="", temperature=temperature, window=c.size("sliding_window", null=None))
    block = Block(attn=attn, mlp=gated(c), order=PreNorm(norm=rms(c)))
    return decoder(c, "ministral3", [block] * c.layers("num_hidden_layers"))
