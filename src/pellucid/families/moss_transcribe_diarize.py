"""MOSS Transcribe Diarize: its text part, a Qwen 3. Paper: arXiv 2601.01554."""

from pellucid.config import Config
from pellucid.families import qwen3
from pellucid.families._text import text_part, text_table
from pellucid.spec import Spec

CLASSES = {None: "MossTranscribeDiarizeModel", "causal-lm": "MossTranscribeDiarizeForConditionalGeneration"}
DEFAULTS = {
    "text_config": None, "audio_config": None, "audio_token_id": 151671, "projector_hidden_act": "silu",
    "projector_bias": True, "audio_merge_size": 4, "audio_chunk_size": 480000, "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {  # of the ears
    "audio_config": None, "audio_token_id": None, "projector_hidden_act": None, "projector_bias": None,
    "audio_merge_size": None, "audio_chunk_size": None,
}  # fmt: skip
TEXT = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 1000000.0,
}  # fmt: skip

BASE = "model."
WEIGHTS = text_table(qwen3.WEIGHTS, "model.language_model.", "", ["model.audio_tower", "model.multi_modal_projector"])


def spec(c: Config) -> Spec:
    return text_part(c, qwen3, "moss_transcribe_diarize", TEXT)
