"""Bamba: Mamba 2 with a layer of attention now and then. huggingface.co/blog/bamba."""

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, gated, rms
from pellucid.families._read import numbered
from pellucid.families._recurrent import BESIDE, JAMBA, MAMBA2, mamba2
from pellucid.spec import Block, PreNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Bamba", "causal-lm")
DEFAULTS = {
    "vocab_size": 128000, "tie_word_embeddings": False, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
    "rms_norm_eps": 1e-5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 262144,
    "attention_dropout": 0.0, "attn_layer_indices": None, "mamba_n_heads": 128, "mamba_d_head": None,
    "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True,
    "mamba_proj_bias": False, "time_step_limit": None, "rope_parameters": None, "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
IGNORED = BESIDE | {"z_loss_coefficient": (0, 0.0, None), "attn_rotary_emb": None, "layer_types": None}

BASE = "model."
WEIGHTS: dict[str, Entry] = JAMBA | {
    **{f"model.layers.{{i}}.mamba.{name}": slot for name, slot in MAMBA2.items()},
}  # fmt: skip


def spec(c: Config) -> Spec:
    attn, mamba, full = attention(c), mamba2(c), numbered(c, "attn_layer_indices") or []
    mlp, order = gated(c, bias=c.mlp_bias), PreNorm(norm=rms(c))
    layers = range(c.layers("num_hidden_layers"))
    return decoder(c, "bamba", [Block(attn=attn if i in full else mamba, mlp=mlp, order=order) for i in layers])
