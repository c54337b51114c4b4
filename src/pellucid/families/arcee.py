"""AFM 4.5B: Llama with squared ReLUs and no gate. Model card: huggingface.co/arcee-ai/AFM-4.5B."""

from pellucid.config import Config
from pellucid.families._decoder import (
    GENERIC,
    LLAMA,
    attention,
    classes,
    decoder,
    plain_mlp,
    rms,
    span_under_transformer,
)
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, biases, paired, rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Arcee", *GENERIC)
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 2560, "intermediate_size": 18432, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "relu2",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False,
    "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA
HEADS = span_under_transformer(WEIGHTS)
GGUF = Gguf(KEYS | RMS | HEAD_DIM, paired(DECODER), more=lambda said: rope(said) | biases(said))


def spec(c: Config) -> Spec:
    block = Block(attn=attention(c), mlp=plain_mlp(c, bias=c.mlp_bias), order=PreNorm(norm=rms(c)))
    return decoder(c, "arcee", [block] * c.layers("num_hidden_layers"))
