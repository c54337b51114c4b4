"""StableLM 3B, Zephyr, 2 1.6B and 2 12B. Paper: arXiv 2402.17834."""

from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, layer_norm
from pellucid.families._gguf import Said
from pellucid.spec import Block, Parallel, PreNorm, QkNorm, Spec
from pellucid.weights.table import Row

CLASSES = classes("StableLm", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu", "max_position_embeddings": 4096,
    "layer_norm_eps": 1e-5, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "partial_rotary_factor": 0.25, "use_qkv_bias": False, "qk_layernorm": False, "use_parallel_residual": False,
    "hidden_dropout": 0.0, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | {
    "model.layers.{i}.self_attn.q_layernorm.norms.{e}.weight": Row("blocks.{i}.attn.q_norm.weight"),
    "model.layers.{i}.self_attn.k_layernorm.norms.{e}.weight": Row("blocks.{i}.attn.k_norm.weight"),
}


def kind(said: Said) -> dict[str, Any]:
    """What files say by the tensors that they have."""
    found = {"use_qkv_bias": said.has("blk.0.attn_q.bias"), "qk_layernorm": said.has("blk.0.attn_q_norm.weight")}
    return _gguf.partial(said) | found | {"use_parallel_residual": not said.has("blk.0.ffn_norm.weight")}


GGUF = _gguf.Gguf(_gguf.KEYS | {"layer_norm_eps": "attention.layer_norm_epsilon"}, _gguf.DECODER, more=kind)


def spec(c: Config) -> Spec:
    norm, heads = layer_norm(c), QkNorm(norm=layer_norm(c, bias=False), over="each")
    attn = attention(c, biases="qkv" if c.use_qkv_bias else "", qk_norm=heads if c.qk_layernorm else None)
    order = Parallel(norm=norm, shared=True) if c.use_parallel_residual else PreNorm(norm=norm)
    block = Block(attn=attn, mlp=gated(c), order=order, dropout=c.share("hidden_dropout"))
    return decoder(c, "stablelm", [block] * c.layers("num_hidden_layers"), norm=norm)
