"""Falcon Mamba: Mamba with norms of its step, B and C. Paper: arXiv 2410.05355."""

from pellucid.config import Config
from pellucid.families._decoder import classes, decoder
from pellucid.families.mamba import DEFAULTS as MAMBA
from pellucid.families.mamba import GGUF as GGUF
from pellucid.families.mamba import IGNORED as IGNORED
from pellucid.families.mamba import WEIGHTS as WEIGHTS
from pellucid.families.mamba import mixer
from pellucid.spec import Block, PreNorm, RmsNorm, Spec

CLASSES = classes("FalconMamba", "causal-lm")
DEFAULTS = MAMBA | {"mixer_rms_eps": 1e-6}

BASE = "backbone."


def spec(c: Config) -> Spec:
    norm = RmsNorm(eps=c.number("layer_norm_epsilon", float))
    attn = mixer(c, RmsNorm(eps=c.number("mixer_rms_eps", float), weight=False))
    order = PreNorm(norm=norm, float32=c.residual_in_fp32)
    blocks = [Block(attn=attn, mlp=None, order=order)] * c.layers("num_hidden_layers")
    return decoder(c, "falcon_mamba", blocks, norm=norm, hidden_after=True)
