"""SmolLM3: no rotary positions in every fourth layer (arXiv 2501.18795). Blog: huggingface.co/blog/smollm3."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, gated, rms, under, windows
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, biases, paired, rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("SmolLM3", *GENERIC)
DEFAULTS = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 4, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "pad_token_id": 128004, "bos_token_id": 128000,
    "eos_token_id": 128001, "rope_parameters": None, "rope_scaling": None, "rope_theta": 2000000.0,
    "use_sliding_window": False, "sliding_window": None, "no_rope_layers": None, "no_rope_layer_interval": 4,
    "layer_types": None, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
    "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {"max_window_layers": None}  # of Qwen 2, whose code it began with

BASE = "model."
WEIGHTS = LLAMA
HEADS = {"question-answering": under("transformer.", LLAMA)}  # the only task with that prefix
GGUF = Gguf(KEYS | RMS | HEAD_DIM, paired(DECODER), more=lambda said: rope(said) | biases(said))


def spec(c: Config) -> Spec:
    layers, every = c.layers("num_hidden_layers"), c.size("no_rope_layer_interval")
    turned = c.no_rope_layers or [int((i + 1) % every != 0) for i in range(layers)]  # 1: it does rotate
    if not isinstance(turned, list) or len(turned) != layers:
        what = f"no_rope_layers={turned} for {layers} layers"
        raise ConfigError(what, where=c.where, next="give one number for each, 1 where positions are rotated")
    window = c.size("sliding_window", null=None) if c.use_sliding_window else None
    mixers = windows(
        c, attention(c), lambda i: "sliding_attention" if window and not turned[i] else "full_attention", window=window
    )
    mlp, order = gated(c, bias=c.mlp_bias), PreNorm(norm=rms(c))
    blocks = [
        Block(attn=one if turn else replace(one, rope=None), mlp=mlp, order=order) for one, turn in zip(mixers, turned)
    ]
    return decoder(c, "smollm3", blocks)
