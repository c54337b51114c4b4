"""ABEJA's Japanese GPT-NeoX. Model card: huggingface.co/abeja/gpt-neox-japanese-2.7b."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, layer_norm, under
from pellucid.families._read import activation
from pellucid.families.gpt_neox import ALIASES as ALIASES
from pellucid.families.gpt_neox import NAMES as NEOX
from pellucid.spec import Block, Mlp, PreNorm, Spec
from pellucid.weights.table import Entry, Fused, over

CLASSES = classes("GPTNeoXJapanese", "causal-lm")
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32,
    "intermediate_multiple_size": 4, "hidden_act": "gelu", "attention_dropout": 0.1, "hidden_dropout": 0.0,
    "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "bos_token_id": 31996, "eos_token_id": 31999,
    "pad_token_id": None, "tie_word_embeddings": True, "rope_parameters": None, "rope_scaling": None,
    "rotary_pct": 1.0, "rotary_emb_base": 10000,
}  # fmt: skip
IGNORED = {"is_decoder": None}

BASE = "gpt_neox_japanese."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    qkv = Fused("blocks.{i}.attn.{}.{p}", "qkv", groups=c.num_attention_heads)
    return over(under(BASE, NEOX, "gpt_neox."), {
        "gpt_neox_japanese.layers.{i}.attention.query_key_value.{p}": qkv,
        "gpt_neox_japanese.layers.{i}.attention.dense_bias": "blocks.{i}.attn.o.bias",
    })  # fmt: skip


def spec(c: Config) -> Spec:
    norm, layers = layer_norm(c), c.layers("num_hidden_layers")
    hidden = c.size("intermediate_multiple_size") * c.size("hidden_size")
    mlp = Mlp(hidden=hidden, act=activation(c.hidden_act, c), gated=False)
    block = Block(attn=attention(c), mlp=mlp, order=PreNorm(norm=norm), dropout=c.share("hidden_dropout"))
    last = replace(block, attn=attention(c, biases="o"))  # the one bias of the attention is the last layer's
    return decoder(c, "gpt_neox_japanese", [block] * (layers - 1) + [last], norm=norm)
