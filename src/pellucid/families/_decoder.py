"""What decoders of the Llama school have in common: their tables, and readers that turn config keys into parts.

A family calls these with what is its own:

    attn = attention(c, biases="qkv", qk_norm=QkNorm(norm=rms(c)))
    return decoder(c, "qwen3", [Block(attn=one, mlp=gated(c), order=PreNorm(norm=rms(c))) for one in windows(c, attn)])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._read import activation, grouped_heads, read_context, read_rope
from pellucid.spec import (
    Attention,
    Block,
    Custom,
    Embed,
    Head,
    LayerNorm,
    LmHead,
    Mlp,
    Norm,
    RmsNorm,
    Rope,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    Task,
    TokenHead,
)
from pellucid.weights.table import Entry, Recomputed

SUFFIXES: Mapping[Task | None, str] = {
    None: "Model", "causal-lm": "ForCausalLM", "masked-lm": "ForMaskedLM", "seq2seq-lm": "ForConditionalGeneration",
    "sequence-classification": "ForSequenceClassification", "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering", "multiple-choice": "ForMultipleChoice",
    "next-sentence": "ForNextSentencePrediction", "pretraining": "ForPreTraining", "text-encoding": "EncoderModel",
}  # fmt: skip

# What the reference gives to most decoders.
GENERIC: tuple[Task, ...] = (
    "causal-lm", "sequence-classification", "token-classification", "question-answering",
)  # fmt: skip


def classes(stem: str, *tasks: Task) -> dict[Task | None, str]:
    """The reference's class names for a family: `Qwen3Model`, `Qwen3ForCausalLM`, …"""
    return {task: stem + SUFFIXES[task] for task in (None, *tasks)}


# ------------------------------------------------------------------------------------------------ tables

EMBEDDING: dict[str, Entry] = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.norm.{p}": "norm.{p}",
}
ATTENTION: dict[str, Entry] = {
    "model.layers.{i}.input_layernorm.{p}": "blocks.{i}.attn_norm.{p}",
    "model.layers.{i}.self_attn.q_proj.{p}": "blocks.{i}.attn.q.{p}",
    "model.layers.{i}.self_attn.k_proj.{p}": "blocks.{i}.attn.k.{p}",
    "model.layers.{i}.self_attn.v_proj.{p}": "blocks.{i}.attn.v.{p}",
    "model.layers.{i}.self_attn.o_proj.{p}": "blocks.{i}.attn.o.{p}",
    "model.layers.{i}.post_attention_layernorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "model.layers.{i}.self_attn.rotary_emb.inv_freq": Recomputed("inverse frequencies"),
    "model.rotary_emb.inv_freq": Recomputed("inverse frequencies"),
}
QK_NORM: dict[str, Entry] = {
    "model.layers.{i}.self_attn.q_norm.{p}": "blocks.{i}.attn.q_norm.{p}",
    "model.layers.{i}.self_attn.k_norm.{p}": "blocks.{i}.attn.k_norm.{p}",
}
GATED: dict[str, Entry] = {
    "model.layers.{i}.mlp.gate_proj.{p}": "blocks.{i}.mlp.gate.{p}",
    "model.layers.{i}.mlp.up_proj.{p}": "blocks.{i}.mlp.up.{p}",
    "model.layers.{i}.mlp.down_proj.{p}": "blocks.{i}.mlp.down.{p}",
}
# Gemma 2's four norms; `post_attention_layernorm`, before the MLP in Llama, is behind the attention here.
SANDWICH: dict[str, Entry] = {
    "model.layers.{i}.post_attention_layernorm.{p}": "blocks.{i}.attn_post_norm.{p}",
    "model.layers.{i}.pre_feedforward_layernorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "model.layers.{i}.post_feedforward_layernorm.{p}": "blocks.{i}.mlp_post_norm.{p}",
}
HEAD_WEIGHTS: dict[str, Entry] = {
    "lm_head.{p}": "lm_head.out.{p}",
    "score.{p}": "classifier.out.{p}",
    "qa_outputs.{p}": "span.out.{p}",
}
# Older families call the matrix of each task otherwise.
LABEL_HEADS: dict[Task | None, dict[str, Entry]] = {
    "sequence-classification": {"score.weight": "classifier.out.weight"},
    "token-classification": {"classifier.{p}": "classifier.out.{p}"},
}
LLAMA: dict[str, Entry] = {**EMBEDDING, **ATTENTION, **GATED, **HEAD_WEIGHTS}


def under(prefix: str, table: Mapping[str, Entry], base: str = "model.") -> dict[str, Entry]:
    """A table whose base names stand under another prefix: `model.layers` -> `transformer.layers`."""
    return {prefix + name.removeprefix(base) if name.startswith(base) else name: e for name, e in table.items()}


def span_under_transformer(table: Mapping[str, Entry]) -> dict[Task, Mapping[str, Entry]]:
    """HEADS of the types whose question answering alone has its base under `transformer.`."""
    return {"question-answering": under("transformer.", table)}


# ------------------------------------------------------------------------------------------------ parts


