"""Data2Vec, text. Paper: arXiv 2202.03555."""

from pellucid.config import Config
from pellucid.families import roberta
from pellucid.families._decoder import under
from pellucid.families._encoder import USUAL, classes
from pellucid.spec import Spec

CLASSES = classes("Data2VecText", *USUAL, "causal-lm", pretraining="masked-lm", encoding=True)
DEFAULTS = roberta.DEFAULTS | {"vocab_size": 30522}
IGNORED = roberta.IGNORED

BASE = "data2vec_text."
WEIGHTS = under(BASE, roberta.WEIGHTS, roberta.BASE)
HEADS = roberta.HEADS


def spec(c: Config) -> Spec:
    return roberta.roberta(c, "data2vec_text")
