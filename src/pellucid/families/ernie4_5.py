"""ERNIE 4.5, the dense ones. Report: yiyan.baidu.com/blog/publication/ERNIE_Technical_Report.pdf."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, rope
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Ernie4_5", "causal-lm")
DEFAULTS = {
    "vocab_size": 103424, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18,
    "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "use_bias": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 500000.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": True,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA
GGUF = Gguf(KEYS | RMS | HEAD_DIM, DECODER, more=lambda said: rope(said) | {"use_bias": said.has("blk.0.attn_q.bias")})


def spec(c: Config) -> Spec:
    rope = read_rope(c, grouped_heads(c)[2], interleaved=True)
    attn = attention(c, rope=rope, biases="qkvo" if c.use_bias else "")
    block = Block(attn=attn, mlp=gated(c, bias=c.use_bias), order=PreNorm(norm=rms(c)))
    return decoder(c, "ernie4_5", [block] * c.layers("num_hidden_layers"))
