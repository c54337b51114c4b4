"""UltraVBERT: its text part, an UltraBERT."""

from pellucid.config import Config
from pellucid.families import ultrabert
from pellucid.families._encoder import classes
from pellucid.families.modernvbert import IGNORED as IGNORED
from pellucid.families.modernvbert import seeing
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("UltraVBert", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "text_config": None, "vision_config": None, "image_token_id": 49191, "pixel_shuffle_factor": 4,
    "classifier_pooling": "cls", "classifier_dropout": 0.0, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = {
    **{
        name.replace("model.", "model.text_model.", 1): entry
        for name, entry in ultrabert.WEIGHTS.items() if name.startswith("model.")
    },
    "head.linear1.weight": "lm_head.transform.inner.weight",
    "head.linear2.weight": "lm_head.transform.dense.weight",
    "head.decoder.weight": "lm_head.out.weight",
    "classifier.{p}": "classifier.out.{p}",
    "model.vision_model.*": Unused("reads pictures, not text", kept=True),
    "model.connector.*": Unused("reads pictures, not text", kept=True),
}  # fmt: skip


def spec(c: Config) -> Spec:
    return seeing(c, ultrabert, "ultravbert")
