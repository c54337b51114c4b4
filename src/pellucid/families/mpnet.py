"""MPNet: learned positions, and a bias by distance that all layers share. Paper: arXiv 2004.09297."""

from pellucid.config import Config
from pellucid.families import roberta
from pellucid.families._decoder import under
from pellucid.families._encoder import USUAL, classes, embedding
from pellucid.spec import LearnedPositions, RelativeBias, Spec

CLASSES = classes("MPNet", *USUAL, pretraining="masked-lm")
DEFAULTS = roberta.DEFAULTS | {"vocab_size": 30527, "relative_attention_num_buckets": 32}
IGNORED = roberta.IGNORED | {"type_vocab_size": None}

BASE = "mpnet."
WEIGHTS = {
    **{f"mpnet.encoder.layer.{{i}}.attention.attn.{x}.{{p}}": f"blocks.{{i}}.attn.{x}.{{p}}" for x in "qkvo"},
    "mpnet.encoder.layer.{i}.attention.LayerNorm.{p}": "blocks.{i}.attn_norm.{p}",
    "mpnet.encoder.relative_attention_bias.weight": "relative_bias.weight",
} | under(BASE, roberta.WEIGHTS, roberta.BASE)
HEADS = roberta.HEADS


def spec(c: Config) -> Spec:
    positions = LearnedPositions(rows=c.number("max_position_embeddings", least=3), offset=2, skip=1)
    bias = RelativeBias(
        buckets=c.number("relative_attention_num_buckets", least=4), max_distance=128, bidirectional=True
    )
    embed = embedding(c, positions=positions, token_types=0)
    return roberta.roberta(c, "mpnet", embed=embed, relative_bias=bias)
