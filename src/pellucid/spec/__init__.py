"""What a model is: frozen facts, no torch.

A family file turns a `config.json` into one `Spec`; `nn/` turns a `Spec` into modules. Where the field has alternatives
there is a union, not a flag, so that an impossible combination cannot be written down. Read in this order:

    norms.py       RmsNorm | LayerNorm, and Custom, the way out of every union
    positions.py   Rope and its stretchings; LearnedPositions | Sinusoidal; RelativeBias | Alibi
    mixers.py      what moves information between tokens: Attention | LatentAttention | Mamba2 | ...
    ffn.py         what works on each token: Mlp | Moe
    stack.py       the orders of norms and sums around them, Block, Embed, Stack
    heads.py       what turns hidden states into answers
    model.py       Spec, all of it together

Sizes are counts; `scale` multiplies raw attention scores; angles are in radians per position.
"""

from pellucid.spec.ffn import Activation, ClampedGlu, Ffn, Mlp, Moe, Router, SharedExpert
from pellucid.spec.heads import (
    ChoiceHead,
    Dense,
    Head,
    LmHead,
    PairHead,
    Pool,
    Pooling,
    PretrainingHead,
    SequenceHead,
    SpanHead,
    Task,
    TokenHead,
    Transform,
    language,
    pools,
)
from pellucid.spec.mixers import (
    Attention,
    DeltaNet,
    Gate,
    Indexer,
    KimiDelta,
    LatentAttention,
    Mamba,
    Mamba2,
    Mixer,
    QkNorm,
    ShortConv,
    Temperature,
    Together,
    Wkv,
)
from pellucid.spec.model import Spec
from pellucid.spec.norms import Custom, LayerNorm, Norm, RmsNorm
from pellucid.spec.positions import (
    Alibi,
    DynamicScaling,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Positions,
    ProportionalScaling,
    RelativeBias,
    Rope,
    RopeScaling,
    ScoreBias,
    Sinusoidal,
    YarnScaling,
)
from pellucid.spec.stack import Block, Embed, Order, OutNorm, Parallel, PostNorm, PreNorm, Projection, Sandwich, Stack

__all__ = [
    "Activation", "Alibi", "Attention", "Block", "ChoiceHead", "ClampedGlu", "Custom", "DeltaNet", "Dense",
    "DynamicScaling", "Embed", "Ffn", "Gate", "Head", "Indexer", "KimiDelta", "LatentAttention", "LayerNorm",
    "LearnedPositions",
    "LinearScaling", "Llama3Scaling", "LmHead", "LongRopeScaling", "Mamba", "Mamba2", "Mixer", "Mlp", "Moe", "Norm",
    "Order", "OutNorm", "PairHead", "Parallel", "Pool", "Pooling", "Positions", "PostNorm", "PreNorm",
    "PretrainingHead", "Projection", "ProportionalScaling", "QkNorm", "RelativeBias", "RmsNorm", "Rope", "RopeScaling",
    "Router", "Sandwich", "ScoreBias", "SequenceHead", "SharedExpert", "ShortConv", "Sinusoidal", "SpanHead", "Spec",
    "Stack", "Task", "Temperature", "Together", "TokenHead", "Transform", "Wkv", "YarnScaling", "language", "pools",
]  # fmt: skip
