"""ProphetNet. Paper: arXiv 2001.04063."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._bart import both
from pellucid.families._read import activation
from pellucid.spec import (
    Attention,
    Block,
    Custom,
    Embed,
    LayerNorm,
    LearnedPositions,
    LmHead,
    Mlp,
    PostNorm,
    Spec,
    Stack,
)
from pellucid.weights.table import Entry

CLASSES = both("ProphetNet", "seq2seq-lm", "causal-lm")
DEFAULTS = {
    "activation_dropout": 0.1, "activation_function": "gelu", "vocab_size": 30522, "hidden_size": 1024,
    "encoder_ffn_dim": 4096, "num_encoder_layers": 12, "num_encoder_attention_heads": 16, "decoder_ffn_dim": 4096,
    "num_decoder_layers": 12, "num_decoder_attention_heads": 16, "attention_dropout": 0.1, "dropout": 0.1,
    "max_position_embeddings": 512, "is_encoder_decoder": True, "add_cross_attention": True,
    "decoder_start_token_id": 0, "ngram": 2, "num_buckets": 32, "relative_max_distance": 128,
    "disable_ngram_loss": False, "eps": 0.0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"num_attention_heads": "num_encoder_attention_heads"}
IGNORED = {
    "is_decoder": None, "add_cross_attention": (True,), "decoder_max_position_embeddings": None,
    "encoder_layerdrop": None, "decoder_layerdrop": None, "gradient_checkpointing": None,
}  # fmt: skip

BASE = "prophetnet."


def layers(side: str, at: str, attentions: dict[str, str]) -> dict[str, Entry]:
    """The names of one side's layers."""
    layer, names = f"prophetnet.{side}.layers.{{i}}", dict[str, Entry]()
    for theirs, ours in attentions.items():
        for word, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            names[f"{layer}.{theirs}.{word}_proj.{{p}}"] = f"{at}.{{i}}.{ours}.{letter}.{{p}}"
        names[f"{layer}.{theirs}_layer_norm.{{p}}"] = f"{at}.{{i}}.{ours}_norm.{{p}}"
    return names | {
        f"{layer}.feed_forward.intermediate.{{p}}": f"{at}.{{i}}.mlp.up.{{p}}",
        f"{layer}.feed_forward.output.{{p}}": f"{at}.{{i}}.mlp.down.{{p}}",
        f"{layer}.feed_forward_layer_norm.{{p}}": f"{at}.{{i}}.mlp_norm.{{p}}",
    }


WEIGHTS: dict[str, Entry] = {
    "prophetnet.word_embeddings.weight": "encoder.embed.tokens.weight",
    "prophetnet.encoder.word_embeddings.weight": "encoder.embed.tokens.weight",
    "prophetnet.decoder.word_embeddings.weight": "embed.tokens.weight",
    "prophetnet.encoder.position_embeddings.weight": "encoder.embed.positions.weight",
    "prophetnet.encoder.embeddings_layer_norm.{p}": "encoder.embed.norm.{p}",
    "prophetnet.decoder.position_embeddings.weight": "body.positions.weight",
    "prophetnet.decoder.ngram_embeddings.weight": "body.streams.weight",
    "prophetnet.decoder.embeddings_layer_norm.{p}": "body.norm.{p}",
    **layers("encoder", "encoder.blocks", {"self_attn": "attn"}),
    **layers("decoder", "body.blocks", {"self_attn": "attn", "cross_attn": "cross"}),
    "prophetnet.decoder.layers.{i}.self_attn.relative_pos_embeddings.{p}": "body.blocks.{i}.attn.distances.{p}",
    "lm_head.weight": "lm_head.out.weight",
}

HEADS = {"causal-lm": {"prophetnet.word_embeddings.weight": "embed.tokens.weight"}}


def spec(c: Config) -> Spec:
    width, rows, dropout = c.size("hidden_size"), c.size("max_position_embeddings"), c.share("dropout")
    norm, offset, streams = LayerNorm(eps=1e-5), c.number("pad_token_id") + 1, c.size("ngram")
    act, inner = activation(c.activation_function, c), c.share("activation_dropout")

    def attention(side: str) -> Attention:
        heads = c.size(f"num_{side}_attention_heads")
        if width % heads:
            what = f"hidden_size={width} is no multiple of {heads} heads"
            raise ConfigError(what, where=c.where, next="correct config.json")
        return Attention(
            heads=heads, kv_heads=heads, head_dim=width // heads, scale=(width // heads) ** -0.5, causal=False,
            biases="qkvo", dropout=c.share("attention_dropout"),
        )  # fmt: skip

    def block(side: str, attn: Attention | Custom, cross: Attention | None = None) -> Block:
        mlp = Mlp(hidden=c.size(f"{side}_ffn_dim"), act=act, gated=False, bias=True, dropout=inner)
        return Block(attn=attn, cross=cross, mlp=mlp, order=PostNorm(norm=norm), dropout=dropout)

    cross, buckets = attention("decoder"), c.number("num_buckets", least=2)
    ngram = Custom(path="pellucid.families.prophetnet.streams:NgramAttention", options=(
        ("streams", streams), ("heads", cross.heads), ("head_dim", cross.head_dim), ("buckets", buckets),
        ("max_distance", c.number("relative_max_distance", least=buckets)), ("dropout", cross.dropout),
    ))  # fmt: skip

    def decoder(answer: int, reads: bool = True) -> Stack:
        """`answer` is the stream that comes out; `reads`: there is an encoder to read."""
        one = block("decoder", ngram, cross if reads else None)
        body = Custom(path="pellucid.families.prophetnet.streams:NgramDecoder", options=(
            ("blocks", (one,) * c.layers("num_decoder_layers")), ("streams", streams), ("positions", rows),
            ("offset", offset), ("norm", norm), ("answer", answer), ("ahead", not c.disable_ngram_loss),
            ("dropout", dropout),
        ))  # fmt: skip
        return Stack(width=width, embed=Embed(vocab=c.size("vocab_size")), blocks=(), norm=None, body=body)

    embed = Embed(
        vocab=c.size("vocab_size"), positions=LearnedPositions(rows=rows, offset=offset), norm=norm, dropout=dropout
    )  # fmt: skip
    lm = LmHead(tied=c.tie_word_embeddings, labels_ahead=True, smoothing=c.share("eps"))
    return Spec(
        family="prophetnet",
        encoder=Stack(
            width=width, embed=embed, norm=None,
            blocks=(block("encoder", attention("encoder")),) * c.layers("num_encoder_layers"),
        ),
        stack=decoder(answer=1),
        stacks={None: decoder(answer=0), "causal-lm": decoder(answer=1, reads=False)},
        heads={"seq2seq-lm": lm, "causal-lm": lm},
        decoder_start=c.decoder_start_token_id,
        context=rows - offset - 1,
    )  # fmt: skip
