"""Emu3: its text part, which also writes the tokens of pictures. Paper: arXiv 2409.18869."""

from pellucid.config import Config
from pellucid.families import emu3_text_model
from pellucid.families._text import text_part, text_table
from pellucid.spec import Spec

CLASSES = {None: "Emu3Model", "causal-lm": "Emu3ForConditionalGeneration"}
DEFAULTS = {"text_config": None, "vq_config": None, "vocabulary_map": None, "tie_word_embeddings": False}
IGNORED = {"vq_config": None, "vocabulary_map": None, "image_token_id": None}  # of the eyes

WEIGHTS = text_table(emu3_text_model.WEIGHTS, "text_model.model.", "text_model.", ["vqmodel"])


def spec(c: Config) -> Spec:
    return text_part(c, emu3_text_model, "emu3")
