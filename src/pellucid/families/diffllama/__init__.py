"""DiffLlama: Llama with differential attention. Paper: arXiv 2410.05258."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import (
    GENERIC,
    LLAMA,
    attention,
    classes,
    decoder,
    gated,
    rms,
    span_under_transformer,
)
from pellucid.spec import Block, Custom, PreNorm, Spec

CLASSES = classes("DiffLlama", *GENERIC)
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "attention_bias": False, "attention_dropout": 0.0,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = {"lambda_std_dev": None, "attention_dropout": (0.0, 0)}  # how the lambdas were drawn

BASE = "model."
WEIGHTS = LLAMA | {
    f"model.layers.{{i}}.self_attn.lambda_{x}": f"blocks.{{i}}.attn.lambda_{x}" for x in ("q1", "k1", "q2", "k2")
}
HEADS = span_under_transformer(WEIGHTS)


def spec(c: Config) -> Spec:
    inner = attention(c)
    if inner.kv_heads % 2 or inner.dropout:
        what = f"num_key_value_heads={inner.kv_heads}, attention_dropout={inner.dropout}"
        raise ConfigError(what, where=c.where, next="two halves of the key heads are subtracted, without dropout")
    options = (("attention", inner), ("eps", c.number("rms_norm_eps", float)), ("causal", True))
    attn = Custom(path="pellucid.families.diffllama.differential:DifferentialAttention", options=options)
    block = Block(attn=attn, mlp=gated(c), order=PreNorm(norm=rms(c)))
    return decoder(c, "diffllama", [block] * c.layers("num_hidden_layers"))


# Either half of the key heads mixes the values of both.
KEEPS = {
    "DifferentialAttention": lambda part: (replace(part["attention"], value_dim=2 * part["attention"].head_dim),),
}
