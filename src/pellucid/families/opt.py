"""OPT. Paper: arXiv 2205.01068. The 350M model differs: norms after the sums, and narrower token vectors."""

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, plain_mlp, under
from pellucid.spec import Block, Embed, LayerNorm, LearnedPositions, PostNorm, PreNorm, Projection, Spec
from pellucid.weights.table import Entry

CLASSES = classes("OPT", "causal-lm", "sequence-classification", "question-answering")
DEFAULTS = {
    "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072,
    "max_position_embeddings": 2048, "do_layer_norm_before": True, "_remove_final_layer_norm": False,
    "word_embed_proj_dim": None, "dropout": 0.1, "attention_dropout": 0.0, "num_attention_heads": 12,
    "activation_function": "relu", "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "enable_bias": True,
    "layer_norm_elementwise_affine": True, "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {
    "layerdrop": None,  # leaves out layers in training
    "activation_dropout": None,  # of a version before release
}  # fmt: skip

BASE = "model."
LAYER: dict[str, Entry] = {
    "layers.{i}.self_attn.q_proj.{p}": "blocks.{i}.attn.q.{p}",
    "layers.{i}.self_attn.k_proj.{p}": "blocks.{i}.attn.k.{p}",
    "layers.{i}.self_attn.v_proj.{p}": "blocks.{i}.attn.v.{p}",
    "layers.{i}.self_attn.out_proj.{p}": "blocks.{i}.attn.o.{p}",
    "layers.{i}.self_attn_layer_norm.{p}": "blocks.{i}.attn_norm.{p}",
    "layers.{i}.fc1.{p}": "blocks.{i}.mlp.up.{p}",
    "layers.{i}.fc2.{p}": "blocks.{i}.mlp.down.{p}",
    "layers.{i}.final_layer_norm.{p}": "blocks.{i}.mlp_norm.{p}",
}
WEIGHTS: dict[str, Entry] = {
    "model.decoder.embed_tokens.weight": "embed.tokens.weight",
    "model.decoder.embed_positions.weight": "embed.positions.weight",
    "model.decoder.project_in.weight": "embed.project.weight",
    "model.decoder.project_out.weight": "out.weight",
    "model.decoder.final_layer_norm.{p}": "norm.{p}",
    **under("model.decoder.", LAYER, ""),
    "lm_head.weight": "lm_head.out.weight",
    "score.weight": "classifier.out.weight",
    "qa_outputs.{p}": "span.out.{p}",
}


def spec(c: Config) -> Spec:
    width, before, biases = c.size("hidden_size"), c.do_layer_norm_before, c.enable_bias
    narrow = c.size("word_embed_proj_dim", null=width)
    removed = c.get("_remove_final_layer_norm")  # of files tuned before a fix
    norm = LayerNorm(eps=1e-5, weight=c.layer_norm_elementwise_affine, bias=c.layer_norm_elementwise_affine)
    block = Block(
        attn=attention(c, rope=None, biases="qkvo" if biases else ""),
        mlp=plain_mlp(c, hidden="ffn_dim", act="activation_function", bias=biases),
        order=PreNorm(norm=norm) if before else PostNorm(norm=norm), dropout=c.share("dropout"),
    )  # fmt: skip
    embed = Embed(
        vocab=c.size("vocab_size"), width=narrow,
        projection=Projection(bias=False, first=True) if narrow != width else None,
        positions=LearnedPositions(rows=c.size("max_position_embeddings") + 2, offset=2),
    )  # fmt: skip
    return decoder(
        c, "opt", [block] * c.layers("num_hidden_layers"), embed=embed,
        norm=norm if before and not removed else None, out=narrow if narrow != width else None,
    )  # fmt: skip
