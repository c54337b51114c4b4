"""BROS: BERT whose attention sees how words lie to each other on the page. Paper: arXiv 2108.04539."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    BERT,
    LABELS,
    classes,
    embedding,
    encoder,
    head_size,
    heads,
    layer_norm,
    lm_head,
    mlp,
)
from pellucid.spec import Block, Custom, PostNorm, Spec
from pellucid.weights.table import Entry, Recomputed, Unused

CLASSES = classes("Bros", "token-classification")
DEFAULTS = shared.DEFAULTS | {"dim_bbox": 8, "bbox_scale": 100.0, "n_relations": 1, "classifier_dropout_prob": 0.1}
IGNORED = shared.IGNORED | {
    "n_relations": None,  # of heads that only the reference's own classes have
    "dim_bbox_sinusoid_emb_2d": None, "dim_bbox_sinusoid_emb_1d": None, "dim_bbox_projection": None,  # follow
    "is_decoder": (False,), "tie_word_embeddings": None,
}  # fmt: skip

BASE = "bros."
WEIGHTS = under(BASE, BERT, "bert.") | LABELS | {
    "bros.embeddings.position_ids": Recomputed("position ids", kept=True),
    "bros.bbox_embeddings.bbox_projection.weight": "relative_bias.project.weight",
    **{
        f"bros.bbox_embeddings.bbox_sinusoid_emb.{axis}_pos_emb.inv_freq": Unused("follows from the width", kept=True)
        for axis in "xy"
    },
}  # fmt: skip
IDLE: dict[str, Entry] = {"bros.pooler.dense.{p}": Unused("pooler that this task does not read", kept=True)}
HEADS = {"token-classification": IDLE}


def spec(c: Config) -> Spec:
    width, (count, head_dim) = c.size("hidden_size"), head_size(c)
    if c.dim_bbox != 8 or width % 64:
        what = f"dim_bbox={c.dim_bbox} and hidden_size={width}"
        raise ConfigError(what, where=c.where, next="give dim_bbox=8 and a multiple of 64")
    home = "pellucid.families.bros.boxes"
    boxes = Custom(
        path=f"{home}:Boxes",
        options=(("waves", width // 4), ("head_dim", head_dim), ("scale", c.number("bbox_scale", float))),
    )
    attn = Custom(
        path=f"{home}:BoxAttention",
        options=(
            ("heads", count), ("head_dim", head_dim), ("dropout", c.share("attention_probs_dropout_prob")),
            ("causal", False),
        ),
    )  # fmt: skip
    embed = embedding(c)
    block = Block(attn=attn, mlp=mlp(c), order=PostNorm(norm=layer_norm(c)), dropout=embed.dropout)
    return encoder(
        c, "bros", [block] * c.layers("num_hidden_layers"), embed=embed, heads=heads(c, lm_head(c, tied=True)),
        inputs=("bbox",), relative_bias=boxes,
    )  # fmt: skip
