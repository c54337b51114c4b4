"""Qwen 3.5: three layers of gated DeltaNet, one of gated attention. qwen.ai/blog?id=qwen3.5."""

from pellucid.config import Config
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._read import grouped_heads, read_rope
from pellucid.families.qwen3_next import mixers, table
from pellucid.spec import Block, Ffn, PreNorm, Spec
from pellucid.weights.table import Entry, Fused

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


def text(c: Config, family: str, mlp: Ffn) -> Spec:
    """Positions have three axes, pair by pair in turn, that only pictures tell apart."""
    norm = rms(c, offset=1.0, round_first=False)
    rope = read_rope(c, grouped_heads(c)[2], sections=(11, 11, 10), woven=True)
    blocks = [Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm)) for attn in mixers(c, norm, rope=rope)]
    return decoder(c, family, blocks, norm=norm)


def spec(c: Config) -> Spec:
    return text(c, "qwen3_5_text", gated(c))
