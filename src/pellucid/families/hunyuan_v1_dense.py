"""Hunyuan dense, 0.5B to 7B: Llama with norms on queries and keys after their rotation. Paper: arXiv 2411.02265."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, rope
from pellucid.spec import Block, PreNorm, QkNorm, Spec

CLASSES = classes("HunYuanDenseV1", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 290943, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "eod_token_id": 3, "pretraining_tp": 1, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0,
}  # fmt: skip
IGNORED = {  # the files state what this code always does
    "use_qk_norm": (True,), "norm_type": ("rms",), "use_rotary_pos_emb": (True,), "mlp_bias": (False,),
    "use_cla": (False,), "cla_share_factor": None, "use_mla": (False,), "position_embedding_xdrope": (False,),
    "attention_head_dim": None,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA | {
    "model.layers.{i}.self_attn.query_layernorm.weight": "blocks.{i}.attn.q_norm.weight",
    "model.layers.{i}.self_attn.key_layernorm.weight": "blocks.{i}.attn.k_norm.weight",
}
GGUF = Gguf(KEYS | RMS | HEAD_DIM, DECODER, more=rope)


def spec(c: Config) -> Spec:
    attn = attention(c, qk_norm=QkNorm(norm=rms(c), after_rope=True))
    block = Block(attn=attn, mlp=gated(c), order=PreNorm(norm=rms(c)))
    return decoder(c, "hunyuan_v1_dense", [block] * c.layers("num_hidden_layers"))
