"""MobileBERT. Paper: arXiv 2004.02984."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, USUAL, classes, embedding, encoder, heads, layer_norm, lm_head, mlp
from pellucid.spec import Custom, LayerNorm, Pooling, Projection, Spec
from pellucid.weights.table import Entry, Transposed

CLASSES = classes("MobileBert", *USUAL, "next-sentence", "pretraining", encoding=True)
DEFAULTS = shared.DEFAULTS | {
    "hidden_size": 512, "num_hidden_layers": 24, "num_attention_heads": 4, "intermediate_size": 512,
    "hidden_act": "relu", "hidden_dropout_prob": 0.0, "embedding_size": 128, "trigram_input": True,
    "use_bottleneck": True, "intra_bottleneck_size": 128, "use_bottleneck_attention": False,
    "key_query_shared_bottleneck": True, "num_feedforward_networks": 4, "normalization_type": "no_norm",
    "classifier_activation": True,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    "true_hidden_size": None,  # follows from the bottleneck
    "is_decoder": (False,),
}  # fmt: skip

BASE = "mobilebert."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer, block = "mobilebert.encoder.layer.{i}", "blocks.{i}"
    last = c.layers("num_feedforward_networks") - 1
    found: dict[str, Entry] = {
        "mobilebert.embeddings.embedding_transformation.{p}": "embed.project.{p}",
        "cls.predictions.dense.weight": Transposed("lm_head.beside.weight"),
        f"{layer}.intermediate.dense.{{p}}": f"{block}.mlps.{last}.up.{{p}}",
        f"{layer}.output.dense.{{p}}": f"{block}.mlps.{last}.down.{{p}}",
        f"{layer}.output.LayerNorm.{{p}}": f"{block}.mlp_norms.{last}.{{p}}",
        f"{layer}.ffn.{{e}}.intermediate.dense.{{p}}": f"{block}.mlps.{{e}}.up.{{p}}",
        f"{layer}.ffn.{{e}}.output.dense.{{p}}": f"{block}.mlps.{{e}}.down.{{p}}",
        f"{layer}.ffn.{{e}}.output.LayerNorm.{{p}}": f"{block}.mlp_norms.{{e}}.{{p}}",
        f"{layer}.output.bottleneck.dense.{{p}}": f"{block}.leave.{{p}}",
        f"{layer}.output.bottleneck.LayerNorm.{{p}}": f"{block}.leave_norm.{{p}}",
    }
    for name, slot in (("input", "enter"), ("attention", "share")):
        found[f"{layer}.bottleneck.{name}.dense.{{p}}"] = f"{block}.{slot}.dense.{{p}}"
        found[f"{layer}.bottleneck.{name}.LayerNorm.{{p}}"] = f"{block}.{slot}.norm.{{p}}"
    return under(BASE, BERT, "bert.") | CLS | found


def spec(c: Config) -> Spec:
    width, size, count = c.size("hidden_size"), c.size("embedding_size"), c.size("num_attention_heads")
    inside = c.size("intra_bottleneck_size")
    inner = inside if c.use_bottleneck else None
    narrow, share = c.use_bottleneck_attention, c.key_query_shared_bottleneck
    if c.normalization_type not in ("no_norm", "layer_norm") or (inner or width) % count or size > width:
        what = f"normalization_type={c.normalization_type!r}, {inner or width} channels for {count} heads"
        raise ConfigError(what, where=c.where, next="'no_norm' or 'layer_norm', and channels that the heads divide")
    if inner and not (narrow or share):
        what = "key_query_shared_bottleneck and use_bottleneck_attention are both false"
        raise ConfigError(what, where=c.where, next="one of them says what queries and keys read")
    affine = c.normalization_type == "no_norm"
    norm = Custom(path="pellucid.families.mobilebert.bottleneck:Affine") if affine else layer_norm(c)
    plain = norm if affine else LayerNorm(eps=1e-5)  # where the reference leaves `layer_norm_eps` aside
    options = (
        ("inner", inner), ("share", bool(inner and share)), ("wide_values", bool(inner and not narrow)),
        ("heads", count), ("mlps", c.size("num_feedforward_networks")), ("mlp", mlp(c)), ("norm", norm),
        ("last_norm", plain), ("dropout", c.share("attention_probs_dropout_prob")),
        ("hidden_dropout", c.share("hidden_dropout_prob")),
    )  # fmt: skip
    block = Custom(path="pellucid.families.mobilebert.bottleneck:Bottleneck", options=options)
    joins = Projection(first=True, neighbours=int(bool(c.trigram_input)))
    embed = embedding(c, width=size, norm=plain, projection=joins)
    lm = replace(lm_head(c), beside=width - size)
    pooler = Pooling(act="tanh" if c.classifier_activation else None)
    blocks = [block] * c.layers("num_hidden_layers")
    return encoder(c, "mobilebert", blocks, embed=embed, heads=heads(c, lm), pooler=pooler)
