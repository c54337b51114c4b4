"""DistilBERT. Paper: arXiv 1910.01108."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.families import bert
from pellucid.families._encoder import LABELS, USUAL, attention, classes, embedding, encoder, heads, lm_head, mlp
from pellucid.spec import Block, ChoiceHead, Dense, LayerNorm, PostNorm, SequenceHead, SpanHead, Spec
from pellucid.weights.table import Entry, Recomputed

CLASSES = classes("DistilBert", *USUAL, pretraining="masked-lm", encoding=True)
DEFAULTS = {
    "vocab_size": 30522, "max_position_embeddings": 512, "n_layers": 6, "n_heads": 12, "dim": 768, "hidden_dim": 3072,
    "dropout": 0.1, "attention_dropout": 0.1, "activation": "gelu", "qa_dropout": 0.1, "seq_classif_dropout": 0.2,
    "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
    "intermediate_size": "hidden_dim", "hidden_act": "activation", "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}  # fmt: skip
IGNORED = {"sinusoidal_pos_embds": None}  # how the table of positions began

BASE = "distilbert."
WEIGHTS: dict[str, Entry] = LABELS | {
    "distilbert.embeddings.word_embeddings.weight": "embed.tokens.weight",
    "distilbert.embeddings.position_embeddings.weight": "embed.positions.weight",
    "distilbert.embeddings.LayerNorm.{p}": "embed.norm.{p}",
    "distilbert.embeddings.position_ids": Recomputed("position ids"),
    "distilbert.transformer.layer.{i}.attention.q_lin.{p}": "blocks.{i}.attn.q.{p}",
    "distilbert.transformer.layer.{i}.attention.k_lin.{p}": "blocks.{i}.attn.k.{p}",
    "distilbert.transformer.layer.{i}.attention.v_lin.{p}": "blocks.{i}.attn.v.{p}",
    "distilbert.transformer.layer.{i}.attention.out_lin.{p}": "blocks.{i}.attn.o.{p}",
    "distilbert.transformer.layer.{i}.sa_layer_norm.{p}": "blocks.{i}.attn_norm.{p}",
    "distilbert.transformer.layer.{i}.ffn.lin1.{p}": "blocks.{i}.mlp.up.{p}",
    "distilbert.transformer.layer.{i}.ffn.lin2.{p}": "blocks.{i}.mlp.down.{p}",
    "distilbert.transformer.layer.{i}.output_layer_norm.{p}": "blocks.{i}.mlp_norm.{p}",
    "vocab_transform.{p}": "lm_head.transform.dense.{p}",
    "vocab_layer_norm.{p}": "lm_head.transform.norm.{p}",
    "vocab_projector.{p}": "lm_head.out.{p}",
    "pre_classifier.{p}": "classifier.dense.{p}",
}


def named(c: Config) -> dict[str, Any]:
    """As BERT, without token types."""
    return {key: c.to_dict()[own] for key, own in ALIASES.items() if own in c.to_dict()} | {
        "vocab_size": c.vocab_size, "max_position_embeddings": c.max_position_embeddings, "type_vocab_size": 0,
        "layer_norm_eps": 1e-12,
    }  # fmt: skip


GGUF = replace(bert.GGUF, alike=named)


def spec(c: Config) -> Spec:
    norm = LayerNorm(eps=1e-12)
    embed = embedding(c, token_types=0, norm=norm)
    block = Block(attn=attention(c), mlp=mlp(c), order=PostNorm(norm=norm), dropout=embed.dropout)
    hidden, drop = Dense(act="relu", drop_first=False), c.share("seq_classif_dropout")
    found = heads(c, lm_head(c, norm=norm)) | {
        "sequence-classification": SequenceHead(labels=c.size("num_labels"), pool="first", hidden=hidden, dropout=drop),
        "multiple-choice": ChoiceHead(pool="first", hidden=hidden, dropout=drop),
        "question-answering": SpanHead(dropout=c.share("qa_dropout")),
    }
    return encoder(c, "distilbert", [block] * c.layers("n_layers"), embed=embed, heads=found, pooler=None)
