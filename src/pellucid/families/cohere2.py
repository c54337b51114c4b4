"""Command A and Command R7B: three windowed layers with rotary positions, then one full layer with none.

Paper: arXiv 2504.00698.
"""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, layer_norm, windows
from pellucid.families._gguf import DECODER, KEYS, LAYER, WINDOW, Gguf
from pellucid.families._read import grouped_heads, read_rope
from pellucid.families.cohere import DEFAULTS as COHERE
from pellucid.spec import Block, LmHead, Parallel, Spec

CLASSES = classes("Cohere2", "causal-lm")
DEFAULTS = {key: value for key, value in COHERE.items() if key != "use_qk_norm"} | {
    "sliding_window": 4096, "layer_types": None, "sliding_window_pattern": 4, "rope_theta": 10000.0,
}  # fmt: skip
IGNORED = {"order_of_interleaved_layers": None, "position_embedding_type": None, "rotary_pct": (1.0,)}

BASE = "model."
WEIGHTS = LLAMA
GGUF = Gguf(KEYS | LAYER | WINDOW | {"logit_scale": "logit_scale"}, DECODER)


def spec(c: Config) -> Spec:
    norm = layer_norm(c, bias=False)
    every = c.size("sliding_window_pattern", null=4)
    attn = attention(c, rope=read_rope(c, grouped_heads(c)[2], interleaved=True))
    layers = [
        one if one.window else replace(one, rope=None)
        for one in windows(c, attn, lambda i: "sliding_attention" if (i + 1) % every else "full_attention")
    ]
    blocks = [Block(attn=one, mlp=gated(c), order=Parallel(norm=norm, shared=True)) for one in layers]
    head = LmHead(tied=c.tie_word_embeddings, logit_scale=c.number("logit_scale", float))
    return decoder(c, "cohere2", blocks, norm=norm, head=head)
