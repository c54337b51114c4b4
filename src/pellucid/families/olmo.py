"""OLMo. Paper: arXiv 2402.00838. Its norms have nothing to train."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated
from pellucid.families._gguf import DECODER, KEYS, Gguf, paired, rope
from pellucid.spec import Block, LayerNorm, PreNorm, Spec

CLASSES = classes("Olmo", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 2048,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "attention_bias": False,
    "attention_dropout": 0.0, "clip_qkv": None, "bos_token_id": None, "eos_token_id": 50279, "pad_token_id": 1,
    "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA
GGUF = Gguf(KEYS | {"clip_qkv": "attention.clamp_kqv"}, paired(DECODER), more=rope)


def spec(c: Config) -> Spec:
    norm = LayerNorm(eps=1e-5, weight=False, bias=False)
    attn = attention(c, clip=c.number("clip_qkv", float, null=None))
    block = Block(attn=attn, mlp=gated(c), order=PreNorm(norm=norm))
    return decoder(c, "olmo", [block] * c.layers("num_hidden_layers"), norm=norm)
