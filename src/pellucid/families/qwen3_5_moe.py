"""Qwen 3.5 with experts, as released with eyes: its text part. qwen.ai/blog?id=qwen3.5."""

from pellucid.config import Config
from pellucid.families import qwen3_5_moe_text
from pellucid.families._text import text_config, text_part, text_table
from pellucid.families.qwen3_5 import DEFAULTS as DEFAULTS
from pellucid.families.qwen3_5 import IGNORED as IGNORED
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Unused

CLASSES = {None: "Qwen3_5MoeModel", "causal-lm": "Qwen3_5MoeForConditionalGeneration"}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    table = qwen3_5_moe_text.WEIGHTS(text_config(c, qwen3_5_moe_text))
    mtp: dict[str, Entry] = {"mtp.*": Unused("predicts several tokens")}
    return text_table(table, "model.language_model.", "", ["model.visual"]) | mtp


def spec(c: Config) -> Spec:
    return text_part(c, qwen3_5_moe_text, "qwen3_5_moe")
