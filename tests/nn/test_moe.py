"""A mixture of experts equals the reference's blocks, row by row, whatever else is in the batch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.ffn import feed_forward
from pellucid.nn.mlp import Mlp
from pellucid.nn.moe import Moe
from pellucid.spec import ClampedGlu, LayerNorm, RmsNorm, Router, SharedExpert
from pellucid.spec import Mlp as MlpSpec
from pellucid.spec import Moe as Spec

D, F, E, A = 20, 32, 6, 2  # torch's silu is steady for multiples of 32
EXPERT = MlpSpec(hidden=F, act="silu", gated=True)
SHARED = MlpSpec(hidden=64, act="silu", gated=True)
KINDS = {
    "softmax": Spec(experts=E, expert=EXPERT, router=Router(top_k=A, renormalise=True)),
    "gated shared expert": Spec(
        experts=E, expert=EXPERT, router=Router(top_k=A), shared=SharedExpert(mlp=SHARED, gate=True)
    ),
    "averaged, normed": Spec(
        experts=E, expert=EXPERT, router=Router(top_k=A), shared=SharedExpert(mlp=SHARED, average=True),
        norm=RmsNorm(eps=0.01),
    ),
    "weighed before": Spec(experts=E, expert=EXPERT, router=Router(top_k=1, score="topk_sigmoid"), scale_input=True),
    "clamped, biased, chosen with a bias": Spec(
        experts=E, expert=MlpSpec(hidden=F, act=ClampedGlu(alpha=1.7, limit=1.0), gated=True, bias=True),
        router=Router(top_k=3, score="sigmoid", select_bias=True, float32=True, bias=True),
    ),
    "latent": Spec(
        experts=E, expert=MlpSpec(hidden=F, act="relu2", gated=False), router=Router(top_k=A), latent=7
    ),
}  # fmt: skip


def loud(module: nn.Module) -> Any:
    chance = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=chance) / parameter.shape[-1] ** 0.5)
    return module.eval()


def batch(n: int) -> Batch:
    return Batch([n], torch.arange(n), [n])


def by_hand(moe: Moe, x: Tensor) -> Tensor:
    """One token and one expert after the other."""
    from pellucid.ops.moe import route

    s = moe.spec
    logits = nn.functional.linear(x, moe.router.weight, moe.router.bias)
    experts, weights = route(logits, s.router, select_bias_E=moe.router.select_bias if s.router.select_bias else None)
    rows = []
    for n, token in enumerate(x):
        row = torch.zeros_like(token)
        inner = token if moe.enter is None else moe.enter.weight @ token
        said: Any = 0.0
        for e, weight in zip(experts[n].tolist(), weights[n]):
            expert = moe.experts[e]
            said = said + (expert((inner * weight)[None])[0] if s.scale_input else expert(inner[None])[0] * weight)
        row = said if moe.leave is None else moe.leave.weight @ said
        if moe.shared is not None:
            shared = moe.shared(token[None])[0]
            row = row + (shared if moe.shared_gate is None else shared * (moe.shared_gate.weight @ token).sigmoid())
            row = row / 2 if s.shared is not None and s.shared.average else row
        rows.append(row if moe.norm is None else moe.norm(row))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_goes_through_its_experts(kind: str) -> None:
    moe = loud(feed_forward(D, KINDS[kind])).double()
    x = torch.randn(17, D, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(moe(x, batch(17)), by_hand(moe, x), atol=1e-12)
        assert torch.allclose(moe(x[:1], batch(1)), by_hand(moe, x[:1]), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_company(kind: str, dtype: torch.dtype) -> None:
    moe = loud(feed_forward(D, KINDS[kind])).to(dtype)
    x = torch.randn(130, D).to(dtype)
    with torch.no_grad():
        whole = moe(x, batch(130))
        for n in (1, 2, 3, 5, 8, 33, 129):
            assert torch.equal(moe(x[:n], batch(n)), whole[:n]), n
            assert torch.equal(moe(x[-n:], batch(n)), whole[-n:]), n


def test_only_chosen_experts_run() -> None:
    moe = loud(Moe(D, KINDS["softmax"]))
    ran = []
    for i, expert in enumerate(moe.experts):
        expert.register_forward_hook(lambda module, args, out, i=i: ran.append((i, len(args[0]))))
    x = torch.randn(3, D)
    found: dict[str, Tensor] = {}
    moe.listen("experts", lambda chosen: found.update(chosen=chosen))
    with torch.no_grad():
        moe(x, batch(3))
    assert ran == [(i, int((found["chosen"] == i).sum())) for i in found["chosen"].unique().tolist()]


@pytest.mark.parametrize(
    ("family", "block", "config", "kind"),
    [
        ("mixtral", "MixtralSparseMoeBlock", {"num_local_experts": E, "intermediate_size": F}, "softmax"),
        ("qwen2_moe", "Qwen2MoeSparseMoeBlock",
         {"num_experts": E, "moe_intermediate_size": F, "shared_expert_intermediate_size": 64}, "gated shared expert"),
    ],
)  # fmt: skip
def test_gradients_are_the_references(family: str, block: str, config: dict[str, Any], kind: str) -> None:
    from transformers import AutoConfig

    values = AutoConfig.for_model(family, hidden_size=D, num_experts_per_tok=A, **config)
    values._experts_implementation = "eager"
    module = import_module(f"transformers.models.{family}.modeling_{family}")
    their = loud(getattr(module, block)(values))
    moe = Moe(D, KINDS[kind]).eval()
    with torch.no_grad():
        moe.router.weight.copy_(their.gate.weight)
        for e, expert in enumerate(moe.experts):
            gate, up = their.experts.gate_up_proj[e].chunk(2)
            for mine, his in zip((expert.gate, expert.up, expert.down), (gate, up, their.experts.down_proj[e])):
                mine.weight.copy_(his)
        if moe.shared is not None:
            for name in ("gate", "up", "down"):
                getattr(moe.shared, name).weight.copy_(getattr(their.shared_expert, f"{name}_proj").weight)
            moe.shared_gate.weight.copy_(their.shared_expert_gate.weight)
    x = torch.randn(1, 11, D)
    mine, his = x[0].clone().requires_grad_(), x.clone().requires_grad_()
    ours, theirs = moe(mine, batch(11)), their(his)[0]
    assert torch.allclose(ours, theirs, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    assert torch.allclose(mine.grad, his.grad[0], atol=1e-5)
    assert torch.allclose(moe.router.weight.grad, their.gate.weight.grad, atol=1e-5)
    down = torch.stack([torch.zeros(D, F) if e.down.weight.grad is None else e.down.weight.grad for e in moe.experts])
    assert torch.allclose(down, their.experts.down_proj.grad, atol=1e-5)


def test_taps_replace() -> None:
    """Whoever sets a router's scores to another value moves the tokens to other experts."""
    moe = loud(Moe(D, KINDS["softmax"]))
    chosen: list[Tensor] = []
    moe.listen("scores", lambda scores: torch.full_like(scores, -9.0).index_fill(1, torch.tensor([1, 4]), 0.0))
    moe.listen("experts", chosen.append)
    with torch.no_grad():
        moe(torch.randn(5, D), batch(5))
    assert set(chosen[0].flatten().tolist()) == {1, 4}


