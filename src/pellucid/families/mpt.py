"""MPT. Blog: databricks.com/blog/mpt-7b."""

from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import GENERIC, LABEL_HEADS, classes, decoder, layer_norm
from pellucid.families._gguf import DECODER, QKV, Gguf, Said
from pellucid.spec import Alibi, Attention, Block, Embed, Mlp, PreNorm, Spec
from pellucid.weights.table import Entry, Fused

CLASSES = classes("Mpt", *GENERIC) | {"pretraining": "MptForCausalLM"}
DEFAULTS = {
    "d_model": 2048, "n_heads": 16, "n_layers": 24, "expansion_ratio": 4, "max_seq_len": 2048, "vocab_size": 50368,
    "resid_pdrop": 0.0, "layer_norm_epsilon": 1e-5, "emb_pdrop": 0.0, "attn_config": None, "use_cache": False,
    "tie_word_embeddings": True, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
ALIASES = {
    "num_attention_heads": "n_heads", "hidden_size": "d_model", "num_hidden_layers": "n_layers",
    "max_position_embeddings": "max_seq_len",
}  # fmt: skip
IGNORED = {
    "learned_pos_emb": None,  # means something where there is no ALiBi
    "init_device": None, "embedding_fraction": None,  # of training
    "norm_type": ("low_precision_layernorm", "layernorm"),
    "no_bias": (True,), "logit_scale": (None,),
}  # fmt: skip

BASE = "transformer."
HEADS = LABEL_HEADS
WEIGHTS: dict[str, Entry] = {
    "transformer.wte.weight": "embed.tokens.weight",
    "transformer.blocks.{i}.norm_1.weight": "blocks.{i}.attn_norm.weight",
    "transformer.blocks.{i}.attn.Wqkv.weight": Fused("blocks.{i}.attn.{}.weight", "qkv"),
    "transformer.blocks.{i}.attn.out_proj.weight": "blocks.{i}.attn.o.weight",
    "transformer.blocks.{i}.norm_2.weight": "blocks.{i}.mlp_norm.weight",
    "transformer.blocks.{i}.ffn.up_proj.weight": "blocks.{i}.mlp.up.weight",
    "transformer.blocks.{i}.ffn.down_proj.weight": "blocks.{i}.mlp.down.weight",
    "transformer.norm_f.weight": "norm.weight",
    "lm_head.weight": "lm_head.out.weight",
    "qa_outputs.{p}": "span.out.{p}",
}

# What other values of the attention's section would change, and no published model has.
FIXED = {"alibi": True, "qk_ln": False, "prefix_lm": False, "attn_type": "multihead_attention"}


def sections(said: Said) -> dict[str, Any]:
    """What stands in the attention's section."""
    clip, most = said.get("attention.clamp_kqv"), said.get("attention.max_alibi_bias")
    return {
        "expansion_ratio": said.get("feed_forward_length") // said.get("embedding_length"),
        "attn_config": {"clip_qkv": clip, "alibi_bias_max": int(most) if most else None},
    }


GGUF = Gguf(
    {
        "d_model": "embedding_length", "n_layers": "block_count", "n_heads": "attention.head_count",
        "max_seq_len": "context_length", "layer_norm_epsilon": "attention.layer_norm_epsilon",
    },
    DECODER | QKV, more=sections,
)  # fmt: skip


def spec(c: Config) -> Spec:
    width, heads, norm = c.size("d_model"), c.size("n_heads"), layer_norm(c, "layer_norm_epsilon", bias=False)
    s = c.section("attn_config") or Config({}, where=c.where)
    for key, usual in FIXED.items():
        if s.get(key, usual) != usual:
            raise ConfigError(f"attn_config.{key}={s.get(key)!r}", where=s.where, next=f"only {usual!r} is known")
    if width % heads:
        raise ConfigError(f"d_model={width} in {heads} heads", where=c.where, next="correct config.json")
    attn = Attention(
        heads=heads, kv_heads=heads, head_dim=width // heads, causal=True,
        scale=s.number("softmax_scale", float, null=(width // heads) ** -0.5),
        clip=s.number("clip_qkv", float, null=None) or None, dropout=s.share("attn_pdrop", null=0.0),
    )  # fmt: skip
    mlp = Mlp(hidden=c.size("expansion_ratio") * width, act="gelu", gated=False)
    block = Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm), dropout=c.share("resid_pdrop"))
    bias = Alibi(bias_max=s.size("alibi_bias_max", null=8))
    embed = Embed(vocab=c.size("vocab_size"), dropout=c.share("emb_pdrop"))
    return decoder(c, "mpt", [block] * c.layers("n_layers"), norm=norm, embed=embed, relative_bias=bias)
