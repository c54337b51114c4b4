"""Llama 1 to 3, and the many that share its files. Papers: arXiv 2302.13971, 2307.09288, 2407.21783."""

from pellucid.config import Config
from pellucid.families._read import activation, grouped_heads, read_rope
from pellucid.spec import (
    Attention,
    Block,
    Embed,
    LmHead,
    Mlp,
    PreNorm,
    RmsNorm,
    SequenceHead,
    Spec,
    Stack,
    TokenHead,
)
from pellucid.weights.table import Recomputed

CLASSES = {
    None: "LlamaModel", "causal-lm": "LlamaForCausalLM", "sequence-classification": "LlamaForSequenceClassification",
    "token-classification": "LlamaForTokenClassification",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "num_key_value_heads": None, "head_dim": None, "attention_bias": False, "mlp_bias": False,
    "attention_dropout": 0.0, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
ALIASES: dict[str, str] = {}
IGNORED = {
    "pretraining_tp": None,  # how a matrix was once split for training; the product is the same
    "bias": (False,), "qkv_bias": (False,),  # InternLM 3 states them beside attention_bias
}  # fmt: skip

BASE = "model."
WEIGHTS = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.layers.{i}.input_layernorm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.self_attn.q_proj.{p}": "blocks.{i}.attn.q.{p}",
    "model.layers.{i}.self_attn.k_proj.{p}": "blocks.{i}.attn.k.{p}",
    "model.layers.{i}.self_attn.v_proj.{p}": "blocks.{i}.attn.v.{p}",
    "model.layers.{i}.self_attn.o_proj.{p}": "blocks.{i}.attn.o.{p}",
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.mlp.gate_proj.{p}": "blocks.{i}.mlp.gate.{p}",
    "model.layers.{i}.mlp.up_proj.{p}": "blocks.{i}.mlp.up.{p}",
    "model.layers.{i}.mlp.down_proj.{p}": "blocks.{i}.mlp.down.{p}",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "lm_head.out.weight",
    "score.{p}": "classifier.out.{p}",
    "model.layers.{i}.self_attn.rotary_emb.inv_freq": Recomputed("inverse frequencies"),
    "model.rotary_emb.inv_freq": Recomputed("inverse frequencies"),
}


def spec(c: Config) -> Spec:
    width, (heads, kv_heads, head_dim) = c.size("hidden_size"), grouped_heads(c)
    norm = RmsNorm(eps=c.number("rms_norm_eps", float))
    attn = Attention(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, scale=head_dim**-0.5, causal=True,
        biases="qkvo" if c.attention_bias else "", rope=read_rope(c, head_dim),
        dropout=c.share("attention_dropout"),
    )  # fmt: skip
    mlp = Mlp(hidden=c.size("intermediate_size"), act=activation(c.hidden_act, c), gated=True, bias=c.mlp_bias)
    return Spec(
        family="llama",
        stack=Stack(
            width=width, embed=Embed(vocab=c.size("vocab_size")), norm=norm,
            blocks=(Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm)),)
            * c.layers("num_hidden_layers"),
        ),
        heads={
            "causal-lm": LmHead(tied=c.tie_word_embeddings),
            "sequence-classification": SequenceHead(labels=c.size("num_labels"), pool="last", bias=False),
            "token-classification": TokenHead(labels=c.size("num_labels"), dropout=0.1),
        },
        context=c.size("max_position_embeddings"),
    )  # fmt: skip
