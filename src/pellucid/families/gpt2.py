"""GPT-2. Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import GENERIC, classes, token_dropout
from pellucid.families._gguf import DECODER, QKV, Gguf
from pellucid.families._read import activation
from pellucid.spec import (
    Attention,
    Block,
    Embed,
    LayerNorm,
    LearnedPositions,
    LmHead,
    Mlp,
    PreNorm,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    Task,
    TokenHead,
)  # fmt: skip
from pellucid.weights.table import Entry, Fused, Recomputed, Transposed

CLASSES = classes("GPT2", *GENERIC) | {"causal-lm": "GPT2LMHeadModel", "pretraining": "GPT2LMHeadModel"}
DEFAULTS = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
    "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}  # fmt: skip
IGNORED = {
    "reorder_and_upcast_attn": None,  # the order of two products: the same number, rounded elsewhere
    "add_cross_attention": (False,),
}

BASE = "transformer."
HEADS: dict[Task | None, dict[str, Entry]] = {"token-classification": {"classifier.{p}": "classifier.out.{p}"}}
WEIGHTS: dict[str, Entry] = {
    "transformer.wte.weight": "embed.tokens.weight",
    "transformer.wpe.weight": "embed.positions.weight",
    "transformer.h.{i}.ln_1.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.h.{i}.attn.c_attn.weight": Transposed(Fused("blocks.{i}.attn.{}.weight", "qkv")),
    "transformer.h.{i}.attn.c_attn.bias": Fused("blocks.{i}.attn.{}.bias", "qkv"),
    "transformer.h.{i}.attn.c_proj.weight": Transposed("blocks.{i}.attn.o.weight"),
    "transformer.h.{i}.attn.c_proj.bias": "blocks.{i}.attn.o.bias",
    "transformer.h.{i}.ln_2.{p}": "blocks.{i}.mlp_norm.{p}",
    "transformer.h.{i}.mlp.c_fc.weight": Transposed("blocks.{i}.mlp.up.weight"),
    "transformer.h.{i}.mlp.c_fc.bias": "blocks.{i}.mlp.up.bias",
    "transformer.h.{i}.mlp.c_proj.weight": Transposed("blocks.{i}.mlp.down.weight"),
    "transformer.h.{i}.mlp.c_proj.bias": "blocks.{i}.mlp.down.bias",
    "transformer.ln_f.{p}": "norm.{p}",
    "lm_head.weight": "lm_head.out.weight",
    "score.weight": "classifier.out.weight",
    "qa_outputs.{p}": "span.out.{p}",
    "transformer.h.{i}.attn.bias": Recomputed("causal mask"),
    "transformer.h.{i}.attn.masked_bias": Recomputed("masked score"),
}
GGUF = Gguf(
    {
        "n_embd": "embedding_length", "n_layer": "block_count", "n_head": "attention.head_count",
        "n_inner": "feed_forward_length", "n_positions": "context_length",
        "layer_norm_epsilon": "attention.layer_norm_epsilon",
    },
    DECODER | QKV | {"position_embd.weight": "embed.positions.weight"},
)  # fmt: skip


def spec(c: Config) -> Spec:
    width, heads, layers = c.size("n_embd"), c.size("n_head"), c.layers("n_layer")
    if width % heads:
        raise ConfigError(f"n_embd={width} is no multiple of n_head={heads}", where=c.where, next="correct config.json")
    norm = LayerNorm(eps=c.number("layer_norm_epsilon", float))
    mlp = Mlp(
        hidden=c.size("n_inner", null=4 * width),
        act=activation(c.activation_function, c),
        gated=False,
        bias=True,
    )
    scale = (width // heads) ** -0.5 if c.scale_attn_weights else 1.0
    by_layer = c.scale_attn_by_inverse_layer_idx
    blocks = tuple(
        Block(
            attn=Attention(
                heads=heads, kv_heads=heads, head_dim=width // heads, scale=scale / (i + 1 if by_layer else 1),
                causal=True, biases="qkvo", dropout=c.share("attn_pdrop"),
            ),
            mlp=mlp, order=PreNorm(norm=norm), dropout=c.share("resid_pdrop"),
        )
        for i in range(layers)
    )  # fmt: skip
    positions = c.size("n_positions")
    return Spec(
        family="gpt2",
        stack=Stack(
            width=width, blocks=blocks, norm=norm,
            embed=Embed(
                vocab=c.size("vocab_size"), positions=LearnedPositions(rows=positions),
                dropout=c.share("embd_pdrop"),
            ),
        ),
        heads={
            "causal-lm": LmHead(tied=c.tie_word_embeddings),
            "sequence-classification": SequenceHead(labels=c.size("num_labels"), pool="last", bias=False),
            "token-classification": TokenHead(labels=c.size("num_labels"), dropout=token_dropout(c)),
            "question-answering": SpanHead(),
        },
        context=positions,
    )  # fmt: skip
