"""CLIP's text tower on its own. Paper: arXiv 2103.00020."""

from pellucid.config import Config
from pellucid.families._encoder import encoder, head_size, layer_norm, mlp
from pellucid.spec import Attention, Block, Embed, LearnedPositions, Pooling, PreNorm, Spec
from pellucid.weights.table import Entry, Recomputed

CLASSES = {None: "CLIPTextModel", "text-encoding": "CLIPTextModel"}
DEFAULTS = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0, "pad_token_id": 1, "bos_token_id": 49406, "eos_token_id": 49407,
}  # fmt: skip
IGNORED = {"projection_dim": None, "dropout": (0.0,), "tie_word_embeddings": None}  # of the pair with images

BASE = "text_model."
WEIGHTS: dict[str, Entry] = {
    "text_model.embeddings.token_embedding.weight": "embed.tokens.weight",
    "text_model.embeddings.position_embedding.weight": "embed.positions.weight",
    "text_model.embeddings.position_ids": Recomputed("position ids"),
    **{f"text_model.encoder.layers.{{i}}.self_attn.{x}_proj.{{p}}": f"blocks.{{i}}.attn.{x}.{{p}}" for x in "qkv"},
    "text_model.encoder.layers.{i}.self_attn.out_proj.{p}": "blocks.{i}.attn.o.{p}",
    "text_model.encoder.layers.{i}.layer_norm1.{p}": "blocks.{i}.attn_norm.{p}",
    "text_model.encoder.layers.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.up.{p}",
    "text_model.encoder.layers.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.down.{p}",
    "text_model.encoder.layers.{i}.layer_norm2.{p}": "blocks.{i}.mlp_norm.{p}",
    "text_model.final_layer_norm.{p}": "norm.{p}",
}


def spec(c: Config) -> Spec:
    (heads, head_dim), norm = head_size(c), layer_norm(c)
    attn = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, causal=True, biases="qkvo",
        dropout=c.share("attention_dropout"),
    )  # fmt: skip
    block = Block(attn=attn, mlp=mlp(c), order=PreNorm(norm=norm))
    embed = Embed(vocab=c.size("vocab_size"), positions=LearnedPositions(rows=c.size("max_position_embeddings")))
    # The first files call 2 the end, and their tokenizer the largest id there is.
    pooler = Pooling(pool="largest" if c.eos_token_id == 2 else "end")
    layers = c.layers("num_hidden_layers")
    return encoder(c, "clip_text_model", [block] * layers, embed=embed, norm=norm, pooler=pooler, heads={})
