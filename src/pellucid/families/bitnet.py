"""BitNet b1.58. Papers: arXiv 2402.17764, 2504.12285. Norms stand before the two matrices that write the residual."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, KEYS, RMS, Gguf, rope
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("BitNet", "causal-lm")
DEFAULTS = {
    "vocab_size": 128256, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
    "num_attention_heads": 20, "num_key_value_heads": 5, "hidden_act": "relu2", "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "rope_parameters": None, "rope_scaling": None, "rope_theta": 500000.0,
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
    "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | {
    "model.layers.{i}.self_attn.attn_sub_norm.weight": "blocks.{i}.attn.out_norm.weight",
    "model.layers.{i}.mlp.ffn_sub_norm.weight": "blocks.{i}.mlp.norm.weight",
}
GGUF = Gguf(  # the converter rounds weights; llama.cpp knows the first models' activation alone
    KEYS | RMS, DECODER | {
        "blk.{i}.attn_sub_norm.weight": "blocks.{i}.attn.out_norm.weight",
        "blk.{i}.ffn_sub_norm.weight": "blocks.{i}.mlp.norm.weight",
    },
    set={"hidden_act": "silu"}, more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = rms(c)
    block = Block(attn=attention(c, out_norm=norm), mlp=gated(c, norm=norm), order=PreNorm(norm=norm))
    return decoder(c, "bitnet", [block] * c.layers("num_hidden_layers"))
