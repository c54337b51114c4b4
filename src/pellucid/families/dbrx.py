"""DBRX. databricks.com/blog/introducing-dbrx-new-state-art-open-llm."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder
from pellucid.families._gguf import DECODER, QKV, Gguf, Said
from pellucid.families._moe import experts
from pellucid.families._read import activation, read_rope
from pellucid.spec import Attention, Block, Embed, LayerNorm, Mlp, Moe, PreNorm, Rope, Router, Spec
from pellucid.weights.table import Entry, Fused, Stacked, Transposed

CLASSES = classes("Dbrx", "causal-lm")
DEFAULTS = {
    "d_model": 2048, "n_heads": 16, "n_layers": 24, "max_seq_len": 2048, "vocab_size": 32000, "resid_pdrop": 0.0,
    "emb_pdrop": 0.0, "attn_config": None, "ffn_config": None, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip
ALIASES = {
    "hidden_size": "d_model", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
    "max_position_embeddings": "max_seq_len",
}  # fmt: skip
IGNORED = {"output_router_logits": None, "num_key_value_heads": None}  # said in attn_config

BASE = "transformer."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    sizes = c.section("ffn_config") or Config({}, where=c.where)
    count, at, expert = sizes.size("moe_num_experts", null=4), "transformer.blocks.{i}.", "blocks.{i}.mlp.experts.{e}."
    return {
        "transformer.wte.weight": "embed.tokens.weight",
        at + "norm_attn_norm.norm_1.weight": "blocks.{i}.attn_norm.weight",
        at + "norm_attn_norm.attn.Wqkv.weight": Fused("blocks.{i}.attn.{}.weight", "qkv"),
        at + "norm_attn_norm.attn.out_proj.weight": "blocks.{i}.attn.o.weight",
        at + "norm_attn_norm.norm_2.weight": "blocks.{i}.mlp_norm.weight",
        at + "ffn.router.layer.weight": "blocks.{i}.mlp.router.weight",
        at + "ffn.experts.mlp.w1": Stacked(expert + "gate.weight", count, flat=True),
        at + "ffn.experts.mlp.v1": Stacked(expert + "up.weight", count, flat=True),
        at + "ffn.experts.mlp.w2": Stacked(Transposed(expert + "down.weight"), count, flat=True),
        "transformer.norm_f.weight": "norm.weight",
        "lm_head.weight": "lm_head.out.weight",
    }


def sections(said: Said) -> dict[str, Any]:
    """What stands in the sections of attention and experts."""
    return {
        "attn_config": {
            "kv_n_heads": said.get("attention.head_count_kv"), "clip_qkv": said.get("attention.clamp_kqv"),
            "rope_theta": said.get("rope.freq_base"),
        },
        "ffn_config": {
            "ffn_hidden_size": said.get("feed_forward_length"), "moe_num_experts": said.get("expert_count"),
            "moe_top_k": said.get("expert_used_count"),
        },
    }  # fmt: skip


GGUF = Gguf(
    {
        "d_model": "embedding_length", "n_layers": "block_count", "n_heads": "attention.head_count",
        "max_seq_len": "context_length",
    },
    lambda c: DECODER | QKV | _gguf.experts(c.ffn_config["moe_num_experts"]) | {
        "blk.{i}.attn_output_norm.weight": "blocks.{i}.mlp_norm.weight",
    },
    more=sections,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = LayerNorm(eps=1e-5, bias=False)
    block = Block(attn=_attention(c), mlp=_moe(c), order=PreNorm(norm=norm), dropout=c.share("resid_pdrop"))
    embed = Embed(vocab=c.size("vocab_size"), dropout=c.share("emb_pdrop"))
    return decoder(c, "dbrx", [block] * c.layers("n_layers"), norm=norm, embed=embed)


def _attention(c: Config) -> Attention:
    s, heads = c.section("attn_config") or Config({}, where=c.where), c.size("n_heads")
    kv_heads, head_dim = s.size("kv_n_heads", null=1), c.size("d_model") // heads
    if heads % kv_heads or head_dim % 2:
        what = f"{heads} heads of {head_dim} channels over {kv_heads} key heads"
        raise ConfigError(what, where=c.where, next="correct n_heads, d_model or kv_n_heads")
    attn = Attention(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, scale=head_dim**-0.5, causal=True,
        rope=_rope(c, s, head_dim), clip=s.number("clip_qkv", float, null=None),
        dropout=s.share("attn_pdrop", null=0.0),
    )  # fmt: skip
    _closed(s)
    return attn


def _rope(c: Config, s: Config, head_dim: int) -> Rope:
    """The base stands in `attn_config`; transformers 5 writes another one beside it."""
    rope, theta = read_rope(c, head_dim), s.number("rope_theta", float, null=None)
    if theta is None:
        return rope
    if theta != rope.theta and ("rope_parameters" in c or "rope_theta" in c):
        what = f"rope_theta={theta!r} in attn_config and {rope.theta!r} outside contradict"
        raise ConfigError(what, where=c.where, next="keep the one that the model was trained with")
    return replace(rope, theta=float(theta))


def _moe(c: Config) -> Moe:
    s = c.section("ffn_config") or Config({}, where=c.where)
    power, act = s.get("moe_normalize_expert_weights", 1.0), s.section("ffn_act_fn")
    if power not in (None, 1):
        what = f"moe_normalize_expert_weights={power!r}: weights are divided by their sum, or not at all"
        raise ConfigError(what, where=s.where, next="give 1 or null")
    expert = Mlp(
        hidden=s.size("ffn_hidden_size", null=3584), gated=True,
        act=activation(act.get("name") if act is not None else "silu", c),
    )  # fmt: skip
    router = Router(top_k=s.size("moe_top_k", null=1), renormalise=power is not None)
    named = Config({"num_experts": s.size("moe_num_experts", null=4)}, where=s.where)
    moe = experts(named, router, expert=expert, jitter=s.share("moe_jitter_eps", null=0.0))
    moe = replace(moe, loss=s.number("moe_loss_weight", float, null=0.01))
    s.get("hidden_size")  # the model's
    _closed(s)
    return moe


def _closed(s: Config) -> None:
    left = {key: value for key, value in s.unread().items() if key not in ("model_type", "initializer_range")}
    if left:
        raise ConfigError(f"keys that nothing reads: {left}", where=s.where, next="remove or rename them")
