"""MiniCPM3: latent attention, and the scales of maximal update parametrisation. Paper: arXiv 2404.06395."""

from pellucid.config import Config
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, KEYS, LATENT, RMS, Gguf, rope
from pellucid.families._latent import DERIVED, MLA, latent
from pellucid.spec import Block, Embed, LmHead, PreNorm, Spec

CLASSES = classes("MiniCPM3", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 73448, "hidden_size": 2560, "intermediate_size": 6400, "num_hidden_layers": 62,
    "num_attention_heads": 40, "num_key_value_heads": 40, "hidden_act": "silu", "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "pretraining_tp": 1,
    "tie_word_embeddings": True, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "head_dim": None, "kv_lora_rank": 256,
    "q_lora_rank": 768, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": None, "scale_emb": 12,
    "scale_depth": 1.4, "dim_model_base": 256,
}  # fmt: skip
IGNORED = DERIVED

BASE = "model."
WEIGHTS = MLA
GGUF = Gguf(
    KEYS | RMS | {
        "q_lora_rank": "attention.q_lora_rank", "kv_lora_rank": "attention.kv_lora_rank",
        "qk_rope_head_dim": "rope.dimension_count",
    },
    DECODER | LATENT,  # the three scales are those of the one released model
    more=lambda said: rope(said) | {
        "qk_nope_head_dim": said.get("attention.key_length") - said.get("rope.dimension_count"),
    },
    says=lambda c, spec: {  # as attention of the usual kind
        "attention.head_count_kv": c.num_attention_heads, "attention.value_length": None,
        "attention.key_length": c.qk_nope_head_dim + c.qk_rope_head_dim,
        "attention.key_length_mla": None, "attention.value_length_mla": None,
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    width, layers = c.size("hidden_size"), c.layers("num_hidden_layers")
    block = Block(
        attn=latent(c, interleaved=False), mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=rms(c)),
        residual_scale=c.number("scale_depth", float, null=layers**0.5) / layers**0.5,
    )  # fmt: skip
    return decoder(
        c, "minicpm3", [block] * layers,
        embed=Embed(vocab=c.size("vocab_size"), scale=c.number("scale_emb", float)),
        head=LmHead(tied=c.tie_word_embeddings, scale=c.size("dim_model_base", null=width) / width),
    )  # fmt: skip
