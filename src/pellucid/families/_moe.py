"""What families with experts have in common: tables of their names, and readers of the keys of routers and experts.

WEIGHTS = LLAMA | moe_weights(shared="shared_expert")
moe = experts(c, deepseek_router(c), count="n_routed_experts", shared=shared_experts(c, "n_shared_experts"))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import gated
from pellucid.families._read import activation
from pellucid.spec import Mlp, Moe, Router, SharedExpert
from pellucid.weights.table import Entry

PROJECTIONS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
NUMBERED = {"w1": "gate", "w3": "up", "w2": "down"}  # Mixtral's names for the same


def moe_weights(
    module: str = "mlp",
    *,
    matrices: Mapping[str, str] = PROJECTIONS,
    router: str = "gate.weight",
    bias: str = "gate.e_score_correction_bias",
    shared: str = "shared_experts",
) -> dict[str, Entry]:
    """The table of a mixture whose experts are stored one by one, in `module` of each layer.

    Args:
        matrices: names in the file -> ours.
        router, bias: the scoring matrix and the bias of the choice.
        shared: the MLP that sees every token.
    """
    at, slot = f"model.layers.{{i}}.{module}.", "blocks.{i}.mlp."
    table: dict[str, Entry] = {at + router: slot + "router.weight", at + bias: slot + "router.select_bias"}
    for name, matrix in matrices.items():
        table[f"{at}experts.{{e}}.{name}.{{p}}"] = f"{slot}experts.{{e}}.{matrix}.{{p}}"
        table[f"{at}{shared}.{name}.{{p}}"] = f"{slot}shared.{matrix}.{{p}}"
    return table


# ------------------------------------------------------------------------------------------------ parts


def deepseek_router(c: Config) -> Router:
    """DeepSeek V3's: sigmoid scores, a trained bias for the choice, experts of the best groups."""
    return Router(
        top_k=c.size("num_experts_per_tok"), score="sigmoid", select_bias=True, float32=True,
        groups=c.size("n_group", null=1), top_groups=c.size("topk_group", null=1),
        renormalise=bool(c.norm_topk_prob), renormalise_eps=1e-20,
        scale=c.number("routed_scaling_factor", float, null=1.0),
    )  # fmt: skip


def shared_experts(
    c: Config,
    count: str = "n_shared_experts",
    hidden: str = "moe_intermediate_size",
    *,
    bias: bool | None = None,
    **options: Any,
) -> SharedExpert | None:
    """As many experts as `count` says, side by side in one MLP; None for none.

    Args:
        bias: what `mlp_bias` says, if not given.
        options: further fields of `spec.SharedExpert`.
    """
    together = c.number(count, null=0) * c.size(hidden)
    bias = bool(c.get("mlp_bias")) if bias is None else bias
    mlp = Mlp(hidden=together, act=activation(c.hidden_act, c), gated=True, bias=bias)
    return SharedExpert(mlp=mlp, **options) if together else None


def experts(
    c: Config,
    router: Router,
    *,
    count: str = "num_experts",
    hidden: str = "moe_intermediate_size",
    expert: Mlp | None = None,
    **options: Any,
) -> Moe:
    """A mixture of gated MLPs.

    Args:
        count, hidden: the keys of how many experts there are, and how wide each is.
        expert: one of them, if it is not the gated MLP of Llama.
        options: further fields of `spec.Moe`.
    """
    number, groups = c.size(count), router.groups
    reachable = number // groups * router.top_groups
    if number % groups or router.top_groups > groups or router.top_k > reachable:
        raise ConfigError(
            f"{router.top_k} of {number} experts, from {router.top_groups} of {groups} groups",
            where=c.where,
            next=f"correct {count}, or the keys of the router",
        )
    return Moe(
        experts=number, expert=expert or gated(c, hidden=hidden), router=router,
        loss=c.number("router_aux_loss_coef", float, null=0.0), **options,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ layers


def sparse_layers(c: Config, dense: int = 0) -> list[bool]:
    """Which layers have experts: `mlp_layer_types`, or all but the first `dense`."""
    layers = c.layers("num_hidden_layers")
    types = c.get("mlp_layer_types")
    if types is None:
        return [i >= dense for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not all(kind in ("dense", "sparse") for kind in types):
        what = f"mlp_layer_types={types} for {layers} layers"
        raise ConfigError(what, where=c.where, next="give 'dense' or 'sparse' for each")
    return [kind == "sparse" for kind in types]


def qwen_sparse_layers(c: Config, usual: tuple[int, ...] = ()) -> list[bool]:
    """Qwen's: every `decoder_sparse_step`-th layer but for `mlp_only_layers`."""
    step, given = c.size("decoder_sparse_step"), c.get("mlp_only_layers")
    only = list(usual) if given is None else given
    if not isinstance(only, list):
        raise ConfigError(f"mlp_only_layers={only} is no list of layers", where=c.where, next="correct config.json")
    return [i not in only and (i + 1) % step == 0 for i in range(c.layers("num_hidden_layers"))]
