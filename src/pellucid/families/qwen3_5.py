"""Qwen 3.5 as released with eyes: its text part. qwen.ai/blog?id=qwen3.5."""

from pellucid.config import Config
from pellucid.families import qwen3_5_text
from pellucid.families._text import text_config, text_part, text_table
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Unused

CLASSES = {
    None: "Qwen3_5Model", "causal-lm": "Qwen3_5ForConditionalGeneration",
    "sequence-classification": "Qwen3_5ForSequenceClassification",
    "token-classification": "Qwen3_5ForTokenClassification",
}  # fmt: skip
DEFAULTS = {
    "text_config": None, "vision_config": None, "image_token_id": 248056, "video_token_id": 248057,
    "vision_start_token_id": 248053, "vision_end_token_id": 248054, "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = {key: None for key in DEFAULTS if key not in ("text_config", "tie_word_embeddings")}  # of the eyes

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    table = qwen3_5_text.WEIGHTS(text_config(c, qwen3_5_text))
    mtp: dict[str, Entry] = {"mtp.*": Unused("predicts several tokens")}
    return text_table(table, "model.language_model.", "", ["model.visual"]) | mtp


def spec(c: Config) -> Spec:
    return text_part(c, qwen3_5_text, "qwen3_5")