def rms(c: Config, **options: Any) -> RmsNorm:
    """The family's RMSNorm, with its `rms_norm_eps`."""
    return RmsNorm(eps=c.number("rms_norm_eps", float), **options)


def layer_norm(c: Config, eps: str = "layer_norm_eps", **options: Any) -> LayerNorm:
    """The family's LayerNorm, with the eps of that key."""
    return LayerNorm(eps=c.number(eps, float), **options)


_READ: Any = object()  # an argument that the config answers


def attention(c: Config, *, rope: Rope | None = _READ, scale: float = _READ, **options: Any) -> Attention:
    """Causal grouped-query attention, by the keys that nearly every decoder has.

    Args:
        rope, scale: what the config says, and 1/sqrt(head_dim), if not given.
        options: further fields of `spec.Attention`.
    """
    heads, kv_heads, head_dim = grouped_heads(c)
    if "biases" not in options:
        options["biases"] = "qkvo" if c.get("attention_bias") else ""
    return Attention(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, causal=True,
        scale=head_dim**-0.5 if scale is _READ else scale,
        rope=read_rope(c, head_dim) if rope is _READ else rope,
        dropout=c.share("attention_dropout", null=0.0), **options,
    )  # fmt: skip


def gated(c: Config, *, hidden: str = "intermediate_size", act: str = "hidden_act", **options: Any) -> Mlp:
    """The gated MLP of Llama."""
    return Mlp(hidden=c.size(hidden), act=activation(getattr(c, act), c), gated=True, **options)


def plain_mlp(c: Config, *, hidden: str = "intermediate_size", act: str = "hidden_act", **options: Any) -> Mlp:
    """An MLP of two matrices."""
    return Mlp(hidden=c.size(hidden), act=activation(getattr(c, act), c), gated=False, **options)


# ------------------------------------------------------------------------------------------------ layers


def layer_types(c: Config, known: Sequence[str], usual: Callable[[int], str]) -> list[str]:
    """The kind of each layer: `layer_types`, or what the family does without it."""
    layers = c.layers("num_hidden_layers")
    types = c.get("layer_types")
    if types is None:
        return [usual(i) for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not all(kind in known for kind in types):
        raise ConfigError(
            f"layer_types={types} for {layers} layers", where=c.where, next=f"give one of {sorted(known)} for each"
        )
    return types


def windows(
    c: Config,
    attn: Attention,
    usual: Callable[[int], str] = lambda i: "full_attention",
    *,
    window: int | None = _READ,
    ropes: Mapping[str, Rope | None] | None = None,
) -> list[Attention]:
    """Each layer's attention, full or with a window, by `layer_types`.

    Args:
        window: `sliding_window`, if not given.
        ropes: the rotary positions of each type of layer, where they differ.
    """
    window = c.size("sliding_window", null=None) if window is _READ else window
    kinds = {"full_attention": attn, "sliding_attention": replace(attn, window=window)}
    if ropes is not None:
        kinds = {kind: replace(one, rope=ropes[kind]) for kind, one in kinds.items()}
    return [kinds[kind] for kind in layer_types(c, [*kinds], usual)]


def qwen_windows(c: Config, attn: Attention) -> list[Attention]:
    """Qwen's windows: off unless `use_sliding_window`, and then from layer `max_window_layers` on."""
    first, window = c.number("max_window_layers", null=0), c.size("sliding_window", null=None)
    if not c.use_sliding_window:
        window = None
    return windows(c, attn, lambda i: "sliding_attention" if window and i >= first else "full_attention", window=window)


# ------------------------------------------------------------------------------------------------ the whole


def decoder(
    c: Config,
    family: str,
    blocks: Sequence[Block | Custom],
    *,
    norm: Norm | None = _READ,
    embed: Embed | None = None,
    head: LmHead | None = None,
    **stack: Any,
) -> Spec:
    """A decoder with the usual heads; those that the family's CLASSES do not name are dropped (`Family.spec`).

    Args:
        norm: the last one; the family's RMSNorm if not given.
        head: the language head; a plain one, tied as the config says, if not given.
        stack: further fields of `spec.Stack`.
    """
    labels = c.size("num_labels")
    heads: dict[Task, Head] = {
        "causal-lm": head or LmHead(tied=c.tie_word_embeddings),
        "sequence-classification": SequenceHead(labels=labels, pool="last", bias=False),
        "token-classification": TokenHead(labels=labels, dropout=token_dropout(c)),
        "question-answering": SpanHead(),
    }
    return Spec(
        family=family,
        stack=Stack(
            width=c.size("hidden_size"), embed=embed or Embed(vocab=c.size("vocab_size")), blocks=tuple(blocks),
            norm=rms(c) if norm is _READ else norm, **stack,
        ),
        heads=heads,
        context=read_context(c, *(getattr(getattr(block, "attn", None), "rope", None) for block in blocks)),
    )  # fmt: skip


def token_dropout(c: Config) -> float:
    """Before the labels of tokens: the first of two keys that says something, or 0.1."""
    for key in ("classifier_dropout", "hidden_dropout"):
        if c.get(key) is not None:
            return float(c.share(key))
    return 0.1
