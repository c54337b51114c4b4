"""LFM2 with experts in all but the first layers. Paper: arXiv 2511.23404."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import attention, classes, decoder, layer_types
from pellucid.families._gguf import EXPERTS, Gguf, mixed, rope
from pellucid.families._moe import NUMBERED, experts, moe_weights
from pellucid.families.lfm2 import ALIASES as ALIASES
from pellucid.families.lfm2 import GGUF as LFM2_GGUF
from pellucid.families.lfm2 import LFM2_KEYS
from pellucid.families.lfm2 import WEIGHTS as LFM2
from pellucid.spec import Block, Mixer, Mlp, PreNorm, QkNorm, RmsNorm, Router, ShortConv, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Lfm2Moe", "causal-lm")
DEFAULTS = {
    "vocab_size": 65536, "hidden_size": 2048, "intermediate_size": 7168, "moe_intermediate_size": 1792,
    "num_hidden_layers": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True,
    "rope_parameters": None, "rope_theta": 1000000.0, "max_position_embeddings": 128000, "norm_eps": 1e-5,
    "num_attention_heads": 32, "num_key_value_heads": 8, "conv_bias": False, "conv_L_cache": 3,
    "num_dense_layers": 2, "num_experts_per_tok": 4, "num_experts": 32, "use_expert_bias": True,
    "routed_scaling_factor": 1.0, "norm_topk_prob": True, "layer_types": None,
}  # fmt: skip
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS: dict[str, Entry] = LFM2 | moe_weights("feed_forward", matrices=NUMBERED, bias="expert_bias")
GGUF = Gguf(
    LFM2_KEYS | EXPERTS | {
        "moe_intermediate_size": "expert_feed_forward_length", "num_dense_layers": "leading_dense_block_count",
    },
    lambda c: LFM2_GGUF.entries(c) | _gguf.experts(c.num_experts),
    more=lambda said: rope(said) | mixed(said, "conv") | {"conv_bias": said.has("blk.0.shortconv.conv.bias")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense = RmsNorm(eps=c.number("norm_eps", float)), c.number("num_dense_layers")
    kinds: dict[str, Mixer] = {
        "full_attention": attention(c, qk_norm=QkNorm(norm=norm)),
        "conv": ShortConv(kernel=c.size("conv_L_cache"), bias=c.conv_bias),
    }
    router = Router(
        top_k=c.size("num_experts_per_tok"), score="sigmoid", select_bias=c.use_expert_bias,
        renormalise=c.norm_topk_prob, renormalise_eps=1e-6, scale=c.number("routed_scaling_factor", float),
    )  # fmt: skip
    mlp = Mlp(hidden=c.size("intermediate_size"), act="silu", gated=True)
    expert = Mlp(hidden=c.size("moe_intermediate_size"), act="silu", gated=True)
    moe = experts(c, router, expert=expert)
    blocks = [
        Block(attn=kinds[kind], mlp=mlp if i < dense else moe, order=PreNorm(norm=norm))
        for i, kind in enumerate(layer_types(c, [*kinds], lambda i: "full_attention"))
    ]
    return decoder(c, "lfm2_moe", blocks, norm=norm)
