"""LiLT: a text and the layout of its page, read side by side. Paper: arXiv 2202.13669."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    EMBEDDINGS,
    HIDDEN,
    LABELS,
    classes,
    counted,
    embedding,
    encoder,
    head_size,
    heads,
    layer_norm,
    lm_head,
    mlp,
)
from pellucid.spec import Custom, Dense, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Lilt", "sequence-classification", "token-classification", "question-answering")
DEFAULTS = shared.DEFAULTS | {"channel_shrink_ratio": 4, "max_2d_position_embeddings": 1024}
IGNORED = shared.IGNORED | {"tie_word_embeddings": None, "is_decoder": (False,)}

BASE = "lilt."
LAYER = "lilt.encoder.layer.{i}"
AT = "body.layers.{i}"
SIDES: dict[str, Entry] = {
    name: slot
    for side, part in (("", "text"), ("layout_", "layout"))
    for name, slot in {
        f"{LAYER}.attention.self.{side}query.{{p}}": f"{AT}.attn.{side}q.{{p}}",
        f"{LAYER}.attention.self.{side}key.{{p}}": f"{AT}.attn.{side}k.{{p}}",
        f"{LAYER}.attention.self.{side}value.{{p}}": f"{AT}.attn.{side}v.{{p}}",
        f"{LAYER}.attention.{side}output.dense.{{p}}": f"{AT}.attn.{side}o.{{p}}",
        f"{LAYER}.attention.{side}output.LayerNorm.{{p}}": f"{AT}.{part}.attn_norm.{{p}}",
        f"{LAYER}.{side}intermediate.dense.{{p}}": f"{AT}.{part}.mlp.up.{{p}}",
        f"{LAYER}.{side}output.dense.{{p}}": f"{AT}.{part}.mlp.down.{{p}}",
        f"{LAYER}.{side}output.LayerNorm.{{p}}": f"{AT}.{part}.mlp_norm.{{p}}",
    }.items()
}
BOXES: dict[str, Entry] = {
    **{f"lilt.layout_embeddings.{x}_position_embeddings.weight": f"body.boxes.{x}.weight" for x in "xyhw"},
    "lilt.layout_embeddings.box_position_embeddings.weight": "body.boxes.positions.weight",
    "lilt.layout_embeddings.box_linear_embeddings.{p}": "body.boxes.project.{p}",
    "lilt.layout_embeddings.LayerNorm.{p}": "body.boxes.norm.{p}",
}
POOLER: dict[str, Entry] = {"bert.pooler.dense.{p}": "pooler.dense.{p}"}
WEIGHTS = SIDES | BOXES | LABELS | under(BASE, EMBEDDINGS | POOLER, "bert.")
HEADS = HIDDEN


def spec(c: Config) -> Spec:
    (count, head_dim), shrink, width = head_size(c), c.size("channel_shrink_ratio"), c.size("hidden_size")
    if head_dim % shrink or width % 6 or c.size("intermediate_size") % shrink:
        what = f"hidden_size={width} and {count} heads with channel_shrink_ratio={shrink}"
        raise ConfigError(what, where=c.where, next="the ratio must divide a head and the MLP, and 6 the width")
    embed = embedding(c, positions=counted(c))
    body = Custom(
        path="pellucid.families.lilt.streams:Streams",
        options=(
            ("layers", c.layers("num_hidden_layers")), ("heads", count), ("head_dim", head_dim), ("shrink", shrink),
            ("mlp", mlp(c)), ("norm", layer_norm(c)), ("rows", c.size("max_2d_position_embeddings")),
            ("positions", embed.positions), ("dropout", embed.dropout),
            ("attn_dropout", c.share("attention_probs_dropout_prob")), ("causal", False),
        ),
    )  # fmt: skip
    found = heads(c, lm_head(c, tied=True), hidden=Dense(act="tanh"), pool="first")
    return encoder(c, "lilt", [], embed=embed, body=body, inputs=("bbox",), heads=found)
