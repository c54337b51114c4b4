"""Command R. Report: cohere.com/blog/command-r; both parts of a block read one norm (arXiv 2204.02311)."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, layer_norm
from pellucid.families._gguf import DECODER, KEYS, LAYER, Gguf
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, LmHead, Parallel, QkNorm, Spec

CLASSES = classes("Cohere", "causal-lm")
DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
    "num_attention_heads": 64, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 8192, "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "use_qk_norm": False,
    "attention_bias": False, "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 500000.0, "bos_token_id": 5, "eos_token_id": 255001, "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | QK_NORM
GGUF = Gguf(
    KEYS | LAYER | {"logit_scale": "logit_scale"}, DECODER,
    more=lambda said: {"use_qk_norm": said.has("blk.0.attn_q_norm.weight")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = layer_norm(c, bias=False)
    attn = attention(
        c,
        rope=read_rope(c, grouped_heads(c)[2], interleaved=True),
        qk_norm=QkNorm(norm=norm, over="each") if c.use_qk_norm else None,
    )
    block = Block(attn=attn, mlp=gated(c), order=Parallel(norm=norm, shared=True))
    head = LmHead(tied=c.tie_word_embeddings, logit_scale=c.number("logit_scale", float))
    blocks = [block] * c.layers("num_hidden_layers")
    return decoder(c, "cohere", blocks, norm=norm, head=head)
