"""CamemBERT. Paper: arXiv 1911.03894."""

from pellucid.config import Config
from pellucid.families import roberta
from pellucid.families._encoder import USUAL, classes
from pellucid.spec import Spec

CLASSES = classes("Camembert", *USUAL, "causal-lm", pretraining="masked-lm")
DEFAULTS = roberta.DEFAULTS | {"vocab_size": 30522}
IGNORED = roberta.IGNORED

BASE = roberta.BASE
WEIGHTS = roberta.WEIGHTS
HEADS = roberta.HEADS
GGUF = roberta.GGUF


def spec(c: Config) -> Spec:
    return roberta.roberta(c, "camembert")
