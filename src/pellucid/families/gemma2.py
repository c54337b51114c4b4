"""Gemma 2. Paper: arXiv 2408.00118."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, SANDWICH, attention, classes, decoder, gated, rms, windows
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, shifted
from pellucid.spec import Block, Embed, LmHead, Sandwich, Spec

CLASSES = classes("Gemma2", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "attention_bias": False, "attention_dropout": 0.0,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "layer_types": None, "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {
    "hidden_act": None,  # early files say "gelu" here and mean hidden_activation
    "use_bidirectional_attention": (None, False),
}

BASE = "model."
WEIGHTS = LLAMA | SANDWICH
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | {
        "sliding_window": "attention.sliding_window", "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    shifted(DECODER | _gguf.SANDWICH), more=lambda said: _gguf.rope(said) | _gguf.gemma_scale(said, largest=46),
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = rms(c, offset=1.0, round_first=False)
    attn = attention(
        c, scale=c.number("query_pre_attn_scalar", float, least=1e-6) ** -0.5,  # 144 against 128 channels in the 27B
        cap=c.number("attn_logit_softcapping", float, least=1e-6, null=None),
    )  # fmt: skip
    layers = windows(c, attn, lambda i: ("sliding_attention", "full_attention")[i % 2])
    mlp = gated(c, act="hidden_activation")
    cap = c.number("final_logit_softcapping", float, least=1e-6, null=None)
    return decoder(
        c, "gemma2", [Block(attn=one, mlp=mlp, order=Sandwich(norm=norm)) for one in layers], norm=norm,
        embed=Embed(vocab=c.size("vocab_size"), scale=c.size("hidden_size") ** 0.5),
        head=LmHead(tied=c.tie_word_embeddings, cap=cap),
    )  # fmt: skip
