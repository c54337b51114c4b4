"""RoCBERT: Chinese BERT that also knows how a character looks and sounds. Paper: 10.18653/v1/2022.acl-long.65."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, USUAL, classes, embedding, encoder, heads, lm_head
from pellucid.spec import Custom, Spec

CLASSES = classes("RoCBert", *USUAL, "causal-lm", encoding=True)
DEFAULTS = shared.DEFAULTS | {
    "enable_pronunciation": True, "enable_shape": True, "pronunciation_embed_dim": 768,
    "pronunciation_vocab_size": 910, "shape_embed_dim": 512, "shape_vocab_size": 24858, "concat_input": True,
}  # fmt: skip
IGNORED = shared.IGNORED | {"concat_input": (True,)}

BASE = "roc_bert."
WEIGHTS = under(BASE, BERT, "bert.") | CLS | {
    "roc_bert.embeddings.shape_embed.weight": "embed.change.shape.weight",
    "roc_bert.embeddings.pronunciation_embed.weight": "embed.change.pronunciation.weight",
    "roc_bert.embeddings.map_inputs_layer.{p}": "embed.change.map.{p}",
}  # fmt: skip


def spec(c: Config) -> Spec:
    sizes = {
        f"{name}_{size}": c.size(f"{name}_{key}") for name in ("shape", "pronunciation")
        for size, key in (("rows", "vocab_size"), ("width", "embed_dim"))
    }  # fmt: skip
    enabled = {"shape": c.enable_shape, "pronunciation": c.enable_pronunciation}
    change = Custom(path="pellucid.families.roc_bert.looks:Looks", options=(*sizes.items(), *enabled.items()))
    inputs = tuple(f"input_{name}_ids" for name in enabled)
    return encoder(c, "roc_bert", embed=embedding(c, change=change), inputs=inputs, heads=heads(c, lm_head(c)))
