"""BioGPT. Paper: arXiv 2210.10341."""

from pellucid.config import Config
from pellucid.families._decoder import LABEL_HEADS, attention, classes, decoder, plain_mlp, under
from pellucid.families.opt import LAYER
from pellucid.spec import Block, Embed, LayerNorm, LearnedPositions, PreNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("BioGpt", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 42384, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 1024, "scale_embedding": True, "activation_dropout": 0.0,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"attention_dropout": "attention_probs_dropout_prob", "hidden_dropout": "hidden_dropout_prob"}
IGNORED = {
    "layerdrop": None,  # leaves out layers in training
    "layer_norm_eps": None,  # stated as 1e-12, and every released code computes with 1e-5
}  # fmt: skip

BASE = "biogpt."
HEADS = LABEL_HEADS
WEIGHTS: dict[str, Entry] = {
    "biogpt.embed_tokens.weight": "embed.tokens.weight",
    "biogpt.embed_positions.weight": "embed.positions.weight",
    **under("biogpt.", LAYER, ""),
    "biogpt.layer_norm.{p}": "norm.{p}",
    "output_projection.weight": "lm_head.out.weight",
}


def spec(c: Config) -> Spec:
    norm, dropout = LayerNorm(eps=1e-5), c.share("hidden_dropout_prob")
    mlp = plain_mlp(c, bias=True, dropout=c.share("activation_dropout"))
    attn = attention(c, rope=None, biases="qkvo")
    block = Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm), dropout=dropout)
    embed = Embed(
        vocab=c.size("vocab_size"), scale=c.size("hidden_size") ** 0.5 if c.scale_embedding else None,
        positions=LearnedPositions(rows=c.size("max_position_embeddings") + 2, offset=2), dropout=dropout,
    )  # fmt: skip
    return decoder(c, "biogpt", [block] * c.layers("num_hidden_layers"), norm=norm, embed=embed)
