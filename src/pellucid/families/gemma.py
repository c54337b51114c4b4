"""Gemma. Paper: arXiv 2403.08295."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, shifted
from pellucid.families._read import activation
from pellucid.spec import Block, Embed, Mlp, PreNorm, Spec

CLASSES = classes("Gemma", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    "tie_word_embeddings": True, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "attention_bias": False, "attention_dropout": 0.0, "use_bidirectional_attention": None,
}  # fmt: skip
IGNORED = {"hidden_activation": (None, "gelu_pytorch_tanh"), "use_bidirectional_attention": (None, False)}

BASE = "model."
WEIGHTS = LLAMA
GGUF = Gguf(KEYS | RMS | HEAD_DIM, shifted(DECODER))


def spec(c: Config) -> Spec:
    norm = rms(c, offset=1.0, round_first=False)
    act = "gelu_pytorch_tanh" if c.hidden_act == "gelu" else c.hidden_act  # early files say the one, mean the other
    mlp = Mlp(hidden=c.size("intermediate_size"), act=activation(act, c), gated=True)
    block = Block(attn=attention(c), mlp=mlp, order=PreNorm(norm=norm))
    embed = Embed(vocab=c.size("vocab_size"), scale=c.size("hidden_size") ** 0.5)
    return decoder(c, "gemma", [block] * c.layers("num_hidden_layers"), norm=norm, embed=embed)
