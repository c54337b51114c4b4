"""Llama 4 as released, with eyes: its text part. ai.meta.com/blog/llama-4-multimodal-intelligence."""

from pellucid.config import Config
from pellucid.families import llama4_text
from pellucid.families._text import text_config, text_part, text_table
from pellucid.spec import Spec
from pellucid.weights.table import Entry

CLASSES = {"causal-lm": "Llama4ForConditionalGeneration", None: "Llama4ForConditionalGeneration"}
DEFAULTS = {
    "text_config": None, "vision_config": None, "boi_token_index": 200080, "eoi_token_index": 200081,
    "image_token_index": 200092, "tie_word_embeddings": False,
}  # fmt: skip
ALIASES = {
    "image_token_id": "image_token_index", "boi_token_id": "boi_token_index", "eoi_token_id": "eoi_token_index",
}  # fmt: skip
IGNORED = {  # of the eyes
    "vision_config": None, "boi_token_index": None, "eoi_token_index": None, "image_token_index": None,
}  # fmt: skip

BASE = "language_model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    table = llama4_text.WEIGHTS(text_config(c, llama4_text))
    return text_table(table, "language_model.model.", "language_model.", ["vision_model", "multi_modal_projector"])


def spec(c: Config) -> Spec:
    return text_part(c, llama4_text, "llama4")
