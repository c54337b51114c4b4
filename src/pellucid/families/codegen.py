"""CodeGen: GPT-J with one matrix for queries, values and keys. Paper: arXiv 2203.13474."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import gptj
from pellucid.families._decoder import classes
from pellucid.spec import Spec
from pellucid.weights.table import Fused

CLASSES = classes("CodeGen", "causal-lm")
DEFAULTS = {key: value for key, value in gptj.DEFAULTS.items() if key != "pad_token_id"}
ALIASES = gptj.ALIASES
IGNORED = {"rotary": (True,), "scale_attn_weights": (True,)}

CHIPS = 4  # the matrix was trained in four pieces, each with its share of all three

BASE = "transformer."
WEIGHTS = gptj.NAMES | {
    "transformer.h.{i}.attn.qkv_proj.weight": Fused("blocks.{i}.attn.{}.weight", "qvk", groups=CHIPS),
}  # fmt: skip


def spec(c: Config) -> Spec:
    if c.size("n_head") % CHIPS:
        what = f"{c.n_head} heads in {CHIPS} pieces"
        raise ConfigError(what, where=c.where, next="give a multiple of four heads")
    return gptj.spec(c, "codegen")
