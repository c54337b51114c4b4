"""Apertus. Paper: arXiv 2509.14233."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, rms
from pellucid.families._read import activation
from pellucid.spec import Block, Custom, Mlp, PreNorm, QkNorm, Spec
from pellucid.weights.table import Entry, Stacked, over

CLASSES = classes("Apertus", "causal-lm", "token-classification")
DEFAULTS = {
    "vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "xielu", "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 12000000.0, "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 12000000.0, "factor": 8.0, "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    },
}  # fmt: skip
IGNORED = {"post_norm": (False,), "qk_norm": (True,), "mlp_bias": (False,)}

BASE = "model."
WEIGHTS = over(LLAMA | QK_NORM, {
    "model.layers.{i}.attention_layernorm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.feedforward_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.mlp.act_fn.alpha_p": "blocks.{i}.mlp.act.alpha_p",
    "model.layers.{i}.mlp.act_fn.alpha_n": "blocks.{i}.mlp.act.alpha_n",
    "model.layers.{i}.mlp.act_fn.beta": "blocks.{i}.mlp.act.beta",
    "model.layers.{i}.mlp.act_fn.eps": "blocks.{i}.mlp.act.eps",
})  # fmt: skip


def gguf_weights(c: Config) -> dict[str, Entry]:
    """The numbers of the activation are arrays of the metadata, with one for each layer."""
    act, count = "blocks.{e}.mlp.act.", c.layers("num_hidden_layers")
    return _gguf.DECODER | {
        **{f"xielu.{name}": Stacked(act + name, count, flat=True) for name in ("alpha_p", "alpha_n")},
        **{f"xielu.{name}": Stacked(act + name, count) for name in ("beta", "eps")},
    }


GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS | _gguf.HEAD_DIM, gguf_weights,
    more=lambda said: _gguf.rope(said) | {"attention_bias": said.has("blk.0.attn_q.bias")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = rms(c)
    trained = Custom(path="pellucid.families.apertus.xielu:Xielu")
    act = trained if c.hidden_act == "xielu" else activation(c.hidden_act, c)
    mlp = Mlp(hidden=c.size("intermediate_size"), act=act, gated=False)
    block = Block(attn=attention(c, qk_norm=QkNorm(norm=norm)), mlp=mlp, order=PreNorm(norm=norm))
    return decoder(c, "apertus", [block] * c.layers("num_hidden_layers"))
