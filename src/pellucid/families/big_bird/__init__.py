"""BigBird. Paper: arXiv 2007.14062."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._encoder import (
    BERT,
    CLS,
    HIDDEN,
    USUAL,
    attention,
    block,
    classes,
    embedding,
    encoder,
    head_size,
    heads,
    idle,
    layer_norm,
    lm_head,
    mlp,
)
from pellucid.families._read import activation
from pellucid.spec import Attention, Custom, Dense, Head, Spec, Task

CLASSES = classes("BigBird", *USUAL, "causal-lm", "pretraining", encoding=True)
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 50358, "hidden_act": "gelu_new", "max_position_embeddings": 4096, "bos_token_id": 1,
    "eos_token_id": 2, "sep_token_id": 66, "attention_type": "block_sparse", "use_bias": True,
    "rescale_embeddings": False, "block_size": 64, "num_random_blocks": 3,
}  # fmt: skip
IGNORED = shared.IGNORED

BASE = "bert."
WEIGHTS = {"bert.pooler.{p}": "pooler.dense.{p}"} | BERT | CLS
HELD = idle("bert.pooler", "masked-lm", "causal-lm", "token-classification", "sequence-classification")
HEADS = HELD | {
    "sequence-classification": HELD["sequence-classification"] | HIDDEN["sequence-classification"],
    "question-answering": {
        "qa_classifier.intermediate.dense.{p}": "head.mlp.up.{p}",
        "qa_classifier.output.dense.{p}": "head.mlp.down.{p}",
        "qa_classifier.output.LayerNorm.{p}": "head.norm.{p}",
        "qa_classifier.qa_outputs.{p}": "head.out.{p}",
    },
}


def sparse(c: Config, heads: int, head_dim: int, dropout: float, biases: str) -> Custom | None:
    """The attention that leaves blocks out of long texts; None where the config wants all of it."""
    if c.attention_type not in ("block_sparse", "original_full"):
        what = f"attention_type={c.attention_type!r}"
        raise ConfigError(what, where=c.where, next="known are 'block_sparse' and 'original_full'")
    options = (
        ("heads", heads), ("head_dim", head_dim), ("block", c.size("block_size")),
        ("random", c.number("num_random_blocks")), ("biases", biases), ("dropout", dropout),
    )  # fmt: skip
    custom = Custom(path="pellucid.nn.sparse:BlockSparseAttention", options=options)
    return custom if c.attention_type == "block_sparse" else None


def spec(c: Config) -> Spec:
    biases = "qkvo" if c.use_bias else "o"
    attn: Attention | Custom | None = sparse(c, *head_size(c), c.share("attention_probs_dropout_prob"), biases)
    if attn is None or c.is_decoder:  # a decoder sees all that is behind it
        attn = attention(c, biases=biases)
    answers = (("mlp", mlp(c)), ("norm", layer_norm(c)), ("sep", c.sep_token_id), ("dropout", c.hidden_dropout_prob))
    found: dict[Task, Head] = heads(c, lm_head(c), hidden=Dense(act=activation(c.hidden_act, c)), pool="first")
    found["question-answering"] = Custom(path="pellucid.families.big_bird.answers:Answers", options=answers)
    scale = c.size("hidden_size") ** 0.5 if c.rescale_embeddings else None
    embed = embedding(c, scale=scale, question_end=c.sep_token_id)
    return encoder(c, "big_bird", [block(c, attn)] * c.layers("num_hidden_layers"), embed=embed, heads=found)
