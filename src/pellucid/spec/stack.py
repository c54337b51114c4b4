"""Blocks, and what stands before and after them."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.spec.ffn import Ffn
from pellucid.spec.mixers import Attention, Mixer
from pellucid.spec.norms import Custom, Norm
from pellucid.spec.positions import Positions, ScoreBias

# ---------------------------------------------------------------------------------------------- orders


@dataclass(frozen=True, kw_only=True)
class PreNorm:
    """x + f(norm(x))"""

    norm: Norm
    bare_attn: bool = False  # no norm before the attention (ModernBERT's first layer)
    float32: bool = False  # the residual stream is kept in float32 at least (Mamba)


@dataclass(frozen=True, kw_only=True)
class PostNorm:
    """norm(x + f(x))"""

    norm: Norm


@dataclass(frozen=True, kw_only=True)
class OutNorm:
    """x + norm(f(x))"""

    norm: Norm


@dataclass(frozen=True, kw_only=True)
class Sandwich:
    """x + norm_out(f(norm_in(x)))"""

    norm: Norm


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """x + attn(norm(x)) + mlp(norm(x)); one norm for both, or one each. arXiv 2204.02311, section 2."""

    norm: Norm
    shared: bool


Order = PreNorm | PostNorm | OutNorm | Sandwich | Parallel


@dataclass(frozen=True, kw_only=True)
class Block:
    """The mixer, then attention over the encoder's output where `cross` is given, then the feed-forward part.

    `attn` is the mixer's place in every model, whatever its kind; either of `attn` and `mlp` may be absent.
    """

    attn: Mixer | None
    mlp: Ffn | None
    order: Order
    cross: Attention | Custom | None = None
    residual_scale: float = 1.0  # multiplies what is added to the residual stream (Granite)
    scalar: bool = False  # a number that training leaves alone multiplies the block's output (Gemma 4)
    dropout: float = 0.0  # of each sublayer's output, in training


# ---------------------------------------------------------------------------------------------- stacks


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A matrix from the tables' width to the stack's."""

    bias: bool = True
    first: bool = False  # before positions are added (OPT), instead of after the norm (ELECTRA)
    neighbours: int = 0  # tokens on each side whose vectors join one's own before it (MobileBERT)


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Ids to vectors: tokens, types, positions and features summed, then the norm."""

    vocab: int
    tokens: Custom | None = None  # a module in place of the table of tokens (CANINE's hashes)
    change: Custom | None = None  # what becomes of the token vectors before anything is added (ESM's masks)
    width: int | None = None  # of the tables, where it is not the stack's
    projection: Projection | None = None  # None with a width: a body takes vectors of that width (Perceiver)
    positions: Positions | None = None
    token_types: int = 0
    question_end: int | None = None  # behind this id, types not given are 1 when a question is answered (BigBird)
    features: Custom | None = None  # a module that adds more per-token inputs: boxes, languages, tables
    norm: Norm | None = None
    norm_first: bool = False  # on the token vectors, before positions are added (BlenderbotSmall)
    scale: float | None = None  # rounded to the weights' dtype before it multiplies
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Embedding, blocks, final norm."""

    width: int
    embed: Embed
    blocks: tuple[Block | Custom, ...]
    norm: Norm | None
    relative_bias: ScoreBias | None = None  # shared by all layers
    depth: tuple[int, ...] | None = None  # the block of each step, where some run more than once (ALBERT)
    body: Custom | None = None  # in place of the blocks, where they are no chain (Funnel, Perceiver)
    inputs: tuple[str, ...] = ()  # names of further per-token inputs that `features` or `body` read
    hidden_after: bool = False  # hidden states are what each block leaves, not what it finds (Mamba, RWKV)
    out: int | None = None  # a projection after the last block to this width (OPT 350m); the heads' width
    dropout: float = 0.0  # of the output, in training
