"""SqueezeBERT: BERT whose projections are convolutions in groups. Paper: arXiv 2006.11316."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, USUAL, attention, classes, encoder, heads, idle, lm_head
from pellucid.families._read import activation
from pellucid.spec import Block, Custom, LayerNorm, PostNorm, Spec
from pellucid.weights.table import Entry, Squeezed, Stacked

CLASSES = classes("SqueezeBert", *USUAL, pretraining="masked-lm", encoding=True)
GROUPS = {
    "q_groups": 4, "k_groups": 4, "v_groups": 4, "post_attention_groups": 1, "intermediate_groups": 4,
    "output_groups": 4,
}  # fmt: skip
DEFAULTS = shared.DEFAULTS | GROUPS | {"embedding_size": 768}
IGNORED = shared.IGNORED | {"is_decoder": (False,)}

BASE = "transformer."
PLACES = {
    "attention.query": ("attn.q", "q_groups"), "attention.key": ("attn.k", "k_groups"),
    "attention.value": ("attn.v", "v_groups"), "post_attention.conv1d": ("attn.o", "post_attention_groups"),
    "intermediate.conv1d": ("mlp.up", "intermediate_groups"), "output.conv1d": ("mlp.down", "output_groups"),
}  # fmt: skip
HEADS = idle("transformer.pooler.dense", "masked-lm", "token-classification", "question-answering")


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer = "transformer.encoder.layers.{i}"
    found: dict[str, Entry] = {
        f"{layer}.post_attention.layernorm.{{p}}": "blocks.{i}.attn_norm.{p}",
        f"{layer}.output.layernorm.{{p}}": "blocks.{i}.mlp_norm.{p}",
    }
    for name, (slot, groups) in PLACES.items():
        part, count = f"blocks.{{i}}.{slot}.parts.{{e}}", c.size(groups)
        found[f"{layer}.{name}.weight"] = Stacked(Squeezed(f"{part}.weight", (2,)), count, flat=True)
        found[f"{layer}.{name}.bias"] = Stacked(f"{part}.bias", count, flat=True)
    return found | under(BASE, BERT, "bert.") | CLS


def spec(c: Config) -> Spec:
    width, hidden = c.size("hidden_size"), c.size("intermediate_size")
    groups = {key: c.size(key) for key in GROUPS}
    if c.embedding_size != width or any(width % n for n in groups.values()) or any(
        hidden % groups[key] for key in ("intermediate_groups", "output_groups")
    ):  # fmt: skip
        what = f"hidden_size={width}, embedding_size={c.embedding_size}, intermediate_size={hidden} in groups {groups}"
        raise ConfigError(what, where=c.where, next="widths are equal, and multiples of the groups")
    of = {key.removesuffix("_groups"): n for key, n in groups.items()}
    mixer = (
        ("attention", attention(c)), ("q", of["q"]), ("k", of["k"]), ("v", of["v"]), ("o", of["post_attention"]),
    )  # fmt: skip
    ffn = (
        ("hidden", hidden), ("act", activation(c.hidden_act, c)), ("up", of["intermediate"]), ("down", of["output"]),
    )  # fmt: skip
    block = Block(
        attn=Custom(path="pellucid.families.squeezebert.grouped:GroupedAttention", options=mixer),
        mlp=Custom(path="pellucid.nn.grouped:GroupedMlp", options=ffn),
        order=PostNorm(norm=LayerNorm(eps=1e-12)),  # whatever `layer_norm_eps` says
        dropout=c.share("hidden_dropout_prob"),
    )
    return encoder(c, "squeezebert", [block] * c.layers("num_hidden_layers"), heads=heads(c, lm_head(c)))
