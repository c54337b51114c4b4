"""TIPSv2's text tower on its own. Weights: huggingface.co/google/tipsv2-b14."""

from pellucid.config import Config
from pellucid.families._encoder import encoder, head_size, layer_norm, mlp
from pellucid.spec import Attention, Block, Embed, Pooling, PreNorm, Sinusoidal, Spec
from pellucid.weights.table import Entry, Fused

CLASSES = {None: "Tipsv2TextModel", "text-encoding": "Tipsv2TextModel"}
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 64, "hidden_act": "relu", "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, "scale_sqrt_depth": True,
}  # fmt: skip
IGNORED = {
    "pooling_epsilon": None,  # for texts without tokens
    "tie_word_embeddings": None,
}

BASE = "text_encoder."
LAYER = "text_encoder.transformer.resblocks.{i}"
WEIGHTS: dict[str, Entry] = {
    "text_encoder.token_embedding.weight": "embed.tokens.weight",
    f"{LAYER}.ln_1.{{p}}": "blocks.{i}.attn_norm.{p}",
    f"{LAYER}.attn.in_proj_weight": Fused("blocks.{i}.attn.{}.weight", "qkv"),
    f"{LAYER}.attn.in_proj_bias": Fused("blocks.{i}.attn.{}.bias", "qkv"),
    f"{LAYER}.attn.out_proj.{{p}}": "blocks.{i}.attn.o.{p}",
    f"{LAYER}.ln_2.{{p}}": "blocks.{i}.mlp_norm.{p}",
    f"{LAYER}.mlp.c_fc.{{p}}": "blocks.{i}.mlp.up.{p}",
    f"{LAYER}.mlp.c_proj.{{p}}": "blocks.{i}.mlp.down.{p}",
    "text_encoder.ln_final.{p}": "norm.{p}",
}


def spec(c: Config) -> Spec:
    (heads, head_dim), norm, width = head_size(c), layer_norm(c), c.size("hidden_size")
    attn = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, causal=False, biases="qkvo",
        dropout=c.share("attention_dropout"),
    )  # fmt: skip
    rows = c.size("max_position_embeddings")
    embed = Embed(
        vocab=c.size("vocab_size"), positions=Sinusoidal(rows=rows), scale=width**0.5 if c.scale_sqrt_depth else None
    )  # fmt: skip
    blocks = [Block(attn=attn, mlp=mlp(c), order=PreNorm(norm=norm))] * c.layers("num_hidden_layers")
    pooler = Pooling(pool="mean", act=None)
    return encoder(c, "tipsv2_text_model", blocks, embed=embed, norm=norm, pooler=pooler, heads={}, context=rows)
