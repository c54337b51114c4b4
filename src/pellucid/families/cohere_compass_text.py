"""Cohere Compass, the text model: Command A's block, positions of three axes. Checkpoint: North-Micro-Vision."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import LLAMA, attention, decoder, gated, layer_norm, layer_types
from pellucid.families._read import grouped_heads, read_rope
from pellucid.families.cohere import DEFAULTS as COHERE
from pellucid.spec import Attention, Block, LmHead, Parallel, Spec

CLASSES = {
    None: "CohereCompassTextModel", "causal-lm": "CohereCompassForCausalLM",
    "sequence-classification": "CohereCompassTextForSequenceClassification",
}  # fmt: skip
DEFAULTS = {key: value for key, value in COHERE.items() if key not in ("use_qk_norm", "rope_theta")} | {
    "logit_scale": None, "sliding_window": 4096, "layer_types": None, "pooling": None,
}  # fmt: skip
IGNORED = {"pooling": (None, "eos"), "sliding_window_pattern": None}  # the reference has layer_types before it looks

BASE = "model."
WEIGHTS = LLAMA


def spec(c: Config) -> Spec:
    norm, ropes = layer_norm(c, bias=False), c.section("rope_parameters")
    full = attention(c, rope=None)
    kinds = {"full_attention": full, "sliding_attention": replace(full, window=c.size("sliding_window", null=None))}

    def turned(kind: str) -> Attention:
        """A type of layer turns as its own section says; null says that it does not."""
        if ropes is None or kind not in ropes:
            what = f"rope_parameters has no section for {kind} layers"
            raise ConfigError(what, where=c.where, next="give one for each type of layer; null for no rotation")
        own = ropes.section(kind)
        if own is None:
            return kinds[kind]
        dim = grouped_heads(c)[2]
        return replace(kinds[kind], rope=read_rope(c, dim, section=own, sections=(24, 20, 20), woven=True))

    layers = [turned(kind) for kind in layer_types(c, [*kinds], lambda i: "full_attention")]
    blocks = [Block(attn=one, mlp=gated(c), order=Parallel(norm=norm, shared=True)) for one in layers]
    head = LmHead(tied=c.tie_word_embeddings, logit_scale=c.number("logit_scale", float, null=None))
    return decoder(c, "cohere_compass_text", blocks, norm=norm, head=head)
