"""Gemma 3 as released with eyes: its text part. Paper: arXiv 2503.19786."""

from pellucid.config import Config
from pellucid.families import gemma3_text
from pellucid.families._text import text_part, text_table
from pellucid.spec import Spec

CLASSES = {
    None: "Gemma3Model", "causal-lm": "Gemma3ForConditionalGeneration",
    "sequence-classification": "Gemma3ForSequenceClassification",
}  # fmt: skip
DEFAULTS = {
    "text_config": None, "vision_config": None, "mm_tokens_per_image": 256, "boi_token_index": 255999,
    "eoi_token_index": 256000, "image_token_index": 262144, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "image_token_id": "image_token_index", "boi_token_id": "boi_token_index", "eoi_token_id": "eoi_token_index",
}  # fmt: skip
IGNORED = {  # of the eyes
    "vision_config": None, "mm_tokens_per_image": None, "boi_token_index": None, "eoi_token_index": None,
    "image_token_index": None,
}  # fmt: skip

BASE = ""
WEIGHTS = text_table(
    gemma3_text.WEIGHTS, "language_model.model.", "language_model.", ["vision_tower", "multi_modal_projector"]
)


def spec(c: Config) -> Spec:
    return text_part(c, gemma3_text, "gemma3")
