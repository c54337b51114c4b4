"""What works on each token by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.spec.norms import Custom, Norm

# Each is written out in `ops/elementwise.py`, with its source.
Activation = Literal[
    "gelu", "gelu_tanh", "gelu_quick", "gelu_10", "relu", "relu2", "relu6", "leaky_relu", "silu", "hard_silu",
    "sigmoid", "tanh", "mish", "softplus", "laplace", "linear",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ClampedGlu:
    """(up + 1) * gate * sigmoid(alpha * gate), gate <= limit, |up| <= limit. arXiv 2508.10925 (gpt-oss)."""

    alpha: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """act(x up) down, or (act(x gate) * x up) down when gated (arXiv 2002.05202)."""

    hidden: int
    act: Activation | ClampedGlu | Custom
    gated: bool
    bias: bool = False
    down_bias: bool | None = None  # where it differs from `bias`
    norm: Norm | None = None  # on the hidden activations (BitNet)
    gate_scale: float = 1.0  # multiplies x gate, before the activation (Falcon H1)
    out_scale: float = 1.0
    dropout: float = 0.0  # of the hidden activations, in training


@dataclass(frozen=True, kw_only=True)
class Router:
    """Scores for each expert, the choice of `top_k`, and the weights of the chosen.

    softmax, sigmoid, sqrtsoftplus: scores of all, then the choice; topk_softmax, topk_sigmoid: the choice, then scores
    of the chosen; sparsemixer: arXiv 2310.00811.
    """

    top_k: int
    score: Literal["softmax", "sigmoid", "sqrtsoftplus", "topk_softmax", "topk_sigmoid", "sparsemixer"] = "softmax"
    select_bias: bool = False  # trained, added for the choice only. arXiv 2408.15664
    groups: int = 1  # experts in so many groups, of which `top_groups` may be chosen from
    top_groups: int = 1
    group_score: Literal["top2", "max"] = "top2"
    outside: float = float("-inf")  # what experts of other groups count as (A.X K2: 0, so that they may be chosen)
    renormalise: bool = False  # weights of the chosen sum to 1
    renormalise_eps: float = 0.0
    scale: float = 1.0  # multiplies the weights
    bias: bool = False  # of the scoring matrix
    cap: float | None = None  # of the raw scores: cap * tanh(score / cap)
    jitter: float = 0.0  # of sparsemixer's threshold
    float32: bool = False  # x and the matrix are widened before the product


@dataclass(frozen=True, kw_only=True)
class SharedExpert:
    """An MLP that sees every token."""

    mlp: Mlp
    gate: bool = False  # times sigmoid(x w) (Qwen 2 MoE)
    average: bool = False  # the mean with the routed experts, not the sum (Cohere 2 MoE)


@dataclass(frozen=True, kw_only=True)
class Moe:
    """Mixture of experts: each token goes through the few that its router chooses. arXiv 1701.06538, 2101.03961."""

    experts: int
    expert: Mlp
    router: Router
    shared: SharedExpert | None = None
    scale_input: bool = False  # the weight multiplies what an expert reads, not what it says (Llama 4)
    bias: bool = False  # added to the sum (JetMoe)
    norm: Norm | None = None  # on the sum (A.X K1)
    latent: int | None = None  # the width of the experts, between two projections (Nemotron H)
    jitter: float = 0.0  # in training, x times numbers from 1 - jitter to 1 + jitter
    loss: float = 0.0  # weight of the load-balancing loss in training. arXiv 2101.03961, section 2.2


Ffn = Mlp | Moe | Custom
