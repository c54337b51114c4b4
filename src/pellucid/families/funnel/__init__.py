"""Funnel Transformer. Paper: arXiv 2006.03236."""

from dataclasses import replace

from pellucid.config import MOST_LAYERS, Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import classes
from pellucid.families._read import activation
from pellucid.spec import (
    ChoiceHead,
    Custom,
    Dense,
    Embed,
    LayerNorm,
    LmHead,
    Mlp,
    PretrainingHead,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    Task,
    TokenHead,
)  # fmt: skip
from pellucid.weights.table import Entry, Folded, Transposed, Unused

CLASSES = classes(
    "Funnel", "masked-lm", "sequence-classification", "token-classification", "question-answering", "multiple-choice",
    "pretraining",
)  # fmt: skip
DEFAULTS = {
    "vocab_size": 30522, "block_sizes": [4, 4, 4], "block_repeats": None, "num_decoder_layers": 2, "d_model": 768,
    "n_head": 12, "d_head": 64, "d_inner": 3072, "hidden_act": "gelu_new", "hidden_dropout": 0.1,
    "attention_dropout": 0.1, "activation_dropout": 0.0, "initializer_std": None, "layer_norm_eps": 1e-9,
    "pooling_type": "mean", "attention_type": "relative_shift", "separate_cls": True, "truncate_seq": True,
    "pool_q_only": True, "pad_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"hidden_size": "d_model", "num_attention_heads": "n_head"}
IGNORED = {
    "attention_type": None,  # two ways to the same scores
    "initializer_std": None, "max_position_embeddings": None, "type_vocab_size": None, "rel_attn_type": None,
}  # fmt: skip

BASE = "funnel."


def layers(file: str, slot: str, heads: int) -> dict[str, Entry]:
    """The names of one layer."""
    return {
        **{f"{file}.attention.{x}_head.{{p}}": f"{slot}.attn.{x}.{{p}}" for x in "qkv"},
        f"{file}.attention.post_proj.{{p}}": f"{slot}.attn.o.{{p}}",
        f"{file}.attention.r_kernel": Folded(Transposed(f"{slot}.attn.relative.r.weight"), heads),
        f"{file}.attention.r_w_bias": f"{slot}.attn.relative.content",
        f"{file}.attention.r_r_bias": f"{slot}.attn.relative.place",
        f"{file}.attention.r_s_bias": f"{slot}.attn.relative.segment",
        f"{file}.attention.seg_embed": f"{slot}.attn.relative.segments",
        f"{file}.attention.layer_norm.{{p}}": f"{slot}.attn_norm.{{p}}",
        f"{file}.ffn.linear_1.{{p}}": f"{slot}.mlp.up.{{p}}",
        f"{file}.ffn.linear_2.{{p}}": f"{slot}.mlp.down.{{p}}",
        f"{file}.ffn.layer_norm.{{p}}": f"{slot}.mlp_norm.{{p}}",
    }


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    return {
        "funnel.embeddings.word_embeddings.weight": "embed.tokens.weight",
        "funnel.embeddings.layer_norm.{p}": "embed.norm.{p}",
        **layers("funnel.encoder.blocks.{i}.{e}", "body.stages.{i}.{e}", c.size("n_head")),
        **layers("funnel.decoder.layers.{i}", "body.decoder.{i}", c.size("n_head")),
        "lm_head.{p}": "lm_head.out.{p}",
        "classifier.{p}": "classifier.out.{p}",
        "qa_outputs.{p}": "span.out.{p}",
    }


# Whole texts are judged where they are shortest: these heads have no decoder, whatever the file has.
SHORT: dict[str, Entry] = {
    "funnel.decoder.*": Unused("the decoder, which this head does not need"),
    "classifier.linear_hidden.{p}": "classifier.dense.{p}",
    "classifier.linear_out.{p}": "classifier.out.{p}",
}
HEADS: dict[Task | None, dict[str, Entry]] = {
    "sequence-classification": SHORT,
    "multiple-choice": SHORT,
    "pretraining": {
        "discriminator_predictions.dense.{p}": "classifier.dense.{p}",
        "discriminator_predictions.dense_prediction.{p}": "classifier.out.{p}",
    },
}


def spec(c: Config) -> Spec:
    width, heads, head_dim = c.size("d_model"), c.size("n_head"), c.size("d_head")
    sizes, dropout, labels = counts(c, "block_sizes"), c.share("hidden_dropout"), c.size("num_labels")
    repeats = counts(c, "block_repeats") if c.block_repeats is not None else [1] * len(sizes)
    if len(repeats) != len(sizes) or width % 2 or c.pooling_type not in ("mean", "max"):
        what = f"block_sizes={sizes} with block_repeats={repeats}, d_model={width}, pooling_type={c.pooling_type!r}"
        raise ConfigError(what, where=c.where, next="as many repeats as blocks, an even d_model, and 'mean' or 'max'")
    act, norm = activation(c.hidden_act, c), LayerNorm(eps=c.number("layer_norm_eps", float))
    mlp = Mlp(hidden=c.size("d_inner"), act=act, gated=False, bias=True, dropout=c.share("activation_dropout"))

    def body(decoder: int | None) -> Custom:
        return Custom(path="pellucid.families.funnel.body:Funnel", options=(
            ("sizes", tuple(sizes)), ("repeats", tuple(repeats)), ("decoder", decoder), ("pooling", c.pooling_type),
            ("separate_cls", c.separate_cls), ("truncate", c.truncate_seq), ("pool_q_only", c.pool_q_only),
            ("heads", heads), ("head_dim", head_dim), ("mlp", mlp), ("norm", norm), ("dropout", dropout),
            ("attention_dropout", c.share("attention_dropout")),
        ))  # fmt: skip

    embed = Embed(vocab=c.size("vocab_size"), norm=norm, dropout=dropout)
    stack = Stack(
        width=width, embed=embed, blocks=(), norm=None, inputs=("token_type_ids",),
        body=body(c.number("num_decoder_layers", most=MOST_LAYERS)),
    )  # fmt: skip
    short = replace(stack, body=body(None))
    hidden = Dense(act="tanh", drop_first=False)
    return Spec(
        family="funnel",
        stack=stack,
        stacks={"sequence-classification": short, "multiple-choice": short},
        heads={
            "masked-lm": LmHead(tied=c.tie_word_embeddings, bias=True),
            "sequence-classification": SequenceHead(labels=labels, pool="first", hidden=hidden, dropout=dropout),
            "token-classification": TokenHead(labels=labels, dropout=dropout),
            "question-answering": SpanHead(),
            "multiple-choice": ChoiceHead(pool="first", hidden=hidden, dropout=dropout),
            "pretraining": PretrainingHead(
                lm=None, token=TokenHead(labels=1, hidden=Dense(act=act, drop_first=False))
            ),
        },
    )  # fmt: skip


def counts(c: Config, name: str) -> list[int]:
    """A key that is a list of how many."""
    found = c.get(name)
    if not isinstance(found, list) or not found or not all(type(n) is int and 1 <= n <= 4096 for n in found):
        raise ConfigError(f"{name}={found!r} is no list of counts", where=c.where, next="correct config.json")
    return found
