"""GLM-4-9B. Paper: arXiv 2406.12793."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, GATE_UP, KEYS, QKV, RMS, Gguf, partial
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, PreNorm, Spec
from pellucid.weights.table import Fused, over

CLASSES = classes("Glm", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1.5625e-7, "attention_bias": True, "attention_dropout": 0.0,
    "partial_rotary_factor": 0.5, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "bos_token_id": None, "eos_token_id": [151329, 151336, 151338], "pad_token_id": 151329,
    "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = over(LLAMA, {
    "model.layers.{i}.mlp.gate_up_proj.weight": Fused("blocks.{i}.mlp.{}.weight", ("gate", "up")),
})  # fmt: skip


GGUF = Gguf(
    KEYS | RMS, DECODER | QKV | GATE_UP,
    more=lambda said: partial(said) | {
        "attention_bias": said.has("blk.0.attn_q.bias") or said.has("blk.0.attn_qkv.bias"),
        "head_dim": said.get("embedding_length") // said.get("attention.head_count"),
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    rope = read_rope(c, grouped_heads(c)[2], interleaved=True)
    attn = attention(c, rope=rope, biases="qkv" if c.attention_bias else "")
    block = Block(attn=attn, mlp=gated(c), order=PreNorm(norm=rms(c)))
    return decoder(c, "glm", [block] * c.layers("num_hidden_layers"))
