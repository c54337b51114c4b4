"""RecurrentGemma: two layers of RG-LRU, one of windowed attention. Papers: arXiv 2402.19427, 2404.07839."""

import struct
from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import attention, classes, decoder, gated, rms
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, Custom, Embed, LmHead, Mamba, Mixer, PreNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("RecurrentGemma", "causal-lm")
DEFAULTS = {
    "num_hidden_layers": 26, "vocab_size": 256000, "hidden_size": 2560, "intermediate_size": 7680,
    "num_attention_heads": 10, "lru_width": None, "attention_window_size": 2048, "conv1d_width": 4,
    "logits_soft_cap": 30.0, "rms_norm_eps": 1e-6, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    "hidden_activation": "gelu_pytorch_tanh", "rope_parameters": None, "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5, "block_types": ["recurrent", "recurrent", "attention"], "attention_dropout": 0.0,
    "num_key_value_heads": None, "attention_bias": False, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"sliding_window": "attention_window_size"}
IGNORED = {
    "w_init_variance_scale": None, "final_w_init_variance_scale": None, "head_dim": None, "layer_types": None,
    "layers_block_type": None, "embeddings_scale_by_sqrt_dim": (True,),
}  # fmt: skip

BASE = "model."
TEMPORAL = "model.layers.{i}.temporal_block."
WEIGHTS: dict[str, Entry] = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.final_norm.weight": "norm.weight",
    "lm_head.weight": "lm_head.out.weight",
    "model.layers.{i}.temporal_pre_norm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.channel_pre_norm.weight": "blocks.{i}.mlp_norm.weight",
    **{f"{TEMPORAL}{x}_proj.{{p}}": f"blocks.{{i}}.attn.{x}.{{p}}" for x in "qkvo"},
    **{f"{TEMPORAL}linear_{x}.{{p}}": f"blocks.{{i}}.attn.{x}.{{p}}" for x in ("x", "y", "out")},
    TEMPORAL + "conv_1d.{p}": "blocks.{i}.attn.conv.{p}",
    TEMPORAL + "rg_lru.recurrent_param": "blocks.{i}.attn.decay",
    TEMPORAL + "rg_lru.input_gate_{p}": "blocks.{i}.attn.input_gate.{p}",
    TEMPORAL + "rg_lru.recurrent_gate_{p}": "blocks.{i}.attn.decay_gate.{p}",
    **{f"model.layers.{{i}}.mlp_block.{x}_proj.{{p}}": f"blocks.{{i}}.mlp.{x}.{{p}}" for x in ("gate", "up", "down")},
}


def spec(c: Config) -> Spec:
    width, heads, norm = c.size("hidden_size"), c.size("num_attention_heads"), rms(c, offset=1.0, round_first=False)
    inner, types, layers = c.size("lru_width", null=width), c.block_types, c.layers("num_hidden_layers")
    whole = gated(c, act="hidden_activation", bias=True)
    mlp = replace(whole, hidden=whole.hidden // 2)  # the file counts gate and up together
    lru = Custom(
        path="pellucid.families.recurrent_gemma.lru:RgLru",
        options=(("inner", inner), ("heads", heads), ("kernel", c.size("conv1d_width")), ("act", mlp.act)),
    )
    attn = attention(
        c, rope=read_rope(c, grouped_heads(c)[2]), window=c.size("attention_window_size"),
        biases="qkvo" if c.attention_bias else "o",
    )  # fmt: skip
    kinds: dict[str, Mixer] = {"recurrent": lru, "attention": attn}
    if (
        not isinstance(types, (list, tuple))
        or not types
        or not all(kind in [*kinds] for kind in types)
        or inner % heads
    ):
        what = f"block_types={types} and {heads} heads for {inner} channels"
        raise ConfigError(what, where=c.where, next=f"known types: {', '.join(kinds)}")
    blocks = [Block(attn=kinds[types[i % len(types)]], mlp=mlp, order=PreNorm(norm=norm)) for i in range(layers)]
    embed = Embed(vocab=c.size("vocab_size"), scale=bfloat16(width**0.5))
    head = LmHead(tied=c.tie_word_embeddings, cap=c.number("logits_soft_cap", float, least=1e-6))
    return decoder(c, "recurrent_gemma", blocks, norm=norm, embed=embed, head=head)


def bfloat16(x: float) -> float:
    """x rounded to bfloat16, as which the scale of the embedding is kept whatever the weights are."""
    bits = int.from_bytes(struct.pack(">f", x), "big")
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return float(struct.unpack(">f", bits.to_bytes(4, "big"))[0])


# A number for each channel, and the past of the convolution.
KEEPS = {"RgLru": lambda part: (Mamba(inner=part["inner"], state=1, kernel=part["kernel"], dt_rank=1),)}
