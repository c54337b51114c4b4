"""RoBERTa with norms before its layers. Papers: arXiv 1907.11692; 1904.01038 (the code it was trained with)."""

from pellucid.config import Config
from pellucid.families import roberta
from pellucid.families._decoder import under
from pellucid.families._encoder import USUAL, classes, layer_norm
from pellucid.spec import PreNorm, Spec

CLASSES = classes("RobertaPreLayerNorm", *USUAL, "causal-lm", pretraining="masked-lm", encoding=True)
DEFAULTS = roberta.DEFAULTS
IGNORED = roberta.IGNORED

BASE = "roberta_prelayernorm."
WEIGHTS = {
    "roberta_prelayernorm.encoder.layer.{i}.attention.LayerNorm.{p}": "blocks.{i}.attn_norm.{p}",
    "roberta_prelayernorm.encoder.layer.{i}.intermediate.LayerNorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "roberta_prelayernorm.LayerNorm.{p}": "norm.{p}",
} | under(BASE, roberta.WEIGHTS, roberta.BASE)
HEADS = roberta.HEADS


def spec(c: Config) -> Spec:
    norm = layer_norm(c)
    return roberta.roberta(c, "roberta_prelayernorm", order=PreNorm(norm=norm), norm=norm)
