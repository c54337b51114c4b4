"""GOT-OCR 2: its text part, a Qwen 2. Paper: arXiv 2409.01704."""

from pellucid.config import Config
from pellucid.families import qwen2
from pellucid.families._text import text_part, text_table
from pellucid.spec import Spec

CLASSES = {None: "GotOcr2Model", "causal-lm": "GotOcr2ForConditionalGeneration"}
DEFAULTS = {
    "text_config": None, "vision_config": None, "image_token_index": 151859, "image_seq_length": 576,
    "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"image_token_id": "image_token_index"}
IGNORED = {"vision_config": None, "image_token_index": None, "image_seq_length": None}  # of the eyes
TEXT = {
    "vocab_size": 151860, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24,
    "num_attention_heads": 16, "num_key_value_heads": 16, "max_window_layers": 21, "rope_theta": 1000000.0,
}  # fmt: skip

WEIGHTS = text_table(
    qwen2.WEIGHTS, "language_model.model.", "language_model.", ["vision_tower", "multi_modal_projector"]
)


def spec(c: Config) -> Spec:
    return text_part(c, qwen2, "got_ocr2", TEXT)
