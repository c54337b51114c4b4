"""DeBERTa v2 and v3. Papers: arXiv 2006.03654, 2111.09543."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import deberta
from pellucid.families._encoder import USUAL, classes, layer_norm
from pellucid.families._read import activation
from pellucid.families.deberta import block, common, disentangled, distances, encoder
from pellucid.spec import Block, Custom, Spec
from pellucid.weights.table import Entry

CLASSES = classes("DebertaV2", *USUAL)
DEFAULTS = deberta.DEFAULTS | {
    "vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
    "intermediate_size": 6144, "position_buckets": None, "share_att_key": False, "norm_rel_ebd": "none",
    "conv_kernel_size": 0, "conv_groups": 1, "conv_act": "tanh",
}  # fmt: skip
IGNORED = deberta.IGNORED

BASE = deberta.BASE


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    attn = "deberta.encoder.layer.{i}.attention.self"
    return {
        "deberta.encoder.LayerNorm.{p}": "relative_bias.norm.{p}",
        "deberta.encoder.conv.conv.{p}": "blocks.0.conv.{p}",
        "deberta.encoder.conv.LayerNorm.{p}": "blocks.0.conv_norm.{p}",
        f"{attn}.query_proj.{{p}}": "blocks.{i}.attn.q.{p}",
        f"{attn}.key_proj.{{p}}": "blocks.{i}.attn.k.{p}",
        f"{attn}.value_proj.{{p}}": "blocks.{i}.attn.v.{p}",
        f"{attn}.pos_key_proj.{{p}}": "blocks.{i}.attn.pos_k.{p}",
        f"{attn}.pos_query_proj.{{p}}": "blocks.{i}.attn.pos_q.{p}",
    } | common(c)


def spec(c: Config) -> Spec:
    attn = disentangled(c, biases="qkvo", pos_k_bias=True, shared=c.share_att_key)
    if c.get("attention_head_size", attn["head_dim"]) != attn["head_dim"]:
        what = f"attention_head_size={c.get('attention_head_size')}, not {attn['head_dim']}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    norms = [each.strip() for each in c.norm_rel_ebd.lower().split("|")]
    buckets = max(c.number("position_buckets", least=-1, null=0), 0)
    bias = distances(c, buckets=buckets, norm=layer_norm(c) if "layer_norm" in norms else None)
    plain = block(c, attn)
    blocks: list[Block | Custom] = [plain] * c.layers("num_hidden_layers")
    if kernel := c.number("conv_kernel_size"):
        options = (
            ("block", plain), ("kernel", kernel), ("groups", c.size("conv_groups")), ("norm", layer_norm(c)),
            ("act", activation(c.conv_act, c)), ("dropout", plain.dropout),
        )  # fmt: skip
        blocks[0] = Custom(path="pellucid.families.deberta_v2.convolved:ConvolvedBlock", options=options)
    return encoder(c, "deberta-v2", blocks, bias)
