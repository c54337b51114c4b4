"""GLM-5: DeepSeek V3.2 where several layers may share one choice of keys. Papers: arXiv 2602.15763, 2603.12201."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf, deepseek_v32
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._latent import indexer, latent
from pellucid.families._moe import deepseek_router, experts, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("GlmMoeDsa", "causal-lm")
DEFAULTS = deepseek_v32.DEFAULTS | {
    "vocab_size": 154880, "hidden_size": 6144, "intermediate_size": 12288, "num_hidden_layers": 78,
    "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 2048, "v_head_dim": 256,
    "qk_nope_head_dim": 192, "n_group": 1, "topk_group": 1, "max_position_embeddings": 202752, "rms_norm_eps": 1e-5,
    "index_n_heads": 32, "indexer_types": None, "index_topk_pattern": None, "index_topk_freq": 1,
    "index_skip_topk_offset": 2,
}  # fmt: skip
ALIASES = deepseek_v32.ALIASES
IGNORED = deepseek_v32.IGNORED | {"indexer_rope_interleave": (True,)}

BASE = "model."
WEIGHTS = deepseek_v32.WEIGHTS


def whose(said: _gguf.Said) -> dict[str, Any]:
    """Which layers choose for themselves."""
    own = said.by_layer("attention.indexer.types")
    own = own and own[: said.get("block_count") - said.get("nextn_predict_layers", 0)]
    return {"indexer_types": own and ["full" if choice else "shared" for choice in own]}


GGUF = replace(
    deepseek_v32.GGUF, more=lambda said: _gguf.latent_sizes(said) | _gguf.extra_layers(said) | whose(said),
    says=lambda c, spec: _gguf.latent_factor(c, spec) | {
        "attention.indexer.types": [source is None for source in sources(c, len(spec.stack.blocks))],
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    order, dense, chooser = PreNorm(norm=rms(c)), gated(c), indexer(c, interleaved=True)
    attn = latent(c, interleaved=True)
    moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c))
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    layers = [replace(attn, indexer=replace(chooser, source=source)) for source in sources(c, len(sparse))]
    blocks = [Block(attn=one, mlp=moe if s else dense, order=order) for one, s in zip(layers, sparse)]
    return decoder(c, "glm_moe_dsa", blocks)


def sources(c: Config, layers: int) -> list[int | None]:
    """The layer whose choice each layer takes; None where it makes its own."""
    kinds, pattern = c.indexer_types, c.index_topk_pattern
    every, first = max(c.number("index_topk_freq"), 1), c.number("index_skip_topk_offset")
    if kinds is None and isinstance(pattern, (str, list)):  # "FSSF" or a list
        kinds = [{"F": "full", "S": "shared"}.get(str(kind), kind) for kind in pattern]
    elif kinds is None:
        kinds = pattern
    if kinds is None:
        kinds = ["shared" if max(i - first + 1, 0) % every else "full" for i in range(layers)]
    right = isinstance(kinds, list) and all(kind in ("full", "shared") for kind in kinds)
    if not right or len(kinds) != layers or kinds[0] != "full":
        what = f"indexer_types={kinds} for {layers} layers"
        raise ConfigError(what, where=c.where, next="give 'full' or 'shared' for each, 'full' for the first")
    full = [i for i, kind in enumerate(kinds) if kind == "full"]
    return [None if kind == "full" else max(j for j in full if j < i) for i, kind in enumerate(kinds)]
