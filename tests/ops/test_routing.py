"""Routing equals every kind of router that the reference library has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.ops.moe import balance_loss, route
from pellucid.spec import Router

E, D, N = 12, 32, 64
GROUPED = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7, "n_routed_experts": E, "num_experts_per_tok": 3}
NOAUX = Router(
    top_k=3, score="sigmoid", select_bias=True, groups=4, top_groups=2, renormalise=True, renormalise_eps=1e-20,
    scale=1.7, float32=True,
)  # fmt: skip


@dataclass
class Kind:
    """A router of the reference, `transformers.models.<family>:<name>`, and ours that should be the same."""

    family: str
    config: str
    name: str
    spec: Router
    values: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    def __str__(self) -> str:
        return f"{self.family} {self.label}".strip()


KINDS = [
    Kind("mixtral", "MixtralConfig", "MixtralTopKRouter", Router(top_k=3, renormalise=True), {"num_local_experts": E}),
    Kind("qwen2_moe", "Qwen2MoeConfig", "Qwen2MoeTopKRouter", Router(top_k=3), {"num_experts": E}),
    Kind(
        "qwen2_moe", "Qwen2MoeConfig", "Qwen2MoeTopKRouter", Router(top_k=3, renormalise=True),
        {"num_experts": E, "norm_topk_prob": True}, "renormalised",
    ),
    Kind(
        "deepseek_v2", "DeepseekV2Config", "DeepseekV2TopkRouter",
        Router(top_k=3, groups=4, top_groups=2, group_score="max", scale=1.7, float32=True),
        GROUPED | {"topk_method": "group_limited_greedy"},
    ),
    Kind("deepseek_v3", "DeepseekV3Config", "DeepseekV3TopkRouter", NOAUX, GROUPED | {"norm_topk_prob": True}),
    Kind(
        "deepseek_v3", "DeepseekV3Config", "DeepseekV3TopkRouter", replace(NOAUX, renormalise=False),
        GROUPED | {"norm_topk_prob": False}, "as scored",
    ),
    Kind("nemotron_h", "NemotronHConfig", "NemotronHTopkRouter", NOAUX, GROUPED | {"norm_topk_prob": True}),
    Kind(
        "gpt_oss", "GptOssConfig", "GptOssTopKRouter", Router(top_k=3, score="topk_softmax", bias=True),
        {"num_local_experts": E},
    ),
    Kind("granitemoe", "GraniteMoeConfig", "GraniteMoeTopKRouter", Router(top_k=3, score="topk_softmax"),
         {"num_local_experts": E}),
    Kind(
        "phimoe", "PhimoeConfig", "PhimoeTopKRouter", Router(top_k=2, score="sparsemixer", jitter=0.1),
        {"num_local_experts": E, "router_jitter_noise": 0.1, "num_experts_per_tok": 2},
    ),
    Kind("ernie4_5_moe", "Ernie4_5_MoeConfig", "Ernie4_5_MoeTopKRouter",
         Router(top_k=3, select_bias=True, renormalise=True, float32=True), {"moe_num_experts": E, "moe_k": 3}),
    Kind("flex_olmo", "FlexOlmoConfig", "FlexOlmoTopKRouter", Router(top_k=3), {"num_experts": E}),
    Kind(
        "laguna", "LagunaConfig", "LagunaTopKRouter",
        Router(top_k=3, score="sigmoid", select_bias=True, renormalise=True, cap=0.8),
        {"num_experts": E, "moe_router_logit_softcapping": 0.8},
    ),
    Kind(
        "kolibri1", "Kolibri1Config", "Kolibri1TopKRouter",
        Router(top_k=3, score="topk_sigmoid", select_bias=True, renormalise=True, float32=True),
        {"num_experts": E, "norm_topk_prob": True},
    ),
    Kind(
        "cohere2_moe", "Cohere2MoeConfig", "Cohere2MoeTopKRouter",
        Router(top_k=3, score="topk_sigmoid", renormalise=True),
        {"num_experts": E, "expert_selection_fn": "sigmoid", "norm_topk_prob": True}, "sigmoid",
    ),
]  # fmt: skip


def theirs(kind: Kind, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The reference's logits, weights, experts, and its bias for the choice."""
    module = import_module(f"transformers.models.{kind.family}.modeling_{kind.family}")
    values = {"hidden_size": D, "num_experts_per_tok": kind.spec.top_k} | kind.values
    config = getattr(import_module("transformers"), kind.config)(**values)
    router = getattr(module, kind.name)(config).eval()
    chance = torch.Generator().manual_seed(3)
    bias = None
    for name, tensor in [*router.named_parameters(), *router.named_buffers()]:
        tensor.data = torch.randn(tensor.shape, generator=chance) * (0.3 if "bias" in name else 0.2)
        bias = tensor.data.flatten() if "correction_bias" in name else bias
    with torch.no_grad():
        return *router(x), bias


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_choices_and_weights_are_the_references(kind: Kind) -> None:
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    logits, their_weights, their_experts, bias = theirs(kind, x)
    experts, weights = route(logits, kind.spec, select_bias_E=bias)
    mine, his = (
        torch.zeros(N, E).scatter(1, chosen, share)
        for chosen, share in ((experts, weights), (their_experts, their_weights))
    )
    assert torch.equal(experts.sort().values, their_experts.sort().values)
    assert torch.allclose(mine, his, atol=1e-6)


def test_sqrtsoftplus() -> None:
    logits = torch.randn(N, E)
    experts, weights = route(logits, Router(top_k=2, score="sqrtsoftplus"))
    assert torch.equal(weights, F.softplus(logits).sqrt().topk(2).values)
    assert torch.equal(experts, logits.topk(2).indices)


def test_sparsemixer_draws_in_training() -> None:
    """Only experts within the threshold, the best most often; the gradient is that of the whole weight."""
    logits = torch.tensor([[2.0, 1.9, -1.0, 0.1]]).expand(4000, 4).clone().requires_grad_()
    experts, weights = route(logits, Router(top_k=2, score="sparsemixer", jitter=0.1), training=True)
    first = experts[:, 0].bincount(minlength=4) / len(logits)
    share = torch.tensor([2.0, 1.9]).softmax(0)
    assert torch.allclose(first[:2], share, atol=0.04)
    assert first[2:].sum() == 0
    second = weights[experts[:, 0] == 1][:, 0]
    assert set((second / share[1] * 3).round().int().tolist()) == {1, 3}
    weights[:, 0].sum().backward()
    assert logits.grad is not None
    assert logits.grad[experts[:, 0] == 1][:, 1].min() > 0.2


def test_the_balance_loss_is_the_references() -> None:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = [torch.randn(N, E) for _ in range(3)]
    assert torch.allclose(balance_loss(logits, E, 3), load_balancing_loss_func(tuple(logits), E, 3))


def test_the_balance_loss_is_least_where_all_experts_are_used_alike() -> None:
    even = torch.eye(E).repeat(5, 1) * 50
    lopsided = torch.eye(E)[:1].expand(5 * E, E) * 50
    assert torch.allclose(balance_loss([even], E, 1), torch.tensor(1.0))
    assert torch.allclose(balance_loss([lopsided], E, 1), torch.tensor(float(E)))


def test_float64_stays() -> None:
    _, weights = route(torch.randn(N, E, dtype=torch.float64), NOAUX, select_bias_E=torch.zeros(E))
    assert weights.dtype == torch.float64
