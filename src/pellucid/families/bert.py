"""BERT. Paper: arXiv 1810.04805."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._encoder import BERT, CLS, USUAL, classes, encoder, heads, lm_head
from pellucid.families._gguf import DECODER, KEYS, Gguf
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
    KEYS | {"layer_norm_eps": "attention.layer_norm_epsilon"},
    {
        "token_embd.weight": "embed.tokens.weight", "position_embd.weight": "embed.positions.weight",
        "token_types.weight": "embed.types.weight", "token_embd_norm.{p}": "embed.norm.{p}",
        **{name: slot for name, slot in DECODER.items() if name.startswith(("blk.{i}.attn_", "blk.{i}.ffn_"))},
        "blk.{i}.attn_output_norm.{p}": "blocks.{i}.attn_norm.{p}",
        "blk.{i}.layer_output_norm.{p}": "blocks.{i}.mlp_norm.{p}",
    },
    more=lambda said: {"type_vocab_size": said.rows("token_types.weight")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    return encoder(c, "bert", heads=heads(c, lm_head(c)))
