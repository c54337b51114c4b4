"""GLM-4-0414: GLM with norms on both sides of each sublayer. Model card: huggingface.co/zai-org/GLM-4-32B-0414."""

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, GATE_UP, HEAD_DIM, KEYS, RMS, SANDWICH, Gguf, partial
from pellucid.families._read import grouped_heads, read_rope
from pellucid.families.glm import DEFAULTS as GLM
from pellucid.families.glm import WEIGHTS as GLM_WEIGHTS
from pellucid.spec import Block, Sandwich, Spec

CLASSES = classes("Glm4", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = GLM

BASE = "model."
WEIGHTS = GLM_WEIGHTS | {
    "model.layers.{i}.post_self_attn_layernorm.weight": "blocks.{i}.attn_post_norm.weight",
    "model.layers.{i}.post_mlp_layernorm.weight": "blocks.{i}.mlp_post_norm.weight",
}
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM, DECODER | GATE_UP | SANDWICH,
    more=lambda said: partial(said) | {"attention_bias": said.has("blk.0.attn_q.bias")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    rope = read_rope(c, grouped_heads(c)[2], interleaved=True)
    attn = attention(c, rope=rope, biases="qkv" if c.attention_bias else "")
    block = Block(attn=attn, mlp=gated(c), order=Sandwich(norm=rms(c)))
    return decoder(c, "glm4", [block] * c.layers("num_hidden_layers"))
