"""Megatron's BERT: norms before the layers, none in the embedding. Paper: arXiv 1909.08053."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._encoder import BERT, CLS, USUAL, classes, embedding, encoder, heads, layer_norm, lm_head
from pellucid.spec import PreNorm, Spec

CLASSES = classes("MegatronBert", *USUAL, "causal-lm", "next-sentence", "pretraining")
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 29056, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096,
}  # fmt: skip
IGNORED = shared.IGNORED

BASE = "bert."
WEIGHTS = (
    {
        "bert.encoder.layer.{i}.attention.ln.{p}": "blocks.{i}.attn_norm.{p}",
        "bert.encoder.layer.{i}.ln.{p}": "blocks.{i}.mlp_norm.{p}",
        "bert.encoder.ln.{p}": "norm.{p}",
    }
    | BERT
    | CLS
)


def spec(c: Config) -> Spec:
    norm = layer_norm(c)
    found = heads(c, lm_head(c))
    return encoder(c, "megatron_bert", order=PreNorm(norm=norm), norm=norm, embed=embedding(c, norm=None), heads=found)
