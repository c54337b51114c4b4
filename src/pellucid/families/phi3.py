"""Phi 3, 3.5, 4 and 4 mini. Papers: arXiv 2404.14219, 2412.08905."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, KEYS, RMS, Gguf
from pellucid.spec import Block, PreNorm, Spec
from pellucid.weights.table import Entry, Fused

CLASSES = classes("Phi3", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attention_dropout": 0.0, "hidden_act": "silu", "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 32000,
    "pad_token_id": 32000, "sliding_window": None,
}  # fmt: skip
IGNORED = {
    "embd_pdrop": None,  # no code drops embeddings
    "attention_bias": (False,),
    "original_max_position_embeddings": None,  # without LongRoPE it says nothing
}

BASE = "model."
FUSED: dict[str, Entry] = {
    "model.layers.{i}.self_attn.qkv_proj.weight": Fused("blocks.{i}.attn.{}.weight", "qkv"),
    "model.layers.{i}.mlp.gate_up_proj.weight": Fused("blocks.{i}.mlp.{}.weight", ("gate", "up")),
}
APART = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
WEIGHTS = {name: entry for name, entry in LLAMA.items() if not any(part in name for part in APART)} | FUSED
GGUF = Gguf(
    KEYS | RMS | {"original_max_position_embeddings": "rope.scaling.original_context_length"},
    DECODER | _gguf.QKV | {"blk.{i}.ffn_up.weight": Fused("blocks.{i}.mlp.{}.weight", ("gate", "up"))},
    more=lambda said: _gguf.partial(said) | {"sliding_window": said.get("attention.sliding_window") or None},
)  # fmt: skip


def spec(c: Config) -> Spec:
    attn = attention(c, biases="", window=c.size("sliding_window", null=None))
    block = Block(attn=attn, mlp=gated(c), order=PreNorm(norm=rms(c)), dropout=c.share("resid_pdrop"))
    return decoder(c, "phi3", [block] * c.layers("num_hidden_layers"))
