"""DeepSeek V3.2: V3 whose queries see the keys that an indexer chooses. Paper: arXiv 2512.02556."""

from pellucid.config import Config
from pellucid.families import _gguf, deepseek_v3
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._latent import INDEXER, MLA, further_layers, indexer, latent
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("DeepseekV32", "causal-lm")
DEFAULTS = deepseek_v3.DEFAULTS | {
    "max_position_embeddings": 163840, "mlp_layer_types": None, "layer_types": None, "mlp_bias": False,
    "index_topk": 2048, "index_head_dim": 128, "index_n_heads": 64,
}  # fmt: skip
ALIASES = deepseek_v3.ALIASES | {"num_experts": "n_routed_experts"}
IGNORED = deepseek_v3.IGNORED | {"layer_types": None, "mlp_bias": (False,), "rope_interleave": None}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    return further_layers(c, MLA | INDEXER | moe_weights())


GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS | _gguf.ROUTED_EXPERTS | _gguf.INDEXER_KEYS,
    lambda c: _gguf.further_layers(c, _gguf.latent(c) | _gguf.INDEXER | _gguf.experts(c.n_routed_experts)),
    more=lambda said: _gguf.latent_sizes(said) | _gguf.extra_layers(said), says=_gguf.latent_factor,
)  # fmt: skip


def spec(c: Config) -> Spec:
    order, dense = PreNorm(norm=rms(c)), gated(c)
    attn = latent(c, interleaved=True, indexer=indexer(c, interleaved=False))
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c))
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    return decoder(c, "deepseek_v32", [Block(attn=attn, mlp=moe if s else dense, order=order) for s in sparse])
