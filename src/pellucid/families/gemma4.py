"""Gemma 4 as released, with eyes and ears: its text part. Blog: ai.google.dev/gemma."""

from pellucid.config import Config
from pellucid.families import gemma4_text
from pellucid.families._text import text_config, text_part, text_table
from pellucid.spec import Spec
from pellucid.weights.table import Entry

CLASSES = {None: "Gemma4Model", "causal-lm": "Gemma4ForConditionalGeneration"}
DEFAULTS = {
    "text_config": None, "vision_config": None, "audio_config": None, "boi_token_id": 255999, "eoi_token_id": 258882,
    "image_token_id": 258880, "video_token_id": 258884, "boa_token_id": 256000, "eoa_token_index": 258883,
    "audio_token_id": 258881, "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {  # of the eyes and ears
    "vision_config": None, "audio_config": None, "boi_token_id": None, "eoi_token_id": None, "image_token_id": None,
    "video_token_id": None, "boa_token_id": None, "eoa_token_index": None, "audio_token_id": None,
}  # fmt: skip

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    table = gemma4_text.WEIGHTS(text_config(c, gemma4_text))
    others = ["model.vision_tower", "model.audio_tower", "model.embed_vision", "model.embed_audio"]
    return text_table(table, "model.language_model.", "", others)


def spec(c: Config) -> Spec:
    return text_part(c, gemma4_text, "gemma4")
