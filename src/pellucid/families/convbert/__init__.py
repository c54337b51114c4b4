"""ConvBERT. Paper: arXiv 2008.02496."""

from typing import cast

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    BERT,
    HIDDEN,
    LABELS,
    USUAL,
    block,
    classes,
    embedding,
    encoder,
    heads,
    lm_head,
)
from pellucid.families._read import activation
from pellucid.spec import ChoiceHead, Custom, Dense, Pool, Spec
from pellucid.weights.table import Entry, Squeezed, Stacked, Transposed

CLASSES = classes("ConvBert", *USUAL)
DEFAULTS = shared.DEFAULTS | {
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "embedding_size": 768, "head_ratio": 2,
    "conv_kernel_size": 9, "num_groups": 1,
}  # fmt: skip
IGNORED = shared.IGNORED | {"is_decoder": (False,)}

BASE = "convbert."
HEADS = HIDDEN | {"multiple-choice": {"sequence_summary.summary.{p}": "classifier.dense.{p}", **LABELS}}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer, groups = "convbert.encoder.layer.{i}", c.size("num_groups")
    around = f"{layer}.attention.self.key_conv_attn_layer"
    found = under(BASE, BERT, "bert.") | LABELS | {
        f"{around}.depthwise.weight": Squeezed("blocks.{i}.attn.near", (1,)),
        f"{around}.pointwise.weight": Squeezed("blocks.{i}.attn.key.weight", (2,)),
        f"{around}.bias": Squeezed("blocks.{i}.attn.key.bias", (1,)),
        f"{layer}.attention.self.conv_kernel_layer.{{p}}": "blocks.{i}.attn.choice.{p}",
        f"{layer}.attention.self.conv_out_layer.{{p}}": "blocks.{i}.attn.value.{p}",
        "convbert.embeddings_project.{p}": "embed.project.{p}",
        "generator_predictions.dense.{p}": "lm_head.transform.dense.{p}",
        "generator_predictions.LayerNorm.{p}": "lm_head.transform.norm.{p}",
        "generator_lm_head.{p}": "lm_head.out.{p}",
    }  # fmt: skip
    for name, slot in (("intermediate", "up"), ("output", "down")) if groups > 1 else ():
        part = f"blocks.{{i}}.mlp.{slot}.parts.{{e}}"
        del found[f"{layer}.{name}.dense.{{p}}"]
        found[f"{layer}.{name}.dense.weight"] = Stacked(Transposed(f"{part}.weight"), groups)
        found[f"{layer}.{name}.dense.bias"] = Stacked(f"{part}.bias", groups, flat=True)
    return found


def spec(c: Config) -> Spec:
    width, size = c.size("hidden_size"), c.size("embedding_size")
    # Where the ratio exceeds the heads, one is left.
    count = max(c.size("num_attention_heads") // c.size("head_ratio"), 1)
    kernel, groups, hidden = c.size("conv_kernel_size"), c.size("num_groups"), c.size("intermediate_size")
    if width % (2 * count) or kernel % 2 == 0 or width % groups or hidden % groups:
        what = f"hidden_size={width} for {count} heads, conv_kernel_size={kernel}, num_groups={groups}"
        raise ConfigError(what, where=c.where, next="half a head is whole, the kernel odd, and the groups divide")
    options = (
        ("heads", count), ("head_dim", width // count // 2), ("kernel", kernel),
        ("dropout", c.share("attention_probs_dropout_prob")),
    )  # fmt: skip
    attn = Custom(path="pellucid.families.convbert.attention:MixedAttention", options=options)
    act = activation(c.hidden_act, c)
    ffn = (("hidden", hidden), ("act", act), ("up", groups), ("down", groups))
    one = block(c, attn, Custom(path="pellucid.nn.grouped:GroupedMlp", options=ffn) if groups > 1 else None)
    lm = lm_head(c, act="gelu", width=size)
    found = heads(c, lm, hidden=Dense(act=act), pool="first") | {"multiple-choice": choice(c)}
    blocks = [one] * c.layers("num_hidden_layers")
    return encoder(c, "convbert", blocks, embed=embedding(c, width=size), heads=found, pooler=None)


def choice(c: Config) -> ChoiceHead:
    """The last token, where the config does not ask for another summary, and one logit."""
    pool, act = c.get("summary_type", "last"), c.get("summary_activation")
    if pool not in ("first", "last", "mean") or (act and not c.get("summary_use_proj")):
        what = f"summary_type={pool!r}, summary_activation={act!r}"
        raise ConfigError(what, where=c.where, next="use 'first', 'last' or 'mean'; an activation needs a projection")
    hidden = Dense(act=activation(act, c) if act else "linear", drop_first=False) if c.get("summary_use_proj") else None
    return ChoiceHead(pool=cast(Pool, pool), hidden=hidden, dropout=c.share("summary_last_dropout", null=0.0))
