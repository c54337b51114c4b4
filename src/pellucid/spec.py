"""What a model is: frozen facts, no torch.

A family file turns a `config.json` into one `Spec`; `nn/build.py` turns a `Spec` into modules. Where the field has
alternatives there is a union, not a flag, so that an impossible combination cannot be written down.

Sizes are counts; `scale` multiplies raw attention scores; angles are in radians per position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# ---------------------------------------------------------------------------------------------- norms


@dataclass(frozen=True, kw_only=True)
class RmsNorm:
    """x / rms(x) * (offset + weight). arXiv 1910.07467."""

    eps: float
    offset: float = 0.0  # Gemma stores w and uses 1 + w
    round_first: bool = True  # back to x's dtype before the product (Llama) or after it (Gemma); bf16 sees it


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """(x - mean) / std * weight + bias. arXiv 1607.06450."""

    eps: float


Norm = RmsNorm | LayerNorm

# ---------------------------------------------------------------------------------------------- positions


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions divided by `factor`. arXiv 2306.15595."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Long wavelengths slowed by `factor`, short ones kept, a ramp between. Llama 3.1 model card."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """Interpolation by wavelength, with a temperature on the rotated values. arXiv 2309.00071."""

    factor: float
    original_positions: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0  # multiplies cos and sin
    truncate: bool = True


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions on the first `dim` channels, pairs (i, i + dim/2). arXiv 2104.09864."""

    theta: float
    dim: int
    scaling: RopeScaling | None = None


@dataclass(frozen=True, kw_only=True)
class LearnedPositions:
    """One trained vector for each absolute position."""

    rows: int


@dataclass(frozen=True, kw_only=True)
class RelativeBias:
    """A trained score for each head and bucket of distances, shared by a stack's layers. arXiv 1910.10683."""

    buckets: int
    max_distance: int
    bidirectional: bool


# ---------------------------------------------------------------------------------------------- parts of a block

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Grouped-query attention (arXiv 2305.13245): `heads` queries share `kv_heads` keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    causal: bool
    biases: str = ""  # which of the projections q, k, v, o carry a bias
    rope: Rope | None = None
    window: int | None = None  # a query sees this many latest tokens, itself included
    cap: float | None = None  # scores become cap * tanh(score / cap)
    dropout: float = 0.0  # of the probabilities, in training


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """act(x up) down, or (act(x gate) * x up) down when gated (arXiv 2002.05202)."""

    hidden: int
    act: Activation
    gated: bool
    bias: bool = False
    dropout: float = 0.0  # of the hidden activations, in training


@dataclass(frozen=True, kw_only=True)
class PreNorm:
    """x + f(norm(x))"""

    norm: Norm


@dataclass(frozen=True, kw_only=True)
class PostNorm:
    """norm(x + f(x))"""

    norm: Norm


@dataclass(frozen=True, kw_only=True)
class Sandwich:
    """x + norm_out(f(norm_in(x)))"""

    norm: Norm


Order = PreNorm | PostNorm | Sandwich


@dataclass(frozen=True, kw_only=True)
class Block:
    """Attention, then attention over the encoder's output where `cross` is given, then the MLP."""

    attn: Attention
    mlp: Mlp
    order: Order
    cross: Attention | None = None
    dropout: float = 0.0  # of each sublayer's output, in training


# ---------------------------------------------------------------------------------------------- stacks and heads


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Ids to vectors."""

    vocab: int
    positions: LearnedPositions | None = None
    token_types: int = 0
    norm: Norm | None = None
    scale: float | None = None  # rounded to the weights' dtype before it multiplies
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Embedding, blocks, final norm."""

    width: int
    embed: Embed
    blocks: tuple[Block, ...]
    norm: Norm | None
    relative_bias: RelativeBias | None = None
    dropout: float = 0.0  # of the output, in training


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Dense, activation, norm: what BERT puts before its vocabulary."""

    act: Activation
    norm: Norm


@dataclass(frozen=True, kw_only=True)
class LmHead:
    """One logit for each token of the vocabulary."""

    tied: bool  # the matrix is the token embedding
    bias: bool = False
    transform: Transform | None = None
    scale: float | None = None  # multiplies the hidden state
    cap: float | None = None  # logits become cap * tanh(logit / cap)


@dataclass(frozen=True, kw_only=True)
class SequenceHead:
    """One logit for each label, from the pooled output or from one token's hidden state."""

    labels: int
    pool: Literal["pooler", "last"]
    bias: bool
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TokenHead:
    """One logit for each label and token."""

    labels: int
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SpanHead:
    """Two logits for each token: the answer starts here, the answer ends here."""


Head = LmHead | SequenceHead | TokenHead | SpanHead

Task = Literal[
    "causal-lm",
    "masked-lm",
    "seq2seq-lm",
    "sequence-classification",
    "token-classification",
    "question-answering",
]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A whole model: `stack` gives the output, over what `encoder` has read where there is one."""

    family: str
    stack: Stack
    encoder: Stack | None = None
    pooler: bool = False  # dense + tanh on the first token
    heads: Mapping[Task, Head] = field(default_factory=dict)
    decoder_start: int | None = None  # the id that opens an encoder-decoder's output
    context: int | None = None  # most positions the model was made for; None: no limit

    @property
    def width(self) -> int:
        return self.stack.width

    @property
    def vocab(self) -> int:
        return self.stack.embed.vocab
