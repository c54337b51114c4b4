"""Seed-OSS. Model card: huggingface.co/ByteDance-Seed/Seed-OSS-36B-Instruct."""

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, gated, rms, span_under_transformer
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, POST_NORM, RMS, Gguf, biases, rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("SeedOss", *GENERIC)
DEFAULTS = {
    "vocab_size": 155136, "hidden_size": 4096, "intermediate_size": 27648, "num_hidden_layers": 64,
    "num_attention_heads": 80, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 524288, "rms_norm_eps": 1e-6, "attention_bias": True, "attention_out_bias": False,
    "mlp_bias": False, "attention_dropout": 0.1, "residual_dropout": 0.1, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = {"pretraining_tp": None}

BASE = "model."
WEIGHTS = LLAMA
HEADS = span_under_transformer(WEIGHTS)
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM, DECODER | POST_NORM,
    more=lambda said: rope(said) | biases(said) | {"attention_out_bias": said.has("blk.0.attn_output.bias")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    biases = ("qkv" if c.attention_bias else "") + ("o" if c.attention_out_bias else "")
    mlp = gated(c, bias=c.mlp_bias)
    block = Block(
        attn=attention(c, biases=biases), mlp=mlp, order=PreNorm(norm=rms(c)), dropout=c.share("residual_dropout")
    )
    return decoder(c, "seed_oss", [block] * c.layers("num_hidden_layers"))
