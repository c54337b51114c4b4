"""What encoder-decoders of the BART school have in common (arXiv 1910.13461): one table, and readers of both sides.

A family says what is its own: the order of norms, the positions, whether the embedding has a norm.

    return encoder_decoder(c, "mbart", order=PRE, positions=learned(c, 2), embed_norm=NORM, start="last")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import classes
from pellucid.families._read import activation
from pellucid.spec import (
    Attention,
    Block,
    Custom,
    Dense,
    Embed,
    Head,
    LayerNorm,
    LearnedPositions,
    LmHead,
    Mlp,
    Moe,
    Norm,
    Order,
    Positions,
    PostNorm,
    PreNorm,
    SequenceHead,
    Sinusoidal,
    SpanHead,
    Spec,
    Stack,
    Task,
)
from pellucid.weights.table import Entry, Recomputed, Unused

Side = Literal["encoder", "decoder"]

LABELLED: tuple[Task, ...] = ("seq2seq-lm", "causal-lm", "sequence-classification", "question-answering")
WRITING: tuple[Task, ...] = ("seq2seq-lm", "causal-lm")


def both(stem: str, *tasks: Task) -> dict[Task | None, str]:
    """Class names; the seq2seq class stands for pretraining too."""
    found = classes(stem, *tasks)
    return found | {"pretraining": found["seq2seq-lm"]}


DEFAULTS: dict[str, Any] = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "encoder_layers": 12, "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16, "decoder_layers": 12, "decoder_ffn_dim": 4096, "decoder_attention_heads": 16,
    "activation_function": "gelu", "d_model": 1024, "dropout": 0.1, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "classifier_dropout": 0.0, "scale_embedding": False, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "is_encoder_decoder": True,
    "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "num_attention_heads": "encoder_attention_heads", "hidden_size": "d_model", "num_hidden_layers": "encoder_layers",
}  # fmt: skip
# What says how a model was trained; which side was saved; and what is the same in all files of a type.
IGNORED: dict[str, tuple[Any, ...] | None] = {
    "encoder_layerdrop": None, "decoder_layerdrop": None, "init_std": None, "is_decoder": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "classif_dropout": None, "add_bias_logits": None,
    "normalize_before": None, "normalize_embedding": None, "add_final_layer_norm": None,
    "static_position_embeddings": None, "extra_pos_embeddings": None, "gradient_checkpointing": None,
    "add_cross_attention": None, "force_bos_token_to_be_generated": None, "extra_layer_norm": (False,),
}  # fmt: skip

# ------------------------------------------------------------------------------------------------ tables


def layers(side: Side, at: str) -> dict[str, Entry]:
    """One side's layers and norms; `at` stands before its slots."""
    layer, block = f"model.{side}.layers.{{i}}", f"{at}blocks.{{i}}"
    attentions = {"self_attn": "attn"} | ({"encoder_attn": "cross"} if side == "decoder" else {})
    names: dict[str, Entry] = {
        f"{layer}.{theirs}.{x}_proj.{{p}}": f"{block}.{ours}.{x}.{{p}}"
        for theirs, ours in attentions.items()
        for x in "qkv"
    }
    for theirs, ours in attentions.items():
        names[f"{layer}.{theirs}.out_proj.{{p}}"] = f"{block}.{ours}.o.{{p}}"
        names[f"{layer}.{theirs}_layer_norm.{{p}}"] = f"{block}.{ours}_norm.{{p}}"
    return names | {
        f"{layer}.fc1.{{p}}": f"{block}.mlp.up.{{p}}",
        f"{layer}.fc2.{{p}}": f"{block}.mlp.down.{{p}}",
        f"{layer}.final_layer_norm.{{p}}": f"{block}.mlp_norm.{{p}}",
        f"model.{side}.embed_tokens.weight": f"{at}embed.tokens.weight",
        f"model.{side}.embed_positions.weight": f"{at}embed.positions.weight",
        f"model.{side}.layernorm_embedding.{{p}}": f"{at}embed.norm.{{p}}",
        f"model.{side}.layer_norm.{{p}}": f"{at}norm.{{p}}",
    }


ENCODER, DECODER = layers("encoder", "encoder."), layers("decoder", "")
HEADS: dict[str, Entry] = {
    "lm_head.weight": "lm_head.out.weight",
    "final_logits_bias": "lm_head.fixed.bias",
    "classification_head.dense.{p}": "classifier.dense.{p}",
    "classification_head.out_proj.{p}": "classifier.out.{p}",
    "qa_outputs.{p}": "span.out.{p}",
}
BART: dict[str, Entry] = {"model.shared.weight": "encoder.embed.tokens.weight", **ENCODER, **DECODER, **HEADS}
# Where no table is tied to another, each side has its own.
UNTIED: dict[str, Entry] = BART | {"model.shared.weight": Unused("each side has a table of its own", kept=True)}
WAVES: dict[str, Entry] = {
    f"model.{side}.embed_positions.{name}": Recomputed("sinusoids", kept=True)
    for side in ("encoder", "decoder")
    for name in ("weight", "weights")
}
# A decoder that is a model by itself.
ALONE: dict[str, Entry] = {
    name: Unused("attention over an encoder, and there is none", kept=True) if ".cross" in str(slot) else slot
    for name, slot in DECODER.items()
}


