"""BART. Paper: arXiv 1910.13461."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec

CLASSES = b.both("Bart", *b.LABELLED)
DEFAULTS = b.DEFAULTS | {"num_labels": 3}
ALIASES, IGNORED = b.ALIASES, b.IGNORED

BASE = "model."
WEIGHTS = b.table


def spec(c: Config) -> Spec:
    return b.encoder_decoder(c, "bart", order=b.POST, positions=b.learned(c, 2), embed_norm=b.NORM)
