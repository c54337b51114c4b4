"""DeBERTa. Paper: arXiv 2006.03654."""

from collections.abc import Sequence

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, classes, embedding, head_size, layer_norm, lm_head, mlp
from pellucid.families._read import activation
from pellucid.spec import Block, ChoiceHead, Custom, Dense, LearnedPositions, Norm, PostNorm, SequenceHead, Spec
from pellucid.weights.table import Entry, Fused, Unused

CLASSES = classes("Deberta", "masked-lm", "sequence-classification", "token-classification", "question-answering")
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 50265, "type_vocab_size": 0, "layer_norm_eps": 1e-7, "relative_attention": False,
    "max_relative_positions": None, "position_biased_input": True, "pos_att_type": None, "pooler_hidden_act": "gelu",
    "legacy": True,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    "is_decoder": (False,),
    "talking_head": (False,),
    "legacy": None,  # under which names the head of the vocabulary is written
    "padding_idx": None,  # the row of the token table that is trained no further
    "pooler_dropout": None,  # the dropout of the classifier stands for it
}

BASE = "deberta."
HEAD: dict[str, Entry] = {
    "lm_predictions.lm_head.dense.{p}": "lm_head.transform.dense.{p}",
    "lm_predictions.lm_head.LayerNorm.{p}": "lm_head.transform.norm.{p}",
    "lm_predictions.lm_head.bias": "lm_head.out.bias",
}


def common(c: Config) -> dict[str, Entry]:
    """What both versions name alike. Published files name the head in the newer way, whatever `legacy` says."""
    found = (CLS | HEAD if c.legacy else HEAD | CLS) | {
        "deberta.encoder.rel_embeddings.weight": "relative_bias.weight",
        "pooler.dense.{p}": "classifier.dense.{p}",
        "mask_predictions.*": Unused("what told replaced tokens in pre-training"),
    }
    if not c.position_biased_input:
        found["deberta.embeddings.position_embeddings.weight"] = Unused("position_biased_input is false")
    if not c.tie_word_embeddings:
        found["cls.predictions.bias"] = Unused("the matrix has a bias of its own", kept=True)
    return found | {name: slot for name, slot in under(BASE, BERT, "bert.").items() if name not in found}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    attn = "deberta.encoder.layer.{i}.attention.self"
    own: dict[str, Entry] = {
        f"{attn}.in_proj.weight": Fused("blocks.{i}.attn.{}.weight", "qkv", groups=c.size("num_attention_heads")),
        f"{attn}.q_bias": "blocks.{i}.attn.q.bias",
        f"{attn}.v_bias": "blocks.{i}.attn.v.bias",
        f"{attn}.pos_proj.weight": "blocks.{i}.attn.pos_k.weight",
        f"{attn}.pos_q_proj.{{p}}": "blocks.{i}.attn.pos_q.{p}",
    }
    return own | common(c)


def disentangled(c: Config, *, biases: str, pos_k_bias: bool, shared: bool) -> Custom:
    """The attention of every layer."""
    (heads, head_dim), kinds = head_size(c), c.pos_att_type or []
    kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not all(kind in ("c2p", "p2c") for kind in kinds):
        raise ConfigError(f"pos_att_type={kinds!r}", where=c.where, next="known are c2p and p2c")
    options = (
        ("heads", heads), ("head_dim", head_dim), ("parts", 1 + len(kinds)), ("biases", biases), ("shared", shared),
        ("kinds", tuple(kinds) if c.relative_attention else ()), ("pos_k_bias", pos_k_bias),
        ("dropout", c.share("attention_probs_dropout_prob")), ("pos_dropout", c.share("hidden_dropout_prob")),
    )  # fmt: skip
    return Custom(path="pellucid.nn.disentangled:Disentangled", options=options)


def distances(c: Config, *, buckets: int = 0, norm: Norm | None = None) -> Custom | None:
    """The table that all layers share; with `buckets`, distances beyond half of them share rows."""
    given = c.number("max_relative_positions", least=-1, null=-1)
    farthest = given if given > 0 else c.size("max_position_embeddings")
    if buckets and not 4 <= buckets < 2 * (farthest - 1):
        what = f"position_buckets={buckets} for distances up to {farthest}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    options = (
        ("width", c.size("hidden_size")), ("span", buckets or farthest), ("farthest", farthest if buckets else None),
        ("norm", norm),
    )  # fmt: skip
    return Custom(path="pellucid.nn.disentangled:Distances", options=options) if c.relative_attention else None


def block(c: Config, attn: Custom) -> Block:
    return Block(attn=attn, mlp=mlp(c), order=PostNorm(norm=layer_norm(c)), dropout=c.share("hidden_dropout_prob"))


def encoder(c: Config, family: str, blocks: Sequence[Block | Custom], bias: Custom | None) -> Spec:
    width, rows = c.size("hidden_size"), c.size("max_position_embeddings")
    for key in ("embedding_size", "pooler_hidden_size"):
        if c.get(key, width) != width:
            what = f"{key}={c.get(key)} beside hidden_size={width}"
            raise ConfigError(what, where=c.where, next="no published model has that; make them equal")
    positions = LearnedPositions(rows=rows) if c.position_biased_input else None
    embed = embedding(c, positions=positions, token_types=c.number("type_vocab_size"))
    pooled = Dense(act=activation(c.pooler_hidden_act, c), drop_first=False)
    last = c.share("cls_dropout", null=embed.dropout)
    found = shared.heads(c, lm_head(c)) | {
        "sequence-classification": SequenceHead(labels=c.size("num_labels"), pool="first", hidden=pooled, dropout=last),
        "multiple-choice": ChoiceHead(pool="first", hidden=pooled, dropout=last),
    }
    return shared.encoder(c, family, blocks, embed=embed, heads=found, pooler=None, context=rows, relative_bias=bias)


def spec(c: Config) -> Spec:
    attn = disentangled(c, biases="qvo", pos_k_bias=False, shared=False)
    return encoder(c, "deberta", [block(c, attn)] * c.layers("num_hidden_layers"), distances(c))
