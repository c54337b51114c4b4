"""Fuyu: its text part, a Persimmon. Blog: adept.ai/blog/fuyu-8b."""

from pellucid.config import Config
from pellucid.families import persimmon
from pellucid.families._text import text_config, text_part, text_table
from pellucid.spec import Spec
from pellucid.weights.table import Entry

CLASSES = {None: "FuyuModel", "causal-lm": "FuyuForCausalLM"}
DEFAULTS = {"text_config": None, "tie_word_embeddings": False}
IGNORED = {"image_size": None, "patch_size": None, "num_channels": None, "image_token_id": None}  # of the eyes


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    names = persimmon.WEIGHTS(text_config(c, persimmon))
    return text_table(names, "language_model.model.", "language_model.", ["vision_embed_tokens"])


def spec(c: Config) -> Spec:
    return text_part(c, persimmon, "fuyu")
