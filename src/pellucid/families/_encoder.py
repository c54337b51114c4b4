"""What encoders of the BERT school have in common: tables by prefix, and readers that turn config keys into parts.

A family calls these with what is its own:

    WEIGHTS = under("electra.", BERT, "bert.") | HEAD_WEIGHTS
    return encoder(c, "roberta", embed=embedding(c, positions=counted(c)), lm=roberta_head(c), pool="first")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import classes as classes_of
from pellucid.families._read import activation, read_rope
from pellucid.spec import (
    Activation,
    Attention,
    Block,
    ChoiceHead,
    Custom,
    Dense,
    Embed,
    Head,
    LayerNorm,
    LearnedPositions,
    LmHead,
    Mlp,
    Order,
    PairHead,
    Pool,
    Pooling,
    Positions,
    PostNorm,
    PretrainingHead,
    Projection,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    Task,
    TokenHead,
    Transform,
)
from pellucid.weights.table import Entry, Recomputed, Unused

# What the reference gives to most encoders.
USUAL: tuple[Task, ...] = (
    "masked-lm", "sequence-classification", "token-classification", "question-answering", "multiple-choice",
)  # fmt: skip


def classes(stem: str, *tasks: Task, pretraining: Task | None = None, encoding: bool = False) -> dict[Task | None, str]:
    """The reference's class names for a family.

    Args:
        pretraining: the task whose class stands for pretraining too.
        encoding: the base class stands for text encoding too.
    """
    found = classes_of(stem, *tasks)
    if pretraining is not None:
        found["pretraining"] = found[pretraining]
    return found | ({"text-encoding": found[None]} if encoding else {})


DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    "bos_token_id": None, "eos_token_id": None, "classifier_dropout": None, "is_decoder": False,
    "tie_word_embeddings": True,
}  # fmt: skip
ROBERTA_DEFAULTS = DEFAULTS | {"vocab_size": 50265, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
IGNORED: dict[str, tuple[Any, ...] | None] = {
    "position_embedding_type": ("absolute",),
    "add_cross_attention": (False,),
}

# ------------------------------------------------------------------------------------------------ tables

EMBEDDINGS: dict[str, Entry] = {
    "bert.embeddings.word_embeddings.weight": "embed.tokens.weight",
    "bert.embeddings.position_embeddings.weight": "embed.positions.weight",
    "bert.embeddings.token_type_embeddings.weight": "embed.types.weight",
    "bert.embeddings.LayerNorm.{p}": "embed.norm.{p}",
    "bert.embeddings.position_ids": Recomputed("position ids"),
}
LAYERS: dict[str, Entry] = {
    "bert.encoder.layer.{i}.attention.self.query.{p}": "blocks.{i}.attn.q.{p}",
    "bert.encoder.layer.{i}.attention.self.key.{p}": "blocks.{i}.attn.k.{p}",
    "bert.encoder.layer.{i}.attention.self.value.{p}": "blocks.{i}.attn.v.{p}",
    "bert.encoder.layer.{i}.attention.output.dense.{p}": "blocks.{i}.attn.o.{p}",
    "bert.encoder.layer.{i}.attention.output.LayerNorm.{p}": "blocks.{i}.attn_norm.{p}",
    "bert.encoder.layer.{i}.intermediate.dense.{p}": "blocks.{i}.mlp.up.{p}",
    "bert.encoder.layer.{i}.output.dense.{p}": "blocks.{i}.mlp.down.{p}",
    "bert.encoder.layer.{i}.output.LayerNorm.{p}": "blocks.{i}.mlp_norm.{p}",
}
BERT: dict[str, Entry] = EMBEDDINGS | LAYERS | {"bert.pooler.dense.{p}": "pooler.dense.{p}"}

LABELS: dict[str, Entry] = {"classifier.{p}": "classifier.out.{p}", "qa_outputs.{p}": "span.out.{p}"}
CLS: dict[str, Entry] = LABELS | {
    "cls.predictions.transform.dense.{p}": "lm_head.transform.dense.{p}",
    "cls.predictions.transform.LayerNorm.{p}": "lm_head.transform.norm.{p}",
    "cls.predictions.decoder.weight": "lm_head.out.weight",
    "cls.predictions.bias": "lm_head.out.bias",
    "cls.predictions.decoder.bias": "lm_head.out.bias",
    "cls.seq_relationship.{p}": "next_sentence.out.{p}",
}
ROBERTA: dict[str, Entry] = LABELS | {
    "lm_head.dense.{p}": "lm_head.transform.dense.{p}",
    "lm_head.layer_norm.{p}": "lm_head.transform.norm.{p}",
    "lm_head.decoder.weight": "lm_head.out.weight",
    "lm_head.bias": "lm_head.out.bias",
    "lm_head.decoder.bias": "lm_head.out.bias",
}
# Where the classifier of sequences has a hidden layer, and that of tokens has none.
HIDDEN: dict[Task | None, dict[str, Entry]] = {
    "sequence-classification": {
        "classifier.dense.{p}": "classifier.dense.{p}",
        "classifier.out_proj.{p}": "classifier.out.{p}",
    },
}


def idle(pooler: str, *tasks: Task) -> dict[Task | None, dict[str, Entry]]:
    """For a family's HEADS: tasks whose files hold a pooler that they do not read."""
    names: dict[str, Entry] = {f"{pooler}.{{p}}": Unused("a pooler that this task does not read", kept=True)}
    return dict.fromkeys(tasks, names)


