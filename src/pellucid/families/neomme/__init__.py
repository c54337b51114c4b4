"""NeoMME: its text side. Weights: huggingface.co/Hcompany/NeoMME-260M."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import classes, layer_types
from pellucid.families._read import activation, grouped_heads, read_ropes
from pellucid.spec import Attention, Custom, Embed, LmHead, Mlp, RmsNorm, Spec, Stack
from pellucid.weights.table import Entry, Transposed, Unused

CLASSES = classes("NeoMME", "masked-lm")
DEFAULTS: dict[str, Any] = {
    "vocab_size": 131072, "embedding_rank": 256, "hidden_size": 1024, "intermediate_size": 3584,
    "hidden_act": "relu2", "mlp_bias": False, "num_hidden_layers": 17, "num_attention_heads": 16,
    "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 16384, "norm_eps": 1e-6,
    "attention_dropout": 0.0, "attention_bias": False, "layer_types": None, "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    }, "sliding_window": 256, "per_layer_config": None, "residual_multiplier": None, "pad_token_id": 0,
    "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {
    "patch_size": None, "image_token_id": None, "document_token_id": None,  # of the eyes
    "embedding_dim": None,  # of retrieval
}  # fmt: skip
LONG_WINDOW = 1024  # of every other layer that has one

BASE = "model."
LAYER = "model.layers.{i}"
WEIGHTS: dict[str, Entry] = {
    "model.embed_tokens.word_embeddings.weight": "embed.tokens.weight",
    "model.embed_tokens.embedding_projection.weight": "body.project.weight",
    "model.value_embeddings.weight": "body.values.weight",
    f"{LAYER}.lambdas": "body.layers.{i}.shares",
    **{f"{LAYER}.self_attn.{x}_proj.{{p}}": f"body.layers.{{i}}.attn.{x}.{{p}}" for x in "qkv"},
    f"{LAYER}.self_attn.exclusive_self_attention.alpha": "body.layers.{i}.attn.alpha",
    f"{LAYER}.self_attn.output_projection.gate_proj.weight": "body.layers.{i}.attn.gate.weight",
    f"{LAYER}.self_attn.output_projection.o_proj.{{p}}": "body.layers.{i}.attn.o.{p}",
    f"{LAYER}.mlp.up_proj.{{p}}": "body.layers.{i}.mlp.up.{p}",
    f"{LAYER}.mlp.down_proj.{{p}}": "body.layers.{i}.mlp.down.{p}",
    "model.patch_embeddings.*": Unused("reads pictures, not text", kept=True),
    "unembedding_projection.weight": Transposed("body.unproject.weight"),
    "lm_head.weight": "lm_head.out.weight",
}


def spec(c: Config) -> Spec:
    width, rank, layers = c.size("hidden_size"), c.size("embedding_rank"), c.layers("num_hidden_layers")
    mlp = Mlp(hidden=c.size("intermediate_size"), act=activation(c.hidden_act, c), gated=False, bias=c.mlp_bias)
    body = Custom(path="pellucid.families.neomme.layers:NeoBody", options=(
        ("width", width), ("attentions", attentions(c)), ("mlp", mlp), ("vocab", c.size("vocab_size")),
        ("norm", RmsNorm(eps=c.number("norm_eps", float), weight=False)),
        ("residual_scale", c.number("residual_multiplier", float, null=(2 * layers) ** -0.5)),
    ))  # fmt: skip

    def stack(out: int, unprojects: str | None) -> Stack:
        whole = replace(body, options=(*body.options, ("unprojects", unprojects)))
        return Stack(width=out, embed=Embed(vocab=c.size("vocab_size"), width=rank), blocks=(), norm=None, body=whole)

    return Spec(
        family="neomme",
        stack=stack(rank, "same" if c.tie_word_embeddings else "own"),
        stacks={None: stack(width, None)},
        heads={"masked-lm": LmHead(tied=c.tie_word_embeddings)},
        context=c.size("max_position_embeddings"),
    )


def attentions(c: Config) -> tuple[Attention, ...]:
    """Of each layer: windows take turns between short and long, unless the file says them."""
    (heads, kv_heads, head_dim), last = grouped_heads(c), c.layers("num_hidden_layers") - 1
    kinds = layer_types(
        c, ("full_attention", "sliding_attention"),
        lambda i: "full_attention" if (i + 1) % 6 == 0 or i == last else "sliding_attention",
    )  # fmt: skip
    ropes, said = read_ropes(c, head_dim), c.get("per_layer_config") or {}
    if "full_attention" not in kinds or not isinstance(said, dict):
        what = f"layer_types={kinds} without a full one, or per_layer_config={said!r} that is no object"
        raise ConfigError(what, where=c.where, next="correct config.json")
    found, short = [], c.size("sliding_window")
    for i, kind in enumerate(kinds):
        turn = kinds[:i].count("sliding_attention") % 2
        usual = None if kind == "full_attention" else LONG_WINDOW if turn and not said else short
        window = said.get(str(i), {}).get("sliding_window", usual)
        found.append(Attention(
            heads=heads, kv_heads=kv_heads, head_dim=head_dim, scale=head_dim**-0.5, causal=False, rope=ropes[kind],
            window=window, biases="qkvo" if c.attention_bias else "", dropout=c.share("attention_dropout"),
        ))  # fmt: skip
    return tuple(found)
