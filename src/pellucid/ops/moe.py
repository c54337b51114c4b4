"""Routing: which experts a token goes to, and with what weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.ops.elementwise import upcast
from pellucid.spec import Router

CHOICE_FIRST = ("topk_softmax", "topk_sigmoid")  # scores that only the chosen get


def route(
    logits_NE: Tensor, router: Router, *, select_bias_E: Tensor | None = None, training: bool = False
) -> tuple[Tensor, Tensor]:
    """The experts of each token and their weights, both [N, A]; computed in float32 at least.

    Args:
        logits_NE: the router's raw scores.
        select_bias_E: added to the scores for the choice only. Source: arXiv 2408.15664.
        training: sparsemixer draws its experts.

    Source: arXiv 1701.06538, section 2.1; 2101.03961, section 2.1; groups: 2405.04434, section 2.2.2.
    """
    logits_NE = upcast(logits_NE)
    if router.score == "sparsemixer":
        return sparsemixer(logits_NE, router.top_k, jitter=router.jitter, training=training)
    scores_NE = logits_NE if router.score in CHOICE_FIRST else _score(logits_NE, router.score)
    wanted_NE = scores_NE if select_bias_E is None else scores_NE + select_bias_E
    if router.top_groups < router.groups:
        wanted_NE = best_groups(wanted_NE, router)
    experts_NA = wanted_NE.topk(router.top_k, dim=-1).indices
    weights_NA = scores_NE.gather(-1, experts_NA)
    if router.score in CHOICE_FIRST:
        weights_NA = _score(weights_NA, router.score.removeprefix("topk_"))
    if router.renormalise:
        weights_NA = weights_NA / (weights_NA.sum(-1, keepdim=True) + router.renormalise_eps)
    return experts_NA, weights_NA if router.scale == 1.0 else weights_NA * router.scale


def _score(logits: Tensor, kind: str) -> Tensor:
    match kind:
        case "softmax":
            return logits.softmax(-1)
        case "sigmoid":
            return sigmoid(logits)
        case _:
            return F.softplus(logits).sqrt()


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), the same bits in any company: torch's own rounds a tensor's last values in another way."""
    return x.sigmoid() if torch.is_grad_enabled() else 1 / (1 + torch.exp(-x))


def by_expert(experts_NA: Tensor) -> tuple[list[int], list[int], Tensor]:
    """The experts that anybody chose, how many tokens each has, and the choices in that order.

    Choice n A + a is the a-th of token n.
    """
    ordered, choice = experts_NA.flatten().sort(stable=True)
    chosen, counts = ordered.unique_consecutive(return_counts=True)
    return chosen.tolist(), counts.tolist(), choice


def best_groups(wanted_NE: Tensor, router: Router) -> Tensor:
    """The same scores, `router.outside` for experts outside the token's best groups."""
    grouped = wanted_NE.unflatten(-1, (router.groups, -1))
    best = 2 if router.group_score == "top2" else 1
    group_NG = grouped.topk(best, dim=-1).values.sum(-1)
    chosen = group_NG.topk(router.top_groups, dim=-1).indices
    out_NG = torch.ones_like(group_NG, dtype=torch.bool).scatter(-1, chosen, False)
    return grouped.masked_fill(out_NG[..., None], router.outside).flatten(-2)


def sparsemixer(logits_NE: Tensor, top_k: int, *, jitter: float, training: bool) -> tuple[Tensor, Tensor]:
    """One expert after the other, each weighed among those that are nearly as good, the earlier ones left out.

    In training an expert is drawn from its softmax. A drawn one that is not the best counts in full one time in four
    and for a third otherwise, with the gradient of the whole: Heun's third-order estimate.

    Args:
        jitter: experts further than 2 * jitter from the best, relative to their size, are not compared.

    Source: arXiv 2409.12136, section 2.2; 2310.00811.
    """
    left_NE, experts, weights = logits_NE, [], []
    for _ in range(top_k):
        best_N1 = left_NE.amax(-1, keepdim=True).detach()
        far_NE = (best_N1 - logits_NE) / torch.maximum(logits_NE.abs(), best_N1) > 2 * jitter
        near_NE = left_NE.masked_fill(far_NE, float("-inf"))
        share_NE = near_NE.softmax(-1)
        noise = -torch.empty_like(near_NE).exponential_().log() if training else 0.0
        expert_N1 = (near_NE + noise).argmax(-1, keepdim=True)
        weight_N1 = share_NE.gather(-1, expert_N1)
        if training:
            full_N1 = (expert_N1 == share_NE.argmax(-1, keepdim=True)) | (torch.rand_like(weight_N1) > 0.75)
            weight_N1 = weight_N1 - torch.where(full_N1, 0.0, weight_N1.detach() * 2 / 3)
        experts.append(expert_N1)
        weights.append(weight_N1)
        left_NE = left_NE.scatter(-1, expert_N1, float("-inf"))
    return torch.cat(experts, -1), torch.cat(weights, -1)


def balance_loss(logits: list[Tensor], experts: int, top_k: int) -> Tensor:
    """How unevenly the routers of all layers use their experts: `top_k` at best, `experts` at worst.

    Args:
        logits: for each layer the raw scores, [N, E].

    Source: arXiv 2101.03961, equations 4 to 6, with `top_k` experts for a token instead of one.
    """
    scores_NE = upcast(torch.cat(logits)).softmax(-1)
    chosen_NA = scores_NE.topk(top_k, dim=-1).indices
    used_E = chosen_NA.flatten().bincount(minlength=experts) / len(scores_NE)
    return experts * (used_E * scores_NE.mean(0)).sum()
