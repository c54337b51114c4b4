"""XGLM. Paper: arXiv 2112.10668."""

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, plain_mlp, under
from pellucid.families.opt import LAYER
from pellucid.spec import Block, Embed, LayerNorm, PreNorm, Sinusoidal, Spec
from pellucid.weights.table import Entry, Recomputed

CLASSES = classes("XGLM", "causal-lm")
DEFAULTS = {
    "vocab_size": 256008, "max_position_embeddings": 2048, "d_model": 1024, "ffn_dim": 4096, "num_layers": 24,
    "attention_heads": 16, "activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.1,
    "activation_dropout": 0.0, "scale_embedding": True, "decoder_start_token_id": 2, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"num_attention_heads": "attention_heads", "hidden_size": "d_model", "num_hidden_layers": "num_layers"}
IGNORED = {
    "layerdrop": None,  # leaves out layers in training
    "add_cross_attention": (False,),
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    **under("model.", LAYER, ""),
    "model.layer_norm.{p}": "norm.{p}",
    "lm_head.weight": "lm_head.out.weight",
    "model.embed_positions.weights": Recomputed("sinusoids"),
}


def spec(c: Config) -> Spec:
    norm, dropout = LayerNorm(eps=1e-5), c.share("dropout")
    mlp = plain_mlp(
        c, hidden="ffn_dim", act="activation_function", bias=True, dropout=c.share("activation_dropout")
    )  # fmt: skip
    attn = attention(c, rope=None, biases="qkvo")
    block = Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm), dropout=dropout)
    embed = Embed(
        vocab=c.size("vocab_size"), scale=c.size("d_model") ** 0.5 if c.scale_embedding else None,
        positions=Sinusoidal(offset=2), dropout=dropout,
    )  # fmt: skip
    return decoder(c, "xglm", [block] * c.layers("num_layers"), norm=norm, embed=embed)