# ------------------------------------------------------------------------------------------------ parts


def layer_norm(c: Config) -> LayerNorm:
    return LayerNorm(eps=c.number("layer_norm_eps", float))


def head_size(c: Config) -> tuple[int, int]:
    """Heads, and the channels of one."""
    width, heads = c.size("hidden_size"), c.size("num_attention_heads")
    if width % heads:
        what = f"hidden_size={width} is no multiple of num_attention_heads={heads}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    return heads, width // heads


def attention(c: Config, **options: Any) -> Attention:
    """Attention in both directions, or causal where the config makes the model a decoder."""
    heads, head_dim = head_size(c)
    usual: dict[str, Any] = {"causal": bool(c.get("is_decoder")), "biases": "qkvo"}
    return Attention(
        heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5,
        dropout=c.share("attention_probs_dropout_prob"), **usual | options,
    )  # fmt: skip


def mlp(c: Config) -> Mlp:
    return Mlp(hidden=c.size("intermediate_size"), act=activation(c.hidden_act, c), gated=False, bias=True)


def block(c: Config, attn: Attention | Custom, ffn: Mlp | Custom | None = None) -> Block:
    """BERT's block around another mixer, or another feed-forward part."""
    order = PostNorm(norm=layer_norm(c))
    return Block(attn=attn, mlp=ffn or mlp(c), order=order, dropout=c.share("hidden_dropout_prob"))


def counted(c: Config) -> LearnedPositions:
    """RoBERTa's positions: pads do not count, and rows begin behind theirs."""
    pad = c.number("pad_token_id")
    return LearnedPositions(rows=c.number("max_position_embeddings", least=pad + 2), offset=pad + 1, skip=pad)


def embedding(c: Config, **options: Any) -> Embed:
    """Tokens, types and learned positions, then a norm; `options` say what differs."""
    if "positions" not in options:
        options["positions"] = LearnedPositions(rows=c.size("max_position_embeddings"))
    if "token_types" not in options:
        options["token_types"] = c.number("type_vocab_size")
    if "norm" not in options:
        options["norm"] = layer_norm(c)
    if "projection" not in options and options.get("width", c.hidden_size) != c.hidden_size:
        options["projection"] = Projection()
    return Embed(vocab=c.size("vocab_size"), dropout=c.share("hidden_dropout_prob"), **options)


# ------------------------------------------------------------------------------------------------ heads


