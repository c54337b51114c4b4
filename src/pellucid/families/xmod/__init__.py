"""X-MOD: RoBERTa with an adapter for each language in every layer. Paper: arXiv 2205.06266."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import roberta
from pellucid.families._encoder import USUAL, attention, classes, layer_norm, mlp
from pellucid.spec import Custom, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Xmod", *USUAL, "causal-lm", pretraining="masked-lm")
DEFAULTS = roberta.DEFAULTS | {
    "vocab_size": 30522, "pre_norm": False, "adapter_reduction_factor": 2, "adapter_layer_norm": False,
    "adapter_reuse_layer_norm": True, "ln_before_adapter": True, "languages": ["en_XX"], "default_language": None,
}  # fmt: skip
IGNORED = roberta.IGNORED

BASE = roberta.BASE
HEADS = roberta.HEADS


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer = "roberta.encoder.layer.{i}.output"
    adapters: dict[str, Entry] = {
        f"{layer}.adapter_modules.{name}.dense{j}.{{p}}": f"blocks.{{i}}.adapters.{n}.{part}.{{p}}"
        for n, name in enumerate(languages(c)) for j, part in ((1, "up"), (2, "down"))
    }  # fmt: skip
    return roberta.WEIGHTS | adapters | {
        f"{layer}.adapter_layer_norm.{{p}}": "blocks.{i}.adapter_norm.{p}", "roberta.encoder.LayerNorm.{p}": "norm.{p}",
    }  # fmt: skip


def languages(c: Config) -> list[str]:
    found = c.languages
    if not isinstance(found, list) or not found or not all(isinstance(name, str) and "." not in name for name in found):
        raise ConfigError(f"languages={found!r}", where=c.where, next="give the names of the adapters")
    return found


def spec(c: Config) -> Spec:
    names, usual, width = languages(c), c.default_language, c.size("hidden_size")
    if usual is not None and usual not in names:
        raise ConfigError(f"default_language={usual!r}", where=c.where, next=f"use one of {', '.join(names)}")
    attn, norm = attention(c), layer_norm(c)
    # The adapter's own norm, or the layer's once more, or none.
    again = "layer" if c.adapter_reuse_layer_norm else None
    own = "own" if c.adapter_layer_norm else again
    block = Custom(
        path="pellucid.families.xmod.adapted:Adapted",
        options=(
            ("attn", attn), ("mlp", mlp(c)), ("norm", norm), ("pre", c.pre_norm), ("languages", len(names)),
            ("usual", None if usual is None else names.index(usual)), ("normed", own),
            ("before", c.ln_before_adapter), ("hidden", width // c.size("adapter_reduction_factor")),
            ("dropout", c.share("hidden_dropout_prob")), ("causal", attn.causal),
        ),
    )  # fmt: skip
    blocks = [block] * c.layers("num_hidden_layers")
    return roberta.roberta(c, "xmod", blocks=blocks, norm=norm if c.pre_norm else None, inputs=("lang_ids",))
