"""Nemotron 3 and 4, Minitron. Papers: arXiv 2402.16819, 2407.14679."""

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, layer_norm, plain_mlp, under
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, Gguf, biases, partial, shifted
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Nemotron", *GENERIC)
DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 6144, "intermediate_size": 24576, "num_hidden_layers": 32,
    "num_attention_heads": 48, "head_dim": None, "num_key_value_heads": None, "hidden_act": "relu2",
    "max_position_embeddings": 4096, "norm_eps": 1e-5, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "attention_bias": False, "attention_dropout": 0.0,
    "mlp_bias": False, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA
HEADS = {"question-answering": under("transformer.", LLAMA)}  # the only task with that prefix
GGUF = Gguf(
    KEYS | HEAD_DIM | {"norm_eps": "attention.layer_norm_epsilon"}, shifted(DECODER),
    more=lambda said: partial(said) | biases(said),
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = layer_norm(c, "norm_eps", offset=1.0)
    block = Block(attn=attention(c), mlp=plain_mlp(c, bias=c.mlp_bias), order=PreNorm(norm=norm))
    return decoder(c, "nemotron", [block] * c.layers("num_hidden_layers"), norm=norm)
