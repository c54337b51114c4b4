"""CPM-Ant. Code: github.com/OpenBMB/CPM-Live."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import classes
from pellucid.spec import Block, Custom, Embed, LmHead, Mlp, PreNorm, RmsNorm, Spec, Stack
from pellucid.weights.table import Entry, Fused

CLASSES = classes("CpmAnt", "causal-lm")
DEFAULTS = {
    "vocab_size": 30720, "hidden_size": 4096, "num_attention_heads": 32, "dim_head": 128, "dim_ff": 10240,
    "num_hidden_layers": 48, "dropout_p": 0.0, "position_bias_num_buckets": 512, "position_bias_max_distance": 2048,
    "eps": 1e-6, "prompt_types": 32, "prompt_length": 32, "segment_types": 32, "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {
    "tie_word_embeddings": None,  # files always have both, and no table holds the other
    "init_std": None, "position_bias_cnt": None, "half": None,
}  # fmt: skip

BASE = "cpmant."
LAYER = "cpmant.encoder.layers.{i}"
WEIGHTS: dict[str, Entry] = {
    "cpmant.input_embedding.weight": Fused("{}.weight", ("embed.tokens", "body.prompts")),
    "cpmant.segment_embedding.weight": "body.segments.weight",
    "cpmant.position_bias.relative_attention_bias": "body.bias.weight",
    f"{LAYER}.self_att.layernorm_before_attention.weight": "body.blocks.{i}.attn_norm.weight",
    **{f"{LAYER}.self_att.self_attention.project_{x}.weight": f"body.blocks.{{i}}.attn.{x}.weight" for x in "qkv"},
    f"{LAYER}.self_att.self_attention.attention_out.weight": "body.blocks.{i}.attn.o.weight",
    f"{LAYER}.ffn.layernorm_before_ffn.weight": "body.blocks.{i}.mlp_norm.weight",
    f"{LAYER}.ffn.ffn.w_in.w_0.weight": "body.blocks.{i}.mlp.gate.weight",
    f"{LAYER}.ffn.ffn.w_in.w_1.weight": "body.blocks.{i}.mlp.up.weight",
    f"{LAYER}.ffn.ffn.w_out.weight": "body.blocks.{i}.mlp.down.weight",
    "cpmant.encoder.output_layernorm.weight": "body.norm.weight",
    "lm_head.weight": "lm_head.out.weight",
}


def spec(c: Config) -> Spec:
    width, heads, prompt, kinds = (
        c.size(key) for key in ("hidden_size", "num_attention_heads", "prompt_length", "segment_types")
    )
    buckets, types, dropout = (
        c.number("position_bias_num_buckets", least=4),
        c.size("prompt_types"),
        c.share("dropout_p"),
    )
    if any(map(any, c.get("mask_modules") or ())):
        raise ConfigError("mask_modules leave parts out", where=c.where, next="give a file of the whole model")
    if types < 3 or kinds < 3:
        what = f"prompt_types={types}, segment_types={kinds}: a text has the third of each"
        raise ConfigError(what, where=c.where, next="correct config.json")
    norm = RmsNorm(eps=c.number("eps", float))
    attn = Custom(path="pellucid.families.cpmant.prompt:PromptedAttention", options=(
        ("heads", heads), ("head_dim", c.size("dim_head")), ("prompt", prompt), ("dropout", dropout),
    ))  # fmt: skip
    mlp = Mlp(hidden=c.size("dim_ff"), act="gelu", gated=True, dropout=dropout)
    block = Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm), dropout=dropout)
    bias = Custom(path="pellucid.families.cpmant.prompt:SegmentBias", options=(
        ("buckets", buckets), ("max_distance", c.number("position_bias_max_distance", least=buckets)),
        ("segments", kinds), ("prompt", prompt),
    ))  # fmt: skip
    body = Custom(path="pellucid.families.cpmant.prompt:Prompted", options=(
        ("blocks", (block,) * c.layers("num_hidden_layers")), ("heads", heads), ("bias", bias),
        ("prompts", types * prompt), ("prompt", prompt), ("segments", kinds), ("norm", norm), ("mutual", True),
    ))  # fmt: skip
    return Spec(
        family="cpmant",
        stack=Stack(width=width, embed=Embed(vocab=c.size("vocab_size")), blocks=(), norm=None, body=body),
        heads={"causal-lm": LmHead(tied=False, labels_ahead=True)},
    )
