"""BLOOM. Paper: arXiv 2211.05100."""

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LABEL_HEADS, attention, classes, decoder, layer_norm
from pellucid.families._gguf import DECODER, QKV, Gguf
from pellucid.spec import Alibi, Block, Embed, Mlp, PreNorm, Spec
from pellucid.weights.table import Entry, Fused

CLASSES = classes("Bloom", *GENERIC) | {"pretraining": "BloomForCausalLM"}
DEFAULTS = {
    "vocab_size": 250880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "layer_norm_epsilon": 1e-5,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "n_embed": "hidden_size"}
IGNORED = {
    "apply_residual_connection_post_layernorm": (False,),
    "pretraining_tp": None, "slow_but_exact": None,  # how a product is split, rounded elsewhere
    "attention_softmax_in_fp32": None,  # always so
}  # fmt: skip

BASE = "transformer."
HEADS = LABEL_HEADS
NAMES: dict[str, Entry] = {
    "transformer.word_embeddings.weight": "embed.tokens.weight",
    "transformer.word_embeddings_layernorm.{p}": "embed.norm.{p}",
    "transformer.h.{i}.input_layernorm.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.h.{i}.self_attention.dense.{p}": "blocks.{i}.attn.o.{p}",
    "transformer.h.{i}.post_attention_layernorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "transformer.h.{i}.mlp.dense_h_to_4h.{p}": "blocks.{i}.mlp.up.{p}",
    "transformer.h.{i}.mlp.dense_4h_to_h.{p}": "blocks.{i}.mlp.down.{p}",
    "transformer.ln_f.{p}": "norm.{p}",
    "lm_head.weight": "lm_head.out.weight",
    "qa_outputs.{p}": "span.out.{p}",
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    qkv = Fused("blocks.{i}.attn.{}.{p}", "qkv", groups=c.n_head)
    return NAMES | {"transformer.h.{i}.self_attention.query_key_value.{p}": qkv}


GGUF = Gguf(
    {
        "hidden_size": "embedding_length", "n_layer": "block_count", "n_head": "attention.head_count",
        "layer_norm_epsilon": "attention.layer_norm_epsilon",
    },
    DECODER | QKV | {"token_embd_norm.{p}": "embed.norm.{p}"},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = layer_norm(c, "layer_norm_epsilon")
    block = Block(
        attn=attention(c, rope=None, biases="qkvo"),
        mlp=Mlp(hidden=4 * c.size("hidden_size"), act="gelu_tanh", gated=False, bias=True),
        order=PreNorm(norm=norm), dropout=c.share("hidden_dropout"),
    )  # fmt: skip
    embed = Embed(vocab=c.size("vocab_size"), norm=norm)
    return decoder(c, "bloom", [block] * c.layers("n_layer"), norm=norm, embed=embed, relative_bias=Alibi())
