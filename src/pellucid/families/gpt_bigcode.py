"""SantaCoder and StarCoder: GPT-2 with one key and value for all heads. Papers: arXiv 2301.03988, 2305.06161."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families._decoder import LABEL_HEADS, attention, classes, decoder, layer_norm
from pellucid.families._gguf import DECODER, QKV, Gguf
from pellucid.families._read import activation
from pellucid.spec import Block, Embed, LearnedPositions, Mlp, PreNorm, Spec
from pellucid.weights.table import Entry, Fused, Recomputed

CLASSES = classes("GPTBigCode", "causal-lm", "sequence-classification", "token-classification") | {
    "pretraining": "GPTBigCodeForCausalLM"
}
DEFAULTS = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
    "activation_function": "gelu_pytorch_tanh", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5, "scale_attn_weights": True, "multi_query": True, "bos_token_id": 50256,
    "eos_token_id": 50256, "pad_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer", "attention_dropout": "attn_pdrop",
}  # fmt: skip
IGNORED = {
    "attention_softmax_in_fp32": None, "scale_attention_softmax_in_fp32": None,  # always so
    "num_key_value_heads": None,  # multi_query in other words
    "add_cross_attention": (False,),
}  # fmt: skip

BASE = "transformer."
HEADS = LABEL_HEADS
NAMES: dict[str, Entry] = {
    "transformer.wte.weight": "embed.tokens.weight",
    "transformer.wpe.weight": "embed.positions.weight",
    "transformer.h.{i}.ln_1.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.h.{i}.attn.c_proj.{p}": "blocks.{i}.attn.o.{p}",
    "transformer.h.{i}.ln_2.{p}": "blocks.{i}.mlp_norm.{p}",
    "transformer.h.{i}.mlp.c_fc.{p}": "blocks.{i}.mlp.up.{p}",
    "transformer.h.{i}.mlp.c_proj.{p}": "blocks.{i}.mlp.down.{p}",
    "transformer.ln_f.{p}": "norm.{p}",
    "lm_head.weight": "lm_head.out.weight",
    "transformer.h.{i}.attn.bias": Recomputed("causal mask"),
    "transformer.h.{i}.attn.masked_bias": Recomputed("masked score"),
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    qkv = Fused("blocks.{i}.attn.{}.{p}", "qkv", groups=1 if c.multi_query else c.n_head)
    return NAMES | {"transformer.h.{i}.attn.c_attn.{p}": qkv}


GGUF = Gguf(
    {
        "n_embd": "embedding_length", "n_layer": "block_count", "n_head": "attention.head_count",
        "n_inner": "feed_forward_length", "n_positions": "context_length",
        "layer_norm_epsilon": "attention.layer_norm_epsilon",
    },
    DECODER | QKV | {"position_embd.weight": "embed.positions.weight"},
)  # fmt: skip


def spec(c: Config) -> Spec:
    width, heads, norm = c.size("n_embd"), c.size("n_head"), layer_norm(c, "layer_norm_epsilon")
    scale = max(width // heads, 1) ** -0.5 if c.scale_attn_weights else 1.0
    attn = replace(attention(c, rope=None, scale=scale, biases="qkvo"), kv_heads=1 if c.multi_query else heads)
    hidden = c.size("n_inner", null=4 * width)
    mlp = Mlp(hidden=hidden, act=activation(c.activation_function, c), gated=False, bias=True)
    block = Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm), dropout=c.share("resid_pdrop"))
    positions = LearnedPositions(rows=c.size("n_positions"))
    embed = Embed(vocab=c.size("vocab_size"), positions=positions, dropout=c.share("embd_pdrop"))
    return decoder(c, "gpt_bigcode", [block] * c.layers("n_layer"), norm=norm, embed=embed)
