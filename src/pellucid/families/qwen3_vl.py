"""Qwen3-VL as released, with eyes: its text part. Paper: arXiv 2511.21631."""

from pellucid.config import Config
from pellucid.families import _gguf, qwen3_vl_text
from pellucid.families._text import text_part, text_table
from pellucid.spec import Spec

CLASSES = {None: "Qwen3VLModel", "causal-lm": "Qwen3VLForConditionalGeneration"}
DEFAULTS = {
    "text_config": None, "vision_config": None, "image_token_id": 151655, "video_token_id": 151656,
    "vision_start_token_id": 151652, "vision_end_token_id": 151653, "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = dict.fromkeys(key for key in DEFAULTS if key not in ("text_config", "tie_word_embeddings"))  # of the eyes

BASE = "model."
WEIGHTS = text_table(qwen3_vl_text.WEIGHTS, "model.language_model.", "", ["model.visual"])

GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS | _gguf.HEAD_DIM, _gguf.DECODER, more=_gguf.axes, inside="text_config",
    says=lambda c, spec: {"n_deepstack_layers": len((c.vision_config or {}).get("deepstack_visual_indexes", []))},
)  # fmt: skip


def spec(c: Config) -> Spec:
    return text_part(c, qwen3_vl_text, "qwen3_vl")
