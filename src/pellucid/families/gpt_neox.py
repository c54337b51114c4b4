"""GPT-NeoX and Pythia. Papers: arXiv 2204.06745, 2304.01373."""

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LABEL_HEADS, attention, classes, decoder, layer_norm, plain_mlp
from pellucid.families._gguf import DECODER, KEYS, QKV, Gguf, partial
from pellucid.spec import Block, Embed, Parallel, PreNorm, Spec
from pellucid.weights.table import Entry, Fused, Recomputed

CLASSES = classes("GPTNeoX", *GENERIC)
DEFAULTS = {
    "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
    "intermediate_size": 24576, "hidden_act": "gelu", "attention_dropout": 0.0, "hidden_dropout": 0.0,
    "classifier_dropout": 0.1, "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "bos_token_id": 0,
    "eos_token_id": 2, "pad_token_id": None, "tie_word_embeddings": False, "use_parallel_residual": True,
    "rope_parameters": None, "rope_scaling": None, "rotary_pct": 0.25, "rotary_emb_base": 10000,
    "attention_bias": True,
}  # fmt: skip
ALIASES = {"partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base"}
IGNORED = {"is_decoder": None}

BASE = "gpt_neox."
HEADS = LABEL_HEADS
NAMES: dict[str, Entry] = {
    "gpt_neox.embed_in.weight": "embed.tokens.weight",
    "gpt_neox.layers.{i}.input_layernorm.{p}": "blocks.{i}.attn_norm.{p}",
    "gpt_neox.layers.{i}.attention.dense.{p}": "blocks.{i}.attn.o.{p}",
    "gpt_neox.layers.{i}.post_attention_layernorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "gpt_neox.layers.{i}.mlp.dense_h_to_4h.{p}": "blocks.{i}.mlp.up.{p}",
    "gpt_neox.layers.{i}.mlp.dense_4h_to_h.{p}": "blocks.{i}.mlp.down.{p}",
    "gpt_neox.final_layer_norm.{p}": "norm.{p}",
    "embed_out.weight": "lm_head.out.weight",
    "lm_head.weight": "lm_head.out.weight",
    "qa_outputs.{p}": "span.out.{p}",
    "gpt_neox.layers.{i}.attention.bias": Recomputed("causal mask"),
    "gpt_neox.layers.{i}.attention.masked_bias": Recomputed("masked score"),
    "gpt_neox.layers.{i}.attention.rotary_emb.inv_freq": Recomputed("inverse frequencies"),
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    qkv = Fused("blocks.{i}.attn.{}.{p}", "qkv", groups=c.num_attention_heads)
    return NAMES | {"gpt_neox.layers.{i}.attention.query_key_value.{p}": qkv}


GGUF = Gguf(
    KEYS | {"layer_norm_eps": "attention.layer_norm_epsilon", "use_parallel_residual": "use_parallel_residual"},
    DECODER | QKV, more=partial,
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dropout = layer_norm(c), c.share("hidden_dropout")
    order = Parallel(norm=norm, shared=False) if c.use_parallel_residual else PreNorm(norm=norm)
    block = Block(attn=attention(c), mlp=plain_mlp(c, bias=True), order=order, dropout=dropout)
    embed = Embed(vocab=c.size("vocab_size"), dropout=dropout)
    return decoder(c, "gpt_neox", [block] * c.layers("num_hidden_layers"), norm=norm, embed=embed)
