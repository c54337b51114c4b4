"""What moves information between tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.spec.ffn import Activation
from pellucid.spec.norms import Custom, Norm, RmsNorm
from pellucid.spec.positions import Rope, ScoreBias

# ---------------------------------------------------------------------------------------------- attention


@dataclass(frozen=True, kw_only=True)
class QkNorm:
    """A norm on queries and keys."""

    norm: Norm
    over: Literal["head", "each", "full"] = "head"  # one weight for all heads, one for each, or over the whole width
    after_rope: bool = False
    queries_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The mixture times act(x W), before the output projection. arXiv 2505.06708."""

    per: Literal["channel", "head"]
    act: Literal["sigmoid", "softplus"] = "sigmoid"
    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Queries times 1 + scale * ln(1 + floor((position + shift) / floor)): longer contexts, sharper attention."""

    scale: float
    floor: float
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Grouped-query attention (arXiv 2305.13245): `heads` queries share `kv_heads` keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    causal: bool
    value_dim: int | None = None  # of a head, where it is not head_dim
    memory_width: int | None = None  # of the encoder's output that is read, where it is not the stack's
    biases: str = ""  # which of the projections q, k, v, o carry a bias
    rope: Rope | None = None
    bias: ScoreBias | None = None  # of this layer alone; a stack's own is shared by its layers
    window: int | None = None  # a query sees this many latest tokens, itself included; both sides if not causal
    chunk: int | None = None  # a query sees its own chunk of so many tokens (Llama 4)
    cap: float | None = None  # scores become cap * tanh(score / cap)
    sinks: bool = False  # a trained score for each head joins the softmax and takes its share away. arXiv 2508.10925
    clip: float | None = None  # q, k and v limited to +-clip
    qk_norm: QkNorm | None = None
    v_norm: Norm | None = None
    temperature: Temperature | None = None
    gate: Gate | None = None
    out_norm: Norm | None = None  # on the mixture, before the output projection
    k_scale: float = 1.0
    v_scale: float = 1.0
    v_from_k: bool = False  # values are the keys before norm and rotation: there is no matrix v (Gemma 4)
    kv_from: int | None = None  # keys and values are those of an earlier layer (Gemma 4)
    dropout: float = 0.0  # of the probabilities, in training


@dataclass(frozen=True, kw_only=True)
class Indexer:
    """Chooses the `top_k` keys that a query sees, by a small attention of its own. arXiv 2512.02556, section 2.1."""

    heads: int
    head_dim: int
    top_k: int
    rope: Rope | None  # on the first channels
    source: int | None = None  # the choice is that of an earlier layer (GLM-5)


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: keys and values grow from one small vector, which is what the cache keeps.

    A head's query and key are [nope_dim | rope_dim] wide; the rotated part of the key is shared by all heads.
    arXiv 2405.04434, section 2.1.
    """

    heads: int
    q_rank: int | None  # None: queries come straight from the input
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    scale: float
    rope: Rope | None
    norm: Norm  # of the small vectors
    rope_norm: Norm | None = None  # of the rotated part of the key, before it is rotated (dots.3)
    biases: str = ""  # of the projections to the small vectors, and of o: any of "qko"
    causal: bool = True
    window: int | None = None
    gate: Gate | None = None
    q_scale: float = 1.0  # of the small vectors, after their norm (LongCat)
    kv_scale: float = 1.0
    indexer: Indexer | None = None
    dropout: float = 0.0


# ---------------------------------------------------------------------------------------------- recurrences


@dataclass(frozen=True, kw_only=True)
class ShortConv:
    """c * conv(b * x), with b, c, x from the input and a causal depthwise convolution. LFM2, arXiv 2511.23404."""

    kernel: int
    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class DeltaNet:
    """Gated delta rule: S = exp(g) S + beta k (v - exp(g) S^T k)^T. arXiv 2412.06464."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    norm: RmsNorm  # of each value head, gated by silu(z)
    act: Activation = "silu"  # after the convolution
    negative: bool = False  # beta up to 2: eigenvalues may be negative (OLMo hybrid). arXiv 2411.12537


@dataclass(frozen=True, kw_only=True)
class KimiDelta:
    """Gated delta rule with a decay for each channel of a key. Kimi Linear, arXiv 2510.26692."""

    heads: int
    head_dim: int
    kernel: int
    norm: RmsNorm  # of each head, gated by sigmoid(z)
    act: Activation = "silu"  # after the convolution
    rank: int | None = None  # decay and gate come through a vector of this width
    floor: float | None = None  # the decay is floor * sigmoid(exp(a) x), not -exp(a) softplus(x) (Ling 3)


@dataclass(frozen=True, kw_only=True)
class Mamba:
    """Selective state space with a step for each channel. arXiv 2312.00752."""

    inner: int
    state: int
    kernel: int
    dt_rank: int
    conv_bias: bool = True
    bias: bool = False
    act: Activation = "silu"  # after the convolution
    norm: RmsNorm | None = None  # of dt, B and C (Jamba trains it, Falcon Mamba does not)


@dataclass(frozen=True, kw_only=True)
class Mamba2:
    """State space duality: one step for each head. arXiv 2405.21060."""

    heads: int
    head_dim: int
    state: int
    groups: int  # of heads that share B and C
    kernel: int
    norm: RmsNorm | None  # gated by silu(z); None: the gate alone
    norm_groups: int = 1
    norm_first: bool = False  # norm, then gate; otherwise the gate first
    conv_bias: bool = True
    bias: bool = False
    out_bias: bool | None = None  # where it differs from `bias`
    act: Activation = "silu"  # after the convolution
    step: tuple[float, float] = (0.0, float("inf"))  # limits of dt after its softplus
    scales: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)  # of z, x, B, C and dt (Falcon H1)


@dataclass(frozen=True, kw_only=True)
class Wkv:
    """RWKV 4's time mix: a weighted average that decays by channel. arXiv 2305.13048."""

    inner: int


@dataclass(frozen=True, kw_only=True)
class Together:
    """Attention and Mamba 2 on one input, and the sum of what they say; each is scaled on its way in and out.

    Falcon H1, arXiv 2507.22448.
    """

    attention: Attention
    mamba: Mamba2
    attention_scales: tuple[float, float] = (1.0, 1.0)
    mamba_scales: tuple[float, float] = (1.0, 1.0)


Mixer = Attention | LatentAttention | ShortConv | DeltaNet | KimiDelta | Mamba | Mamba2 | Wkv | Together | Custom
