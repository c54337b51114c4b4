"""BERT. Paper: arXiv 1810.04805."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._encoder import BERT, CLS, USUAL, classes, encoder, heads, lm_head
from pellucid.families._gguf import AROUND, KEYS, LAYER, Gguf
from pellucid.spec import Spec

CLASSES = classes("Bert", *USUAL, "next-sentence", "pretraining", encoding=True) | {"causal-lm": "BertLMHeadModel"}
DEFAULTS = shared.DEFAULTS
IGNORED = shared.IGNORED | {
    # written by Google for a pooler that no released code has
    "directionality": None, "pooler_fc_size": None, "pooler_num_attention_heads": None, "pooler_num_fc_layers": None,
    "pooler_size_per_head": None, "pooler_type": None,
}  # fmt: skip

BASE = "bert."
WEIGHTS = BERT | CLS
GGUF = Gguf(
    KEYS | LAYER,
    AROUND | {"position_embd.weight": "embed.positions.weight"},
    more=lambda said: {"type_vocab_size": said.rows("token_types.weight") or 0},  # DistilBERT has none
)  # fmt: skip


def spec(c: Config) -> Spec:
    return encoder(c, "bert", heads=heads(c, lm_head(c)))
