"""MVP, without prompts. Paper: arXiv 2206.12131."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec

CLASSES = b.both("Mvp", *b.LABELLED)
DEFAULTS = b.DEFAULTS | {"vocab_size": 50267, "num_labels": 3}
ALIASES, IGNORED = b.ALIASES, b.IGNORED | {
    "use_prompt": (False,), "prompt_length": None, "prompt_mid_dim": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = b.table


def spec(c: Config) -> Spec:
    return b.encoder_decoder(c, "mvp", order=b.POST, positions=b.learned(c, 2), embed_norm=b.NORM)
