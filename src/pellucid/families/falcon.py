"""Falcon: 7B and 40B, and the RefinedWeb models with ALiBi. Paper: arXiv 2311.16867."""

from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import GENERIC, LABEL_HEADS, classes, decoder, layer_norm
from pellucid.families._gguf import Said
from pellucid.families._read import activation, read_rope
from pellucid.families.bloom import NAMES as BLOOM
from pellucid.spec import Alibi, Attention, Block, Mlp, Parallel, PreNorm, Spec
from pellucid.weights.table import Entry, Fused, over

CLASSES = classes("Falcon", *GENERIC)
DEFAULTS = {
    "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
    "num_ln_in_parallel_attn": None, "layer_norm_epsilon": 1e-5, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "num_kv_heads": None, "alibi": False, "new_decoder_architecture": False, "multi_query": True,
    "parallel_attn": True, "bias": False, "max_position_embeddings": 2048, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "bos_token_id": 11, "eos_token_id": 11, "pad_token_id": None,
    "ffn_hidden_size": None, "activation": "gelu", "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"n_embed": "hidden_size"}
IGNORED = {"apply_residual_connection_post_layernorm": (False,), "num_attention_kv_heads": None}

BASE = "transformer."
HEADS = LABEL_HEADS
TWO_NORMS: dict[str, Entry] = {
    "transformer.h.{i}.ln_attn.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.h.{i}.ln_mlp.{p}": "blocks.{i}.mlp_norm.{p}",
}


def kv_heads(c: Config) -> int:
    """40B has groups of heads, 7B one key for all, the RefinedWeb models one for each."""
    heads, one = int(c.size("num_attention_heads")), c.multi_query
    groups = int(c.size("num_kv_heads", null=heads))  # stated by all
    return groups if c.new_decoder_architecture else 1 if one else heads


def norms(c: Config) -> int:
    """Before the two parts of a block: one for both, or one for each."""
    return int(c.size("num_ln_in_parallel_attn", null=2 if c.new_decoder_architecture else 1))


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    qkv = Fused("blocks.{i}.attn.{}.{p}", "qkv", groups=kv_heads(c))
    table = BLOOM | {"transformer.h.{i}.self_attention.query_key_value.{p}": qkv}
    return over(table, TWO_NORMS) if norms(c) == 2 else table


def two_norms(said: Said) -> dict[str, Any]:
    """40B has two norms before its parts, and files say so by them alone."""
    two = said.has("blk.0.attn_norm_2.weight")
    heads, kv = said.get("attention.head_count"), said.get("attention.head_count_kv", 1)
    kind = {"new_decoder_architecture": two or kv not in (1, heads), "multi_query": kv == 1, "num_kv_heads": kv}
    norms = {"num_ln_in_parallel_attn": 2 if two else 1, "bias": said.has("blk.0.attn_qkv.bias")}
    return _gguf.rope(said) | kind | norms


GGUF = _gguf.Gguf(
    {
        "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "ffn_hidden_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count", "max_position_embeddings": "context_length",
        "layer_norm_epsilon": "attention.layer_norm_epsilon", "rope_theta": "rope.freq_base",
    },
    lambda c: _gguf.DECODER | _gguf.QKV | (
        {"blk.{i}.attn_norm_2.{p}": "blocks.{i}.attn_norm.{p}", "blk.{i}.attn_norm.{p}": "blocks.{i}.mlp_norm.{p}"}
        if norms(c) == 2 else {}
    ),
    more=two_norms,
)  # fmt: skip


def spec(c: Config) -> Spec:
    width, heads, kv, alibi = c.size("hidden_size"), c.size("num_attention_heads"), kv_heads(c), c.alibi
    head_dim = width // heads
    if width % heads or heads % kv:
        what = f"{heads} heads over {kv} key heads in a width of {width}"
        raise ConfigError(what, where=c.where, next="correct num_attention_heads or num_kv_heads")
    norm, scale = layer_norm(c, "layer_norm_epsilon"), head_dim**-0.5
    rope = read_rope(c, head_dim)  # stated beside ALiBi too
    attn = Attention(
        heads=heads, kv_heads=kv, head_dim=head_dim, scale=scale, causal=True, rope=None if alibi else rope,
        biases="qkvo" if c.bias else "", dropout=c.share("attention_dropout"),
    )  # fmt: skip
    hidden = c.size("ffn_hidden_size", null=4 * width)
    mlp = Mlp(hidden=hidden, act=activation(c.activation, c), gated=False, bias=c.bias)
    new = bool(c.new_decoder_architecture)
    if norms(c) > 1 + new or (new and not c.parallel_attn):
        what = f"{norms(c)} norms beside new_decoder_architecture={new} and parallel_attn={c.parallel_attn}"
        raise ConfigError(what, where=c.where, next="only the new architecture has two norms, and is parallel")
    order = Parallel(norm=norm, shared=norms(c) == 1) if c.parallel_attn else PreNorm(norm=norm)
    block = Block(attn=attn, mlp=mlp, order=order, dropout=c.share("hidden_dropout"))
    bias = Alibi(rounded=True, scale=scale) if alibi else None  # scaled as the scores are
    return decoder(c, "falcon", [block] * c.layers("num_hidden_layers"), norm=norm, relative_bias=bias)
