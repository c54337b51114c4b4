"""Jais 2. Model card: huggingface.co/inceptionai/Jais-2-8B-Chat."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, layer_norm, plain_mlp
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, LAYER, Gguf, biases, rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Jais2", "causal-lm")
DEFAULTS = {
    "vocab_size": 150272, "hidden_size": 3328, "intermediate_size": 26624, "num_hidden_layers": 32,
    "num_attention_heads": 26, "num_key_value_heads": None, "head_dim": None, "hidden_act": "relu2",
    "max_position_embeddings": 8192, "layer_norm_eps": 1e-5, "attention_bias": True, "mlp_bias": True,
    "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "bos_token_id": 0, "eos_token_id": 150024, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA
GGUF = Gguf(KEYS | LAYER | HEAD_DIM, DECODER, more=lambda said: rope(said) | biases(said))


def spec(c: Config) -> Spec:
    norm = layer_norm(c)
    block = Block(attn=attention(c), mlp=plain_mlp(c, bias=c.mlp_bias), order=PreNorm(norm=norm))
    return decoder(c, "jais2", [block] * c.layers("num_hidden_layers"), norm=norm)
