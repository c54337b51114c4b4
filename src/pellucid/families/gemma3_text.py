"""Gemma 3, text only, and EmbeddingGemma, which looks both ways. Papers: arXiv 2503.19786, 2509.20354."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, SANDWICH, attention, decoder, gated, rms, windows
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, shifted
from pellucid.families._read import grouped_heads, read_ropes
from pellucid.spec import Block, Embed, LmHead, QkNorm, Sandwich, Spec

CLASSES = {
    None: "Gemma3TextModel", "causal-lm": "Gemma3ForCausalLM",
    "sequence-classification": "Gemma3TextForSequenceClassification",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    "tie_word_embeddings": True, "rope_parameters": None, "rope_scaling": None, "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0, "attention_bias": False, "attention_dropout": 0.0, "query_pre_attn_scalar": 256,
    "sliding_window": 4096, "sliding_window_pattern": 6, "layer_types": None, "final_logit_softcapping": None,
    "attn_logit_softcapping": None, "use_bidirectional_attention": False,
}  # fmt: skip
ALIASES = {"_sliding_window_pattern": "sliding_window_pattern"}
IGNORED = {"attn_logit_softcapping": (None,)}

BASE = "model."
WEIGHTS = LLAMA | SANDWICH | QK_NORM
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | {
        "sliding_window": "attention.sliding_window", "final_logit_softcapping": "final_logit_softcapping",
        "sliding_window_pattern": "attention.sliding_window_pattern", "rope_local_base_freq": "rope.freq_base_swa",
    },
    shifted(DECODER | _gguf.SANDWICH), more=lambda said: _gguf.rope(said) | _gguf.gemma_scale(said, largest=62),
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, every = rms(c, offset=1.0, round_first=False), c.size("sliding_window_pattern")
    scale = c.number("query_pre_attn_scalar", float, least=1e-6) ** -0.5
    attn = attention(c, scale=scale, rope=None, qk_norm=QkNorm(norm=norm))
    window = c.size("sliding_window", null=None)
    if c.use_bidirectional_attention:
        attn, window = replace(attn, causal=False), window and window // 2  # so many to each side
    layers = windows(
        c, attn, lambda i: "sliding_attention" if (i + 1) % every else "full_attention", window=window,
        ropes=read_ropes(c, grouped_heads(c)[2]),
    )  # fmt: skip
    mlp, order = gated(c, act="hidden_activation"), Sandwich(norm=norm)
    cap = c.number("final_logit_softcapping", float, least=1e-6, null=None)
    return decoder(
        c, "gemma3_text", [Block(attn=one, mlp=mlp, order=order) for one in layers], norm=norm,
        embed=Embed(vocab=c.size("vocab_size"), scale=c.size("hidden_size") ** 0.5),
        head=LmHead(tied=c.tie_word_embeddings, cap=cap),
    )  # fmt: skip
