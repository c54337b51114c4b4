"""Qwen2-VL as released, with eyes: its text part. Paper: arXiv 2409.12191."""

from pellucid.config import Config
from pellucid.families import _gguf, qwen2_vl_text
from pellucid.families._decoder import under
from pellucid.families._text import text_part
from pellucid.spec import Spec
from pellucid.weights.table import Unused

CLASSES = {None: "Qwen2VLModel", "causal-lm": "Qwen2VLForConditionalGeneration"}
DEFAULTS = {
    "text_config": None, "vision_config": None, "image_token_id": 151655, "video_token_id": 151656,
    "vision_start_token_id": 151652, "vision_end_token_id": 151653, "tie_word_embeddings": False,
}  # fmt: skip
OUTER = {*DEFAULTS, "vision_token_id", "tokens_per_second"}
IGNORED = dict.fromkeys(OUTER - {"text_config", "tie_word_embeddings"})  # of the eyes

BASE = ""
WEIGHTS = qwen2_vl_text.WEIGHTS | {"visual.*": Unused("a part that reads something else than text", kept=True)}
HEADS = {None: under("language_model.", qwen2_vl_text.WEIGHTS)}  # how transformers 5 writes a model without a head

GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS, _gguf.DECODER, more=_gguf.axes, inside="text_config",
)  # fmt: skip


def spec(c: Config) -> Spec:
    return text_part(c, qwen2_vl_text, "qwen2_vl", OUTER)
