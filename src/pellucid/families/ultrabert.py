"""UltraBERT: Llama's layers read in both directions, two of three through a window."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, gated, layer_types, rms, under, windows
from pellucid.families._encoder import classes, encoder
from pellucid.families._read import read_rope, rotary_section
from pellucid.spec import (
    Block,
    Embed,
    LmHead,
    Pool,
    PreNorm,
    Rope,
    SequenceHead,
    SpanHead,
    Spec,
    TokenHead,
    Transform,
)  # fmt: skip

CLASSES = classes("Ultrabert", "masked-lm", "sequence-classification", "token-classification", "question-answering")
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "attention_bias": False,
    "attention_dropout": 0.0, "mlp_bias": False, "classifier_pooling": "cls", "sliding_window": 128,
    "layer_types": None, "prediction_head_size": 768, "classifier_dropout": 0.0,
}  # fmt: skip
THETAS = {"sliding_attention": 10000.0, "full_attention": 2560000.0}

BASE = "ultrabert."
WEIGHTS = {
    "head.linear1.weight": "lm_head.transform.inner.weight",
    "head.linear2.weight": "lm_head.transform.dense.weight",
    "cls.weight": "lm_head.out.weight",
    "head.decoder.weight": "lm_head.out.weight",
    "classifier.{p}": "classifier.out.{p}",
    **under("ultrabert.", LLAMA),
    **LLAMA,
}


def spec(c: Config) -> Spec:
    pool: Pool = "mean" if c.classifier_pooling == "mean" else "first"
    attn = replace(attention(c, rope=None), causal=False)
    kinds = types(c)
    window = next((window for window in c.get("attention_windows") or () if window), c.size("sliding_window"))
    layers = windows(c, attn, lambda i: kinds[i], window=window, ropes=rotary(c, kinds))
    mlp, order = gated(c, bias=c.mlp_bias), PreNorm(norm=rms(c))
    transform = Transform(act="gelu_tanh", norm=None, bias=False, inner=c.size("prediction_head_size"))
    labels, drop = c.size("num_labels"), c.share("classifier_dropout")
    return encoder(
        c, "ultrabert", [Block(attn=one, mlp=mlp, order=order) for one in layers], norm=rms(c), pooler=None,
        embed=Embed(vocab=c.size("vocab_size")),
        heads={
            "masked-lm": LmHead(tied=c.tie_word_embeddings, transform=transform),
            "sequence-classification": SequenceHead(labels=labels, pool=pool, dropout=drop),
            "token-classification": TokenHead(labels=labels, dropout=drop),
            "question-answering": SpanHead(),
        },
        context=c.size("max_position_embeddings"),
    )  # fmt: skip


def types(c: Config) -> list[str]:
    """The kind of each layer; the first files say a window, or none, for each."""
    given = c.get("attention_windows")
    if given is not None:
        return ["sliding_attention" if window else "full_attention" for window in given]
    return layer_types(c, [*THETAS], lambda i: "sliding_attention" if (i + 1) % 3 else "full_attention")


def rotary(c: Config, kinds: list[str]) -> dict[str, Rope | None]:
    """Of layers with and without a window; the first files say a base for each layer."""
    whole, head_dim = rotary_section(c), c.size("head_dim", null=c.size("hidden_size") // c.size("num_attention_heads"))
    bases = c.get("rope_theta")
    thetas = THETAS | dict(zip(kinds, bases)) if isinstance(bases, list) else THETAS
    found: dict[str, Rope | None] = {}
    for kind, theta in thetas.items():
        section = whole.section(kind) if whole is not None else None
        found[kind] = read_rope(
            c, head_dim, section=section or Config({"rope_theta": theta}, where=c.where), theta=kind
        )
    return found
