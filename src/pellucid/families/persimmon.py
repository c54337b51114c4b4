"""Persimmon. Blog: adept.ai/blog/persimmon-8b."""

from pellucid.config import Config
from pellucid.families._decoder import HEAD_WEIGHTS, attention, classes, decoder, layer_norm, plain_mlp
from pellucid.spec import Block, PreNorm, QkNorm, Spec
from pellucid.weights.table import Entry, Fused, Recomputed

CLASSES = classes("Persimmon", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 262144, "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 36,
    "num_attention_heads": 64, "hidden_act": "relu2", "max_position_embeddings": 16384, "layer_norm_eps": 1e-5,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
    "qk_layernorm": True, "hidden_dropout": 0.0, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
NAMES: dict[str, Entry] = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.layers.{i}.input_layernorm.{p}": "blocks.{i}.attn_norm.{p}",
    "model.layers.{i}.self_attn.q_layernorm.{p}": "blocks.{i}.attn.q_norm.{p}",
    "model.layers.{i}.self_attn.k_layernorm.{p}": "blocks.{i}.attn.k_norm.{p}",
    "model.layers.{i}.self_attn.dense.{p}": "blocks.{i}.attn.o.{p}",
    "model.layers.{i}.post_attention_layernorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "model.layers.{i}.mlp.dense_h_to_4h.{p}": "blocks.{i}.mlp.up.{p}",
    "model.layers.{i}.mlp.dense_4h_to_h.{p}": "blocks.{i}.mlp.down.{p}",
    "model.final_layernorm.{p}": "norm.{p}",
    "model.layers.{i}.self_attn.rotary_emb.inv_freq": Recomputed("inverse frequencies"),
    **HEAD_WEIGHTS,
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    qkv = Fused("blocks.{i}.attn.{}.{p}", "qkv", groups=c.num_attention_heads)
    return NAMES | {"model.layers.{i}.self_attn.query_key_value.{p}": qkv}


def spec(c: Config) -> Spec:
    norm = layer_norm(c)
    attn = attention(c, biases="qkvo", qk_norm=QkNorm(norm=norm) if c.qk_layernorm else None)
    dropout = c.share("hidden_dropout")
    block = Block(attn=attn, mlp=plain_mlp(c, bias=True), order=PreNorm(norm=norm), dropout=dropout)
    return decoder(c, "persimmon", [block] * c.layers("num_hidden_layers"), norm=norm)
