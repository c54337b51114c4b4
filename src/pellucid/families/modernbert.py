"""ModernBERT: rotary positions, gated MLPs, and windows in two layers of three. Paper: arXiv 2412.13663."""

from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import layer_types
from pellucid.families._encoder import USUAL, classes, encoder, head_size
from pellucid.families._gguf import DECODER, GATE_UP, KEYS, QKV, Gguf
from pellucid.families._read import activation, read_rope, rotary_section
from pellucid.spec import (
    Attention,
    Block,
    ChoiceHead,
    Dense,
    Embed,
    Head,
    LayerNorm,
    LmHead,
    Mlp,
    Pool,
    PreNorm,
    Rope,
    SequenceHead,
    SpanHead,
    Spec,
    Task,
    TokenHead,
    Transform,
)
from pellucid.weights.table import Entry, Fused

CLASSES = classes("ModernBert", *USUAL)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
    "num_attention_heads": 12, "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5,
    "norm_bias": False, "pad_token_id": 50283, "eos_token_id": 50282, "bos_token_id": 50281, "cls_token_id": 50281,
    "sep_token_id": 50282, "attention_bias": False, "attention_dropout": 0.0, "layer_types": None,
    "rope_parameters": None, "rope_scaling": None, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
    "global_attn_every_n_layers": 3, "local_attention": 128, "embedding_dropout": 0.0, "mlp_bias": False,
    "mlp_dropout": 0.0, "decoder_bias": True, "classifier_pooling": "cls", "classifier_dropout": 0.0,
    "classifier_bias": False, "classifier_activation": "gelu", "tie_word_embeddings": True,
}  # fmt: skip
IGNORED: dict[str, tuple[Any, ...] | None] = {
    "deterministic_flash_attn": None, "reference_compile": None, "repad_logits_with_grad": None,
    "initializer_cutoff_factor": None, "sparse_pred_ignore_index": None, "sparse_prediction": (False,),
    "layer_norm_eps": None, "position_embedding_type": ("absolute",), "sliding_window": None,
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = {
    "model.embeddings.tok_embeddings.weight": "embed.tokens.weight",
    "model.embeddings.norm.{p}": "embed.norm.{p}",
    "model.layers.{i}.attn_norm.{p}": "blocks.{i}.attn_norm.{p}",
    "model.layers.{i}.attn.Wqkv.{p}": Fused("blocks.{i}.attn.{}.{p}", "qkv"),
    "model.layers.{i}.attn.Wo.{p}": "blocks.{i}.attn.o.{p}",
    "model.layers.{i}.mlp_norm.{p}": "blocks.{i}.mlp_norm.{p}",
    "model.layers.{i}.mlp.Wi.{p}": Fused("blocks.{i}.mlp.{}.{p}", ("gate", "up")),
    "model.layers.{i}.mlp.Wo.{p}": "blocks.{i}.mlp.down.{p}",
    "model.final_norm.{p}": "norm.{p}",
}


def hidden(slot: str, at: str = "head") -> dict[str, Entry]:
    return {f"{at}.dense.{{p}}": f"{slot}.dense.{{p}}", f"{at}.norm.{{p}}": f"{slot}.norm.{{p}}"}


LABELS = hidden("classifier") | {"classifier.{p}": "classifier.out.{p}"}
HEADS: dict[Task | None, dict[str, Entry]] = {
    "masked-lm": hidden("lm_head.transform") | {"decoder.{p}": "lm_head.out.{p}"},
    "sequence-classification": LABELS, "token-classification": LABELS, "multiple-choice": LABELS,
    "question-answering": hidden("span") | {"classifier.{p}": "span.out.{p}"},
}  # fmt: skip
GGUF = Gguf(
    {key: name for key, name in KEYS.items() if key not in ("rope_theta", "num_key_value_heads")} | {
        "norm_eps": "attention.layer_norm_epsilon", "local_attention": "attention.sliding_window",
        "global_attn_every_n_layers": "attention.sliding_window_pattern", "global_rope_theta": "rope.freq_base",
        "local_rope_theta": "rope.freq_base_swa", "hidden_activation": "hidden_act",
    },
    DECODER | QKV | GATE_UP | {"token_embd_norm.weight": "embed.norm.weight"},
)  # fmt: skip


def spec(c: Config) -> Spec:
    pool: Pool = "mean" if c.classifier_pooling == "mean" else "first"
    if c.classifier_pooling not in ("cls", "mean"):
        what = f"classifier_pooling={c.classifier_pooling!r}"
        raise ConfigError(what, where=c.where, next="use 'cls' or 'mean'")
    return modernbert(c, "modernbert", pool, causal=False, window=c.number("local_attention") // 2)


def modernbert(c: Config, family: str, pool: Pool, *, causal: bool, window: int | None) -> Spec:
    """The model as an encoder or, in another family, a decoder."""
    norm = LayerNorm(eps=c.number("norm_eps", float), bias=c.norm_bias)
    (heads, head_dim), ropes = head_size(c), rotary(c)
    mlp = Mlp(
        hidden=c.size("intermediate_size"), act=activation(c.hidden_activation, c), gated=True, bias=c.mlp_bias,
        dropout=c.share("mlp_dropout"),
    )  # fmt: skip

    def block(i: int, kind: str) -> Block:
        attn = Attention(
            heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, causal=causal, rope=ropes[kind],
            window=window if kind == "sliding_attention" else None, biases="qkvo" if c.attention_bias else "",
            dropout=c.share("attention_dropout"),
        )  # fmt: skip
        return Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm, bare_attn=i == 0))

    every = c.size("global_attn_every_n_layers")
    kinds = layer_types(c, [*ropes], lambda i: "sliding_attention" if i % every else "full_attention")
    embed = Embed(vocab=c.size("vocab_size"), norm=norm, dropout=c.share("embedding_dropout"))
    return encoder(
        c, family, [block(i, kind) for i, kind in enumerate(kinds)], embed=embed, norm=norm, pooler=None,
        heads=labelled(c, norm, pool), context=c.size("max_position_embeddings"),
    )  # fmt: skip


def rotary(c: Config) -> dict[str, Rope]:
    """Of the layers with and without a window: a section for each, or one with two bases beside it."""
    whole, (_, head_dim) = rotary_section(c), head_size(c)
    found = {}
    for kind, theta in (("full_attention", "global_rope_theta"), ("sliding_attention", "local_rope_theta")):
        section = whole.section(kind) if whole is not None and kind in whole else whole
        found[kind] = read_rope(c, head_dim, section=section, theta=theta)
    return found


def labelled(c: Config, norm: LayerNorm, pool: Pool) -> dict[Task, Head]:
    """Every head has the same hidden layer."""
    act, labels, drop = activation(c.classifier_activation, c), c.size("num_labels"), c.share("classifier_dropout")
    inner = Dense(act=act, bias=c.classifier_bias, norm=norm, drop_first=False)
    transform = Transform(act=act, norm=norm, bias=c.classifier_bias)
    lm = LmHead(tied=c.tie_word_embeddings, bias=c.decoder_bias, transform=transform)
    return {
        "masked-lm": lm,
        "causal-lm": lm,
        "sequence-classification": SequenceHead(labels=labels, pool=pool, hidden=inner, dropout=drop),
        "token-classification": TokenHead(labels=labels, hidden=inner, dropout=drop),
        "question-answering": SpanHead(hidden=inner, dropout=drop),
        "multiple-choice": ChoiceHead(pool=pool, hidden=inner, dropout=drop),
    }
