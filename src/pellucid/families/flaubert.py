"""FlauBERT: XLM for French, in its large form with the norms before the sublayers. Paper: arXiv 1912.05372."""

from pellucid.config import Config
from pellucid.families.xlm import ALIASES as ALIASES
from pellucid.families.xlm import CLASSES as XLM_CLASSES
from pellucid.families.xlm import DEFAULTS as XLM_DEFAULTS
from pellucid.families.xlm import HEADS as HEADS
from pellucid.families.xlm import IGNORED as XLM_IGNORED
from pellucid.families.xlm import WEIGHTS as WEIGHTS
from pellucid.families.xlm import encoder
from pellucid.spec import Spec

CLASSES = {
    task: name.replace("XLM", "Flaubert") for task, name in XLM_CLASSES.items() if task != "causal-lm"
}  # fmt: skip
DEFAULTS = XLM_DEFAULTS | {"pre_norm": False, "layerdrop": 0.0}
IGNORED = XLM_IGNORED | {"layerdrop": None}  # layers left out in training, which is the trainer's
BASE = "transformer."


def spec(c: Config) -> Spec:
    return encoder(c, "flaubert")
