"""GPT-Neo. Model card: github.com/EleutherAI/gpt-neo. Scores are not scaled, and every other layer has a window."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import GENERIC, LABEL_HEADS, attention, classes, decoder, layer_norm
from pellucid.families._read import activation
from pellucid.spec import Block, Embed, LearnedPositions, Mlp, PreNorm, Spec
from pellucid.weights.table import Entry, Recomputed

CLASSES = classes("GPTNeo", *GENERIC)
DEFAULTS = {
    "vocab_size": 50257, "max_position_embeddings": 2048, "hidden_size": 2048, "num_layers": 24,
    "attention_types": [[["global", "local"], 12]], "num_heads": 16, "intermediate_size": None, "window_size": 256,
    "activation_function": "gelu_new", "resid_dropout": 0.0, "embed_dropout": 0.0, "attention_dropout": 0.0,
    "classifier_dropout": 0.1, "layer_norm_epsilon": 1e-5, "bos_token_id": 50256, "eos_token_id": 50256,
    "pad_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}
IGNORED = {
    "attention_layers": None,  # attention_types written out
}  # fmt: skip

BASE = "transformer."
HEADS = LABEL_HEADS
WEIGHTS: dict[str, Entry] = {
    "transformer.wte.weight": "embed.tokens.weight",
    "transformer.wpe.weight": "embed.positions.weight",
    "transformer.h.{i}.ln_1.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.h.{i}.attn.attention.q_proj.weight": "blocks.{i}.attn.q.weight",
    "transformer.h.{i}.attn.attention.k_proj.weight": "blocks.{i}.attn.k.weight",
    "transformer.h.{i}.attn.attention.v_proj.weight": "blocks.{i}.attn.v.weight",
    "transformer.h.{i}.attn.attention.out_proj.{p}": "blocks.{i}.attn.o.{p}",
    "transformer.h.{i}.ln_2.{p}": "blocks.{i}.mlp_norm.{p}",
    "transformer.h.{i}.mlp.c_fc.{p}": "blocks.{i}.mlp.up.{p}",
    "transformer.h.{i}.mlp.c_proj.{p}": "blocks.{i}.mlp.down.{p}",
    "transformer.ln_f.{p}": "norm.{p}",
    "lm_head.weight": "lm_head.out.weight",
    "qa_outputs.{p}": "span.out.{p}",
    "transformer.h.{i}.attn.attention.bias": Recomputed("causal mask"),
    "transformer.h.{i}.attn.attention.masked_bias": Recomputed("masked score"),
}


def spec(c: Config) -> Spec:
    norm, width, dropout = layer_norm(c, "layer_norm_epsilon"), c.size("hidden_size"), c.share("resid_dropout")
    full = attention(c, rope=None, scale=1.0, biases="o")
    kinds = {"global": full, "local": replace(full, window=c.size("window_size"))}
    hidden = c.size("intermediate_size", null=4 * width)
    mlp = Mlp(hidden=hidden, act=activation(c.activation_function, c), gated=False, bias=True)
    blocks = [
        Block(attn=kinds[kind], mlp=mlp, order=PreNorm(norm=norm), dropout=dropout)
        for kind in attention_types(c.attention_types, c.layers("num_layers"), c)
    ]
    positions = LearnedPositions(rows=c.size("max_position_embeddings"))
    embed = Embed(vocab=c.size("vocab_size"), positions=positions, dropout=c.share("embed_dropout"))
    return decoder(c, "gpt_neo", blocks, norm=norm, embed=embed)


def attention_types(given: Any, layers: int, c: Config) -> list[str]:
    """[[["global", "local"], 12]] -> the kind of each layer."""
    match given:
        case [*groups] if all(
            isinstance(g, list) and len(g) == 2 and isinstance(g[0], list) and type(g[1]) is int for g in groups
        ):
            kinds = [kind for group, times in groups for _ in range(min(times, layers)) for kind in group]
        case _:
            kinds = []
    if len(kinds) != layers or not all(kind in ("global", "local") for kind in kinds):
        what = f"attention_types={given} for {layers} layers"
        raise ConfigError(what, where=c.where, next='give [[["global", "local"], layers / 2]]')
    return kinds
