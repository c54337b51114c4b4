"""How a model knows where a token is."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.spec.norms import Custom

# ---------------------------------------------------------------------------------------------- rotary


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions divided by `factor`. arXiv 2306.15595."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class DynamicScaling:
    """The base grows with the row's length beyond the original context. reddit.com/r/LocalLLaMA/comments/14mrgpr."""

    factor: float
    original_positions: int


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


@dataclass(frozen=True, kw_only=True)
class LongRopeScaling:
    """A factor for each pair: `short` within the original context, `long` for rows beyond it. arXiv 2402.13753."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original_positions: int
    attention_factor: float = 1.0  # multiplies cos and sin


@dataclass(frozen=True, kw_only=True)
class ProportionalScaling:
    """Only the first `share` of the pairs turn; frequencies are spaced over the whole head (Gemma 4)."""

    share: float
    factor: float = 1.0


RopeScaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongRopeScaling | ProportionalScaling


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions on the first `dim` channels of each head. arXiv 2104.09864."""

    theta: float
    dim: int
    scaling: RopeScaling | None = None
    interleaved: bool = False  # pairs (2i, 2i + 1) instead of (i, i + dim/2)
    backwards: bool = False  # turns the other way (nanochat)
    sections: tuple[int, ...] = ()  # pairs that follow each axis of multi-axis positions. arXiv 2409.12191
    woven: bool = False  # the axes take turns pair by pair (Qwen3-VL), instead of one section after the other


# ---------------------------------------------------------------------------------------------- added to the input


@dataclass(frozen=True, kw_only=True)
class LearnedPositions:
    """One trained vector for each absolute position, in row `position + offset`."""

    rows: int
    offset: int = 0
    skip: int | None = None  # tokens with this id do not count and take row `skip` (RoBERTa's pad)


@dataclass(frozen=True, kw_only=True)
class Sinusoidal:
    """Fixed sines and cosines of row `position + offset`. arXiv 1706.03762, section 3.5."""

    offset: int = 0
    layout: str = "halves"  # "halves": all sines, then all cosines; "interleaved": in turn; "first": as CTRL has them
    short: bool = True  # frequencies spaced over dim/2 - 1 (fairseq) or dim/2 (the paper)
    skip: int | None = None  # tokens with this id do not count and take row `skip`, which is zero (fairseq's pad)
    rows: int | None = None  # as many as the model was made for; None: any


Positions = LearnedPositions | Sinusoidal | Custom

# ---------------------------------------------------------------------------------------------- added to the scores


@dataclass(frozen=True, kw_only=True)
class RelativeBias:
    """A trained score for each head and bucket of distances. arXiv 1910.10683."""

    buckets: int
    max_distance: int
    bidirectional: bool


@dataclass(frozen=True, kw_only=True)
class Alibi:
    """A score that falls with the distance, with a slope for each head. arXiv 2108.12409."""

    bias_max: int = 8
    rounded: bool = False  # slopes times position in bfloat16 (Falcon)
    scale: float = 1.0  # multiplies the bias (Falcon scales it with the scores)


ScoreBias = RelativeBias | Alibi | Custom
