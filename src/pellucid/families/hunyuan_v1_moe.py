"""Hunyuan with experts, A13B. Paper: arXiv 2411.02265."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, rope
from pellucid.families._moe import experts, moe_weights
from pellucid.families.hunyuan_v1_dense import DEFAULTS as DENSE
from pellucid.families.hunyuan_v1_dense import IGNORED as DENSE_IGNORED
from pellucid.families.hunyuan_v1_dense import WEIGHTS as HUNYUAN
from pellucid.spec import Block, PreNorm, QkNorm, Router, SharedExpert, Spec

CLASSES = classes("HunYuanMoEV1", "causal-lm", "sequence-classification")
DEFAULTS = DENSE | {"num_experts": 1, "moe_topk": None, "sep_token_id": 4}
ALIASES = {"num_experts_per_tok": "moe_topk", "num_local_experts": "num_experts"}
IGNORED = DENSE_IGNORED | {
    "output_router_logits": None, "use_mixed_mlp_moe": (True,), "moe_layer_num_skipped": (0,),
    "moe_drop_tokens": (False,), "norm_topk_prob": (True,), "routed_scaling_factor": (False, 1.0),
    "group_limited_greedy": (False,), "n_group": None, "topk_group": None, "capacity_factor": None,
    "moe_intermediate_size": None, "num_shared_expert": None,  # for each layer, and intermediate_size in all of them
    "moe_random_routing_dropped_token": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = HUNYUAN | moe_weights(router="gate.wg.weight", shared="shared_mlp")
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | {
        "num_experts": "expert_count", "moe_topk": "expert_used_count",
        "intermediate_size": "expert_feed_forward_length",
    },
    lambda c: DECODER | _gguf.experts(c.num_experts), more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    layers, given = c.layers("num_hidden_layers"), c.moe_topk
    chosen = given if isinstance(given, list) else [c.size("moe_topk", null=1)] * layers
    if len(chosen) != layers or not all(type(k) is int and k > 0 for k in chosen):
        what = f"moe_topk={given} for {layers} layers"
        raise ConfigError(what, where=c.where, next="give one number, or one for each layer")
    attn, shared = attention(c, qk_norm=QkNorm(norm=rms(c), after_rope=True)), SharedExpert(mlp=gated(c))
    blocks = [
        Block(
            attn=attn, order=PreNorm(norm=rms(c)),
            mlp=experts(c, Router(top_k=k, renormalise=True, float32=True), hidden="intermediate_size", shared=shared),
        )
        for k in chosen
    ]  # fmt: skip
    return decoder(c, "hunyuan_v1_moe", blocks)
