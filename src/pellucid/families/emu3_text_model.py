"""Emu3's text model: Llama. Paper: arXiv 2409.18869."""

from pellucid.config import Config
from pellucid.families import llama
from pellucid.families._decoder import attention, decoder, gated, rms
from pellucid.spec import Block, PreNorm, Spec

CLASSES = {None: "Emu3TextModel", "causal-lm": "Emu3ForCausalLM"}
DEFAULTS = {
    "vocab_size": 184622, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 9216,
    "rms_norm_eps": 1e-5, "rope_parameters": None, "rope_scaling": None, "rope_theta": 1000000.0,
    "attention_dropout": 0.1, "bos_token_id": 151849, "eos_token_id": 151850, "pad_token_id": 151643,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = llama.WEIGHTS


def spec(c: Config) -> Spec:
    mlp = gated(c, bias=c.mlp_bias)
    block = Block(attn=attention(c), mlp=mlp, order=PreNorm(norm=rms(c)))
    return decoder(c, "emu3_text_model", [block] * c.layers("num_hidden_layers"))
