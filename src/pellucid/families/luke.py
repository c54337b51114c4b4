"""LUKE, of words: RoBERTa with queries for entities beside those for words. Paper: arXiv 2010.01057."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families import roberta
from pellucid.families._decoder import under
from pellucid.families._encoder import USUAL, classes, counted, embedding, encoder, heads, idle, lm_head
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("Luke", *USUAL, pretraining="masked-lm")
DEFAULTS = shared.ROBERTA_DEFAULTS | {
    "vocab_size": 50267, "entity_vocab_size": 500000, "entity_emb_size": 256, "use_entity_aware_attention": True,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    # nothing of it meets a text without entities
    "entity_vocab_size": None, "entity_emb_size": None, "use_entity_aware_attention": None,
    "cls_entity_prediction": None, "is_decoder": (False,),
    "tie_word_embeddings": None,  # files hold the head's matrix beside the embedding
}  # fmt: skip

BASE = "luke."
ENTITIES = Unused("for entities, which are not read", kept=True)
WEIGHTS: dict[str, Entry] = (
    {"lm_head.decoder.{p}": "lm_head.out.{p}"}
    | under(BASE, roberta.WEIGHTS, roberta.BASE)
    | {
        "luke.entity_embeddings.*": ENTITIES,
        "entity_predictions.*": ENTITIES,
        **{f"luke.encoder.layer.{{i}}.attention.self.{n}_query.{{p}}": ENTITIES for n in ("w2e", "e2w", "e2e")},
    }
)
HEADS = idle("luke.pooler.dense", "masked-lm")


def spec(c: Config) -> Spec:
    found = heads(c, lm_head(c, act="gelu", tied=False))
    return encoder(c, "luke", embed=embedding(c, positions=counted(c)), heads=found)
