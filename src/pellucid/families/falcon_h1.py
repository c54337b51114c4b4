"""Falcon H1: attention and Mamba 2 side by side in every block, and multipliers everywhere. Paper: arXiv 2507.22448."""

from collections.abc import Mapping
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError, Unsupported
from pellucid.families import _gguf
from pellucid.families._decoder import attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, MAMBA2_KEYS, RMS, Gguf, Said
from pellucid.families._recurrent import BESIDE, JAMBA, MAMBA2, mamba2
from pellucid.spec import Block, Embed, LmHead, PreNorm, Spec, Together
from pellucid.weights.table import Below, Entry, Scaled, mapped

CLASSES = classes("FalconH1", "causal-lm")
DEFAULTS = {
    "vocab_size": 128000, "tie_word_embeddings": False, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
    "rms_norm_eps": 1e-5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 8192,
    "attention_dropout": 0.0, "mamba_d_ssm": 1024, "mamba_n_heads": 128, "mamba_d_head": None, "mamba_n_groups": 1,
    "mamba_d_state": 256, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False,
    "mamba_norm_before_gate": True, "mamba_rms_norm": False, "time_step_limit": None, "projectors_bias": False,
    "rope_parameters": None, "rope_theta": 10000.0, "lm_head_multiplier": 1.0, "embedding_multiplier": 1.0,
    "mlp_multipliers": None, "key_multiplier": 1.0, "attention_out_multiplier": 1.0, "attention_in_multiplier": 1.0,
    "ssm_multipliers": None, "ssm_in_multiplier": 1.0, "ssm_out_multiplier": 1.0, "attention_bias": False,
    "mlp_bias": False,
}  # fmt: skip
IGNORED = BESIDE | {"mamba_use_mlp": (True,), "layer_types": None, "layers_block_type": None}

BASE = "model."


def deeper(part: str, table: Mapping[str, Entry]) -> dict[str, Entry]:
    """A mixer's names, whose slots lie one level deeper."""
    return {name: mapped(entry, lambda slot: slot.replace(".attn.", f".attn.{part}.")) for name, entry in table.items()}


SELF = {name: entry for name, entry in JAMBA.items() if "_proj" in name and ".self_attn." in name}
WEIGHTS: dict[str, Entry] = JAMBA | deeper("attention", SELF) | {
    f"model.layers.{{i}}.mamba.{name}": entry for name, entry in deeper("mamba", MAMBA2).items()
}  # fmt: skip


def gguf_weights(c: Config) -> dict[str, Entry]:
    own = {name: entry for name, entry in DECODER.items() if ".attn_" in name and "norm" not in name}
    mixers = deeper("attention", own) | deeper("mamba", _gguf.mamba2(c.mamba_n_groups))
    found = {**DECODER, **mixers, "blk.{i}.ffn_norm": "blocks.{i}.mlp_norm.weight"}  # as llama.cpp's converter calls it
    return found | multiplied(c) if any("multiplier" in key for key in c.given()) else found


def multiplied(c: Config) -> dict[str, Entry]:
    """Weights with the multipliers of what they are applied to, and of what they say."""
    gate, down = multipliers(c, "mlp_multipliers", 2)
    into, block = c.attention_in_multiplier, "blocks.{i}."
    table: dict[str, Entry] = {
        "token_embd.weight": Scaled("embed.tokens.weight", c.embedding_multiplier),
        "output.weight": Scaled("lm_head.out.weight", c.lm_head_multiplier),
        "blk.{i}.ffn_gate.weight": Scaled(block + "mlp.gate.weight", gate),
        "blk.{i}.ffn_down.weight": Scaled(block + "mlp.down.weight", down),
        "blk.{i}.ssm_out.weight": Scaled(block + "attn.mamba.out.weight", c.ssm_out_multiplier),
        "blk.{i}.ssm_in.weight": Below(tuple(
            Scaled(f"{block}attn.mamba.{part}.weight", times * c.ssm_in_multiplier)
            for part, times in zip(("z", "x", "b", "c", "dt"), multipliers(c, "ssm_multipliers", 5))
        )),
    }  # fmt: skip
    times = {"q": into, "k": into * c.key_multiplier, "v": into, "output": c.attention_out_multiplier}
    return table | {
        f"blk.{{i}}.attn_{name}.weight": Scaled(f"{block}attn.attention.{name[0]}.weight", by)
        for name, by in times.items()
    }  # fmt: skip


