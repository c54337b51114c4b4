"""Qwen 3.5: three layers of gated DeltaNet, one of gated attention. qwen.ai/blog?id=qwen3.5."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._gguf import Said
from pellucid.families._read import grouped_heads, read_rope
from pellucid.families.qwen3_next import gguf_decoder, mixers, recurrent, table
from pellucid.families.qwen3_next import gguf_sizes as next_sizes
from pellucid.spec import Block, Ffn, PreNorm, Spec
from pellucid.weights.table import Below, Entry, Flat, Fused, MinusExp, Tiled

CLASSES = classes("Qwen3_5", "causal-lm") | {
    None: "Qwen3_5TextModel", "sequence-classification": "Qwen3_5TextForSequenceClassification",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 248320, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32,
    "num_attention_heads": 16, "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "partial_rotary_factor": 0.25, "attention_bias": False, "attention_dropout": 0.0,
    "head_dim": 256, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "layer_types": None, "full_attention_interval": 4,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
IGNORED = {
    "mtp_num_hidden_layers": None, "mtp_use_dedicated_embeddings": None, "attn_output_gate": (True,),
    "mamba_ssm_dtype": None,
}  # fmt: skip

BASE = "model."
LINEAR: dict[str, Entry] = {
    "model.layers.{i}.linear_attn.in_proj_qkv.weight": Fused("blocks.{i}.attn.{}.weight", "qkv"),
    **{f"model.layers.{{i}}.linear_attn.in_proj_{x}.weight": f"blocks.{{i}}.attn.{x}.weight" for x in "zba"},
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    return table(c, LINEAR)


def gguf_weights(c: Config) -> dict[str, Entry]:
    """As Qwen3-Next has it, but for the order of value heads."""
    groups, values = c.size("linear_num_key_heads"), c.size("linear_num_value_heads")

    def tiled(name: str, dim: int = 0) -> Tiled:
        return Tiled(f"blocks.{{i}}.attn.{name}", groups, values // groups, dim)

    def qkv(name: str) -> Below:
        own = [f"blocks.{{i}}.attn.{x}{name}" for x in "qk"]
        return Below((*own, tiled("v" + name)))

    own: dict[str, Entry] = {
        "blk.{i}.attn_qkv.weight": qkv(".weight"),
        "blk.{i}.ssm_conv1d.weight": Flat(qkv("_conv.weight"), dim=1),
        "blk.{i}.attn_gate.weight": tiled("z.weight"),
        "blk.{i}.ssm_alpha.weight": tiled("a.weight"),
        "blk.{i}.ssm_beta.weight": tiled("b.weight"),
        "blk.{i}.ssm_dt.bias": tiled("dt_bias"),
        "blk.{i}.ssm_a": MinusExp(tiled("a_log")),
        "blk.{i}.ssm_out.weight": tiled("out.weight", dim=1),
    }
    return gguf_decoder(c, own)


def gguf_sizes(said: Said) -> dict[str, Any]:
    """Sizes, and positions of three axes."""
    axes = said.by_layer("rope.dimension_sections")
    sections = {"mrope_section": axes and axes[:3], "mrope_interleaved": True}
    found = next_sizes(said) | _gguf.extra_layers(said, MTP)
    turned = {"rope_theta": said.get("rope.freq_base"), "partial_rotary_factor": found["partial_rotary_factor"]}
    return found | {"rope_parameters": {**found.pop("rope_scaling", {"rope_type": "default"}), **turned, **sections}}


MTP = "mtp_num_hidden_layers"
GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS | _gguf.HEAD_DIM | _gguf.DELTANET_KEYS,
    lambda c: _gguf.further_layers(c, gguf_weights(c), MTP), more=gguf_sizes, says=recurrent,
)  # fmt: skip


def text(c: Config, family: str, mlp: Ffn) -> Spec:
    """Positions have three axes, pair by pair in turn, that only pictures tell apart."""
    norm = rms(c, offset=1.0, round_first=False)
    rope = read_rope(c, grouped_heads(c)[2], sections=(11, 11, 10), woven=True)
    blocks = [Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm)) for attn in mixers(c, norm, rope=rope)]
    return decoder(c, family, blocks, norm=norm)


def spec(c: Config) -> Spec:
    return text(c, "qwen3_5_text", gated(c))
