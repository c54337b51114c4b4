"""LFM2: short convolutions, and grouped-query attention every few layers. Paper: arXiv 2511.23404."""

from pellucid.config import Config
from pellucid.families._decoder import HEAD_WEIGHTS, attention, classes, decoder, layer_types
from pellucid.families._gguf import DECODER, HYBRID_KEYS, Gguf, mixed, rope
from pellucid.families._gguf import SHORTCONV as GGUF_CONV
from pellucid.families._read import numbered
from pellucid.families._recurrent import SHORTCONV
from pellucid.spec import Block, Mixer, Mlp, PreNorm, QkNorm, RmsNorm, ShortConv, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Lfm2", "causal-lm")
DEFAULTS = {
    "vocab_size": 65536, "hidden_size": 2560, "intermediate_size": 12288, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 128000, "norm_eps": 1e-5,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True, "rope_parameters": None,
    "rope_theta": 1000000.0, "conv_bias": False, "conv_L_cache": 3, "block_multiple_of": 256,
    "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": True, "full_attn_idxs": None, "layer_types": None,
}  # fmt: skip
ALIASES = {"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size", "theta": "rope_theta"}
IGNORED = {
    "block_use_swiglu": (True,), "block_norm_eps": None, "block_dim": None, "block_mlp_init_scale": None,
    "block_out_init_scale": None, "block_use_xavier_init": None, "conv_dim": None, "conv_dim_out": None,
    "conv_use_xavier_init": None, "num_heads": None, "use_pos_enc": (True,),
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = HEAD_WEIGHTS | {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.embedding_norm.weight": "norm.weight",
    "model.layers.{i}.operator_norm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.ffn_norm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.self_attn.out_proj.weight": "blocks.{i}.attn.o.weight",
    **{f"model.layers.{{i}}.self_attn.{x}_proj.weight": f"blocks.{{i}}.attn.{x}.weight" for x in "qkv"},
    **{f"model.layers.{{i}}.self_attn.{x}_layernorm.weight": f"blocks.{{i}}.attn.{x}_norm.weight" for x in "qk"},
    **{f"model.layers.{{i}}.conv.{name}": slot for name, slot in SHORTCONV.items()},
    "model.layers.{i}.feed_forward.w1.weight": "blocks.{i}.mlp.gate.weight",
    "model.layers.{i}.feed_forward.w3.weight": "blocks.{i}.mlp.up.weight",
    "model.layers.{i}.feed_forward.w2.weight": "blocks.{i}.mlp.down.weight",
}
LFM2_KEYS = HYBRID_KEYS | {"norm_eps": "attention.layer_norm_rms_epsilon", "conv_L_cache": "shortconv.l_cache"}
GGUF = Gguf(
    LFM2_KEYS, DECODER | GGUF_CONV | {"token_embd_norm.weight": "norm.weight"},
    set={"block_auto_adjust_ff_dim": False},
    more=lambda said: rope(said) | mixed(said, "conv") | {"conv_bias": said.has("blk.0.shortconv.conv.bias")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, full = RmsNorm(eps=c.number("norm_eps", float)), numbered(c, "full_attn_idxs")
    kinds: dict[str, Mixer] = {
        "full_attention": attention(c, qk_norm=QkNorm(norm=norm)),
        "conv": ShortConv(kernel=c.size("conv_L_cache"), bias=c.conv_bias),
    }
    types = layer_types(c, [*kinds], lambda i: "full_attention" if full is None or i in full else "conv")
    mlp = Mlp(hidden=hidden(c), act="silu", gated=True)
    return decoder(c, "lfm2", [Block(attn=kinds[kind], mlp=mlp, order=PreNorm(norm=norm)) for kind in types], norm=norm)


def hidden(c: Config) -> int:
    """The MLP's width: two thirds of what the file says, rounded up, unless it says that this has been done."""
    size, times, multiple = (
        c.size("intermediate_size"),
        c.number("block_ffn_dim_multiplier", float, null=None, most=1e3),
        c.size("block_multiple_of"),
    )
    if not c.block_auto_adjust_ff_dim:
        return int(size)
    size = 2 * size // 3
    return int(size if times is None else -(-int(times * size) // multiple) * multiple)