def neutral(c: Config) -> dict[str, Any]:
    """The same model with its multipliers in its weights.

    Raises:
        Unsupported: they cannot be.
    """
    found = {key: value for key, value in c.given().items() if "multiplier" not in key}
    if not c.mamba_rms_norm:
        found["mamba_norm_before_gate"] = False  # there is none, and files mean this
    if len(found) == len(c.given()):
        return found
    if any(c.get(key) for key in ("attention_bias", "mlp_bias", "projectors_bias", "mamba_proj_bias")):
        raise Unsupported("biases beside multipliers", where=c.where, next="keep the safetensors checkpoint")
    if c.tie_word_embeddings and c.embedding_multiplier != c.lm_head_multiplier:
        raise Unsupported("one matrix with two multipliers", where=c.where, next="keep the safetensors checkpoint")
    return found


def gguf_sizes(said: Said) -> dict[str, Any]:
    """The multipliers are in a file's weights."""
    return _gguf.state_at(said, 0) | {
        "mamba_expand": None,  # `mamba_d_ssm` says it, and need be no multiple of the width
        "mamba_d_head": said.get("ssm.inner_size") // said.get("ssm.time_step_rank"),
        "mamba_rms_norm": said.has("blk.0.ssm_norm.weight"), "projectors_bias": said.has("blk.0.ssm_out.bias"),
        "attention_bias": said.has("blk.0.attn_q.bias"), "mlp_bias": said.has("blk.0.ffn_up.bias"),
    }  # fmt: skip


GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | MAMBA2_KEYS | {"mamba_d_ssm": "ssm.inner_size"}, gguf_weights,
    set={"mamba_norm_before_gate": False}, more=gguf_sizes, alike=neutral,
)  # fmt: skip


def multipliers(c: Config, key: str, count: int) -> list[float]:
    given = c.get(key)
    if given is None:
        return [1.0] * count
    if not isinstance(given, list) or len(given) != count or not all(isinstance(x, (int, float)) for x in given):
        raise ConfigError(f"{key}={given!r} is no list of {count} numbers", where=c.where, next="correct config.json")
    return [float(x) for x in given]


def spec(c: Config) -> Spec:
    def times(name: str) -> float:
        return float(c.number(f"{name}_multiplier", float))

    z, x, b, c_, dt = multipliers(c, "ssm_multipliers", 5)
    gate, down = multipliers(c, "mlp_multipliers", 2)
    mamba = mamba2(
        c, norm_first=c.mamba_norm_before_gate, out_bias=c.projectors_bias,
        scales=(z, x, b, c_, dt), **({} if c.mamba_rms_norm else {"norm": None}),
    )  # fmt: skip
    both = Together(
        attention=attention(c, k_scale=times("key")), mamba=mamba,
        attention_scales=(times("attention_in"), times("attention_out")),
        mamba_scales=(times("ssm_in"), times("ssm_out")),
    )  # fmt: skip
    mlp = gated(c, bias=c.mlp_bias, gate_scale=gate, out_scale=down)
    block = Block(attn=both, mlp=mlp, order=PreNorm(norm=rms(c)))
    return decoder(
        c, "falcon_h1", [block] * c.layers("num_hidden_layers"),
        embed=Embed(vocab=c.size("vocab_size"), scale=times("embedding")),
        head=LmHead(tied=c.tie_word_embeddings, logit_scale=times("lm_head")),
    )  # fmt: skip
