"""XLM-RoBERTa. Paper: arXiv 1911.02116."""

from pellucid.config import Config
from pellucid.families import roberta
from pellucid.families._encoder import USUAL, classes
from pellucid.spec import Spec

CLASSES = classes("XLMRoberta", *USUAL, "causal-lm", pretraining="masked-lm", encoding=True)
DEFAULTS = roberta.DEFAULTS | {"vocab_size": 30522}
IGNORED = roberta.IGNORED

BASE = roberta.BASE
WEIGHTS = roberta.WEIGHTS
HEADS = roberta.HEADS
GGUF = roberta.GGUF


def spec(c: Config) -> Spec:
    return roberta.roberta(c, "xlm_roberta")
