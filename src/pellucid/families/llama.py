"""Llama 1 to 3, and the many that share its files. Papers: arXiv 2302.13971, 2307.09288, 2407.21783."""

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, gated, rms, span_under_transformer
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, biases, paired, rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Llama", *GENERIC)
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "num_key_value_heads": None, "head_dim": None, "attention_bias": False, "mlp_bias": False,
    "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = {"pretraining_tp": None}  # how a matrix was once split for training; the product is the same

BASE = "model."
WEIGHTS = LLAMA
HEADS = span_under_transformer(WEIGHTS)
GGUF = Gguf(KEYS | RMS | HEAD_DIM, paired(DECODER), more=lambda said: rope(said) | biases(said))


def spec(c: Config) -> Spec:
    block = Block(attn=attention(c), mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=rms(c)))
    return decoder(c, "llama", [block] * c.layers("num_hidden_layers"))
