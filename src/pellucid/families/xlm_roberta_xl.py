"""XLM-RoBERTa XL: norms before the layers, none in the embedding. Paper: arXiv 2105.00572."""

from pellucid.config import Config
from pellucid.families import roberta
from pellucid.families._encoder import USUAL, classes, counted, embedding, layer_norm
from pellucid.spec import PreNorm, Spec

CLASSES = classes("XLMRobertaXL", *USUAL, "causal-lm", pretraining="masked-lm", encoding=True)
DEFAULTS = roberta.DEFAULTS | {
    "vocab_size": 250880, "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
    "intermediate_size": 10240, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
}  # fmt: skip
IGNORED = roberta.IGNORED

BASE = roberta.BASE
WEIGHTS = {
    "roberta.encoder.layer.{i}.attention.self_attn_layer_norm.{p}": "blocks.{i}.attn_norm.{p}",
    "roberta.encoder.layer.{i}.LayerNorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "roberta.encoder.LayerNorm.{p}": "norm.{p}",
} | roberta.WEIGHTS
HEADS = roberta.HEADS


def spec(c: Config) -> Spec:
    norm, embed = layer_norm(c), embedding(c, positions=counted(c), norm=None)
    return roberta.roberta(c, "xlm_roberta_xl", order=PreNorm(norm=norm), norm=norm, embed=embed)
