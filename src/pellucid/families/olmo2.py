"""OLMo 2: norms on what a sublayer says instead of what it reads. Paper: arXiv 2501.00656."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, KEYS, RMS, Gguf, rope
from pellucid.spec import Block, OutNorm, QkNorm, Spec
from pellucid.weights.table import Entry, over

CLASSES = classes("Olmo2", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "attention_bias": False, "attention_dropout": 0.0,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "bos_token_id": None, "eos_token_id": 50279,
    "pad_token_id": 1, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = over(LLAMA | QK_NORM, {
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.attn_norm.weight",  # Llama: before the MLP
    "model.layers.{i}.post_feedforward_layernorm.weight": "blocks.{i}.mlp_norm.weight",
})  # fmt: skip
OUT_NORMS: dict[str, Entry] = {
    "blk.{i}.post_attention_norm.weight": "blocks.{i}.attn_norm.weight",
    "blk.{i}.post_ffw_norm.weight": "blocks.{i}.mlp_norm.weight",
}
GGUF = Gguf(KEYS | RMS, DECODER | OUT_NORMS, more=rope)


def spec(c: Config) -> Spec:
    norm = rms(c, round_first=False)
    attn = attention(c, qk_norm=QkNorm(norm=norm, over="full"))
    block = Block(attn=attn, mlp=gated(c), order=OutNorm(norm=norm))
    return decoder(c, "olmo2", [block] * c.layers("num_hidden_layers"), norm=norm)