def test_router_scores_are_collected_for_the_loss() -> None:
    moe, given = loud(Moe(D, KINDS["softmax"])), batch(5)
    given.router = []
    moe(torch.randn(5, D), given)
    assert [scores.shape for scores in given.router] == [(5, E)]


def test_the_bias_of_the_choice_is_not_trained() -> None:
    moe = loud(Moe(D, KINDS["clamped, biased, chosen with a bias"]))
    moe(torch.randn(5, D), batch(5)).sum().backward()
    assert not moe.router.select_bias.requires_grad
    assert moe.router.weight.grad is not None


def test_jitter_only_in_training() -> None:
    from dataclasses import replace

    moe = loud(Moe(D, replace(KINDS["softmax"], jitter=0.3)))
    x = torch.randn(5, D)
    with torch.no_grad():
        assert torch.equal(moe(x, batch(5)), moe(x, batch(5)))
        moe.train()
        assert not torch.equal(moe(x, batch(5)), moe(x, batch(5)))


def test_an_mlp_with_everything() -> None:
    spec = MlpSpec(
        hidden=F, act="gelu", gated=True, bias=True, down_bias=False, norm=LayerNorm(eps=0.01), gate_scale=0.5,
        out_scale=3.0,
    )  # fmt: skip
    mlp = loud(Mlp(D, spec))
    x = torch.randn(4, D)
    hidden = nn.functional.gelu(mlp.gate(x) * 0.5) * mlp.up(x)
    assert mlp.down.bias is None
    assert torch.allclose(mlp(x), mlp.down(mlp.norm(hidden)) * 3.0, atol=1e-6)