def lm_head(c: Config, *, tied: bool | None = None, **options: Any) -> LmHead:
    """Dense, the stack's activation and norm, vocabulary; `options` say what differs in the transform.

    Args:
        tied: as the config says, if not given.
    """
    if "act" not in options:
        options["act"] = activation(c.hidden_act, c)
    if "norm" not in options:
        options["norm"] = layer_norm(c)
    return LmHead(
        tied=c.tie_word_embeddings if tied is None else tied, bias=True, transform=Transform(**options)
    )  # fmt: skip


def before_labels(c: Config) -> float:
    """The dropout before a classifier: under either of its names, or the stack's."""
    key = "classifier_dropout_prob" if "classifier_dropout_prob" in c.to_dict() else "classifier_dropout"
    return float(c.share(key, null=c.share("hidden_dropout_prob")))


def heads(c: Config, lm: LmHead, *, hidden: Dense | None = None, pool: Pool = "pooler") -> dict[Task, Head]:
    """What BERT's classes add; those that the family's CLASSES do not name are dropped (`Family.spec`).

    Args:
        hidden, pool: of the classifier of sequences; RoBERTa has a hidden layer on the first token.
    """
    labels, drop = c.size("num_labels"), before_labels(c)
    found: dict[Task, Head] = {
        "masked-lm": lm,
        "sequence-classification": SequenceHead(labels=labels, pool=pool, hidden=hidden, dropout=drop),
        "token-classification": TokenHead(labels=labels, dropout=drop),
        "question-answering": SpanHead(),
        "multiple-choice": ChoiceHead(pool="pooler", dropout=drop),
        "next-sentence": PairHead(),
        "pretraining": PretrainingHead(lm=lm, pair=PairHead()),
    }
    return found | ({"causal-lm": lm} if c.get("is_decoder") else {})


def encoder(
    c: Config,
    family: str,
    blocks: Sequence[Block | Custom] | None = None,
    *,
    embed: Embed | None = None,
    order: Order | None = None,
    heads: Mapping[Task, Head],
    pooler: Activation | Pooling | None = "tanh",
    context: int | None = None,
    **stack: Any,
) -> Spec:
    """An encoder: BERT's embedding and blocks, if not given.

    Args:
        order: of BERT's blocks, where it is another.
        context: most tokens of a text; as many as the table of positions holds, if not given.
        stack: further fields of `spec.Stack`.
    """
    embed = embed or embedding(c)
    if blocks is None:
        order = order or PostNorm(norm=layer_norm(c))
        block = Block(attn=attention(c), mlp=mlp(c), order=order, dropout=embed.dropout)
        blocks = [block] * c.layers("num_hidden_layers")
    whole = Stack(**{"width": c.size("hidden_size"), "embed": embed, "blocks": tuple(blocks), "norm": None} | stack)
    return Spec(
        family=family, stack=whole, pooler=pooler, heads=heads, context=context or room(embed.positions)
    )  # fmt: skip


def rotary_encoder(
    c: Config,
    family: str,
    mlp: Mlp,
    lm: LmHead,
    *,
    biases: str = "qkvo",
    hidden: Dense | None = None,
    pool: Pool = "pooler",
    pooler: Activation | Pooling = "tanh",
) -> Spec:
    """BERT with rotary positions in the place of its table."""
    _, head_dim = head_size(c)
    given = c.size("head_dim", null=head_dim)
    if given != head_dim:
        raise ConfigError(f"head_dim={given} is not {head_dim}", where=c.where, next="leave it out")
    embed = embedding(c, positions=None, token_types=c.number("type_vocab_size"))
    attn = attention(c, rope=read_rope(c, head_dim), biases=biases)
    block = Block(attn=attn, mlp=mlp, order=PostNorm(norm=layer_norm(c)), dropout=embed.dropout)
    return encoder(
        c, family, [block] * c.layers("num_hidden_layers"), embed=embed, heads=heads(c, lm, hidden=hidden, pool=pool),
        pooler=pooler, context=c.size("max_position_embeddings"),
    )  # fmt: skip


def room(positions: Positions | None) -> int | None:
    """Tokens that a table of positions holds."""
    return positions.rows - positions.offset if isinstance(positions, LearnedPositions) else None