def table(c: Config) -> dict[str, Entry]:
    """A family's WEIGHTS, where its positions are trained."""
    return BART if c.tie_word_embeddings else UNTIED


def table_with_waves(c: Config) -> dict[str, Entry]:
    """The same with sines for positions, which old files hold."""
    return table(c) | WAVES


# ------------------------------------------------------------------------------------------------ parts

NORM = LayerNorm(eps=1e-5)
PRE, POST = PreNorm(norm=NORM), PostNorm(norm=NORM)


def learned(c: Config, offset: int = 0, rows: str = "max_position_embeddings") -> LearnedPositions:
    """A trained vector for each position; the first `offset` rows belong to none."""
    return LearnedPositions(rows=c.size(rows) + offset, offset=offset)


def fairseq(c: Config) -> Sinusoidal:
    """Sines and cosines of a position that pads do not count for."""
    pad = c.number("pad_token_id")
    return Sinusoidal(offset=pad + 1, skip=pad)


def waves(c: Config) -> Sinusoidal:
    """Sines and cosines, for as many positions as the config says."""
    return Sinusoidal(short=False, rows=c.size("max_position_embeddings"))


def attention(c: Config, side: Side) -> Attention:
    width, heads = c.size("d_model"), c.size(f"{side}_attention_heads")
    if width % heads:
        what = f"d_model={width} is no multiple of {side}_attention_heads={heads}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    return Attention(
        heads=heads, kv_heads=heads, head_dim=width // heads, scale=(width // heads) ** -0.5, causal=side == "decoder",
        biases="qkvo", dropout=c.share("attention_dropout"),
    )  # fmt: skip


def mlp(c: Config, side: Side) -> Mlp:
    act = activation(c.activation_function, c)
    return Mlp(hidden=c.size(f"{side}_ffn_dim"), act=act, gated=False, bias=True, dropout=c.share("activation_dropout"))


def block(c: Config, side: Side, order: Order, ffn: Mlp | Moe | Custom | None = None) -> Block:
    """A layer; the decoder's reads the encoder's output between its two other parts."""
    attn = attention(c, side)
    cross = replace(attn, causal=False) if side == "decoder" else None
    return Block(attn=attn, cross=cross, mlp=ffn or mlp(c, side), order=order, dropout=c.share("dropout"))


def embedding(c: Config, positions: Positions | None, norm: Norm | None, vocab: str = "vocab_size") -> Embed:
    width = c.size("d_model")
    return Embed(
        vocab=c.size(vocab), positions=positions, norm=norm, dropout=c.share("dropout"),
        scale=width**0.5 if c.scale_embedding else None,
    )  # fmt: skip


def stack(c: Config, side: Side, order: Order, embed: Embed, blocks: list[Block] | None = None) -> Stack:
    """One side; a norm ends it where the layers begin with one."""
    blocks = blocks or [block(c, side, order)] * c.layers(f"{side}_layers")
    last = NORM if isinstance(order, PreNorm) else None
    return Stack(width=c.size("d_model"), embed=embed, blocks=tuple(blocks), norm=last)


# ------------------------------------------------------------------------------------------------ the whole


def decoder_alone(c: Config, family: str, blocks: list[Block], embed: Embed, order: Order, context: int) -> Spec:
    """A decoder that was made to read an image or a sound, as a language model."""
    alone = [replace(block, cross=None) for block in blocks]
    head: dict[Task, Head] = {"causal-lm": LmHead(tied=c.tie_word_embeddings, labels_ahead=True)}
    return Spec(family=family, stack=stack(c, "decoder", order, embed, alone), heads=head, context=context)


def heads(c: Config, *, fixed_bias: bool = True) -> dict[Task, Head]:
    """What stands on the decoder; a family's CLASSES say which it has."""
    lm = LmHead(tied=c.tie_word_embeddings)
    return {
        "seq2seq-lm": replace(lm, fixed_bias=fixed_bias),
        "causal-lm": replace(lm, labels_ahead=True),
        "sequence-classification": SequenceHead(
            labels=c.size("num_labels"),
            pool="eos",
            hidden=Dense(act="tanh"),
            dropout=c.share("classifier_dropout", null=0.0),
        ),
        "question-answering": SpanHead(),
    }


def encoder_decoder(
    c: Config,
    family: str,
    *,
    order: Order,
    positions: Positions,
    embed_norm: Norm | None = None,
    start: Literal["last"] | None = None,
    fixed_bias: bool = True,
    sides: Mapping[Side, Stack] | None = None,
) -> Spec:
    """Both sides and their heads.

    Args:
        positions, embed_norm: of both embeddings.
        start: "last" where a text's last token opens the output, not `decoder_start_token_id`.
        fixed_bias: whether a row of numbers is added to the logits.
        sides: the stacks, where a family makes them itself.
    """
    embed = embedding(c, positions, embed_norm)
    sides = sides or {"encoder": stack(c, "encoder", order, embed), "decoder": stack(c, "decoder", order, embed)}
    return Spec(
        family=family, encoder=sides["encoder"], stack=sides["decoder"], heads=heads(c, fixed_bias=fixed_bias),
        decoder_start=start or c.decoder_start_token_id, shared_embedding=bool(c.tie_word_embeddings),
        context=c.size("max_position_embeddings"),
    )  # fmt: skip
