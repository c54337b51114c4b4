"""mBART and mBART-50. Papers: arXiv 2001.08210, 2008.00401."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec

CLASSES = b.both("MBart", *b.LABELLED)
DEFAULTS = b.DEFAULTS | {"decoder_start_token_id": None}
ALIASES, IGNORED = b.ALIASES, b.IGNORED

BASE = "model."
WEIGHTS = b.table


def spec(c: Config) -> Spec:
    return b.encoder_decoder(c, "mbart", order=b.PRE, positions=b.learned(c, 2), embed_norm=b.NORM, start="last")
