"""PEGASUS. Paper: arXiv 1912.08777."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec

CLASSES = b.both("Pegasus", *b.WRITING)
DEFAULTS = b.DEFAULTS | {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "decoder_start_token_id": 0}
ALIASES, IGNORED = b.ALIASES, b.IGNORED

BASE = "model."
WEIGHTS = b.table_with_waves


def spec(c: Config) -> Spec:
    return b.encoder_decoder(c, "pegasus", order=b.PRE, positions=b.waves(c))
