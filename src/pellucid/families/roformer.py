"""RoFormer, where rotary positions come from. Paper: arXiv 2104.09864."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    BERT,
    CLS,
    HIDDEN,
    USUAL,
    attention,
    classes,
    embedding,
    encoder,
    head_size,
    heads,
    layer_norm,
    lm_head,
    mlp,
)
from pellucid.families._read import activation
from pellucid.spec import Block, ChoiceHead, Dense, PostNorm, Rope, Spec
from pellucid.weights.table import Unused

CLASSES = classes("RoFormer", *USUAL, "causal-lm", encoding=True)
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 50000, "embedding_size": None, "max_position_embeddings": 1536, "rotary_value": False,
}  # fmt: skip
IGNORED = shared.IGNORED | {"rotary_value": (False,)}

BASE = "roformer."
WEIGHTS = (
    {
        "roformer.embeddings_project.{p}": "embed.project.{p}",
        "roformer.encoder.embed_positions.weight": Unused("sines and cosines of the rotation", kept=True),
    }
    | under(BASE, BERT, "bert.")
    | CLS
)
HEADS = HIDDEN


def spec(c: Config) -> Spec:
    size = c.size("embedding_size", null=c.size("hidden_size"))
    embed = embedding(c, width=size, positions=None)
    _, head_dim = head_size(c)
    rope = Rope(theta=10000.0, dim=head_dim, interleaved=True)
    block = Block(attn=attention(c, rope=rope), mlp=mlp(c), order=PostNorm(norm=layer_norm(c)), dropout=embed.dropout)
    hidden = Dense(act=activation(c.hidden_act, c))
    found = heads(c, lm_head(c, width=size), hidden=hidden, pool="first") | {"multiple-choice": ChoiceHead(pool="last")}
    return encoder(
        c, "roformer", [block] * c.layers("num_hidden_layers"), embed=embed, heads=found, pooler=None,
        context=c.size("max_position_embeddings"),
    )  # fmt: skip
