"""T5, T5 1.1 and Flan-T5. Papers: arXiv 1910.10683, 2210.11416."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import classes
from pellucid.families._gguf import Gguf
from pellucid.families._read import activation
from pellucid.spec import (
    Attention,
    Block,
    Dense,
    Embed,
    Head,
    LmHead,
    Mlp,
    PreNorm,
    RelativeBias,
    RmsNorm,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    Task,
    TokenHead,
)
from pellucid.weights.table import Entry, Unused

TASKS: tuple[Task, ...] = (
    "seq2seq-lm", "sequence-classification", "token-classification", "question-answering", "text-encoding",
)  # fmt: skip
CLASSES = classes("T5", *TASKS) | {"pretraining": "T5ForConditionalGeneration"}
DEFAULTS = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": None,
    "num_heads": 8, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6, "feed_forward_proj": "relu", "pad_token_id": 0, "eos_token_id": 1,
    "is_encoder_decoder": True, "tie_word_embeddings": True, "classifier_dropout": 0.0,
}  # fmt: skip
ALIASES = {
    "hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads",
    "head_dim": "d_kv",
}  # fmt: skip
IGNORED = {
    "n_positions": None,  # the length of the training data; relative positions know no limit
    "is_decoder": (False,),
    "add_cross_attention": None,
}

BASE = ""


def sides(side: str, at: str, cross: bool) -> dict[str, Entry]:
    """The names of one side's layers; a decoder's hold attention over the encoder between the other two."""
    layer = f"{side}.block.{{i}}.layer"
    mlp = 2 if cross else 1
    return {
        f"{layer}.0.layer_norm.weight": f"{at}blocks.{{i}}.attn_norm.weight",
        **{f"{layer}.0.SelfAttention.{x}.weight": f"{at}blocks.{{i}}.attn.{x}.weight" for x in "qkvo"},
        **({f"{layer}.1.layer_norm.weight": f"{at}blocks.{{i}}.cross_norm.weight"} if cross else {}),
        **{f"{layer}.1.EncDecAttention.{x}.weight": f"{at}blocks.{{i}}.cross.{x}.weight" for x in "qkvo" if cross},
        f"{layer}.{mlp}.layer_norm.weight": f"{at}blocks.{{i}}.mlp_norm.weight",
        f"{layer}.{mlp}.DenseReluDense.wi.weight": f"{at}blocks.{{i}}.mlp.up.weight",
        f"{layer}.{mlp}.DenseReluDense.wi_0.weight": f"{at}blocks.{{i}}.mlp.gate.weight",
        f"{layer}.{mlp}.DenseReluDense.wi_1.weight": f"{at}blocks.{{i}}.mlp.up.weight",
        f"{layer}.{mlp}.DenseReluDense.wo.weight": f"{at}blocks.{{i}}.mlp.down.weight",
        f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": f"{at}relative_bias.weight",
        f"{side}.final_layer_norm.weight": f"{at}norm.weight",
    }


LABELS: dict[str, Entry] = {
    "classification_head.dense.{p}": "classifier.dense.{p}",
    "classification_head.out_proj.{p}": "classifier.out.{p}",
    "classifier.{p}": "classifier.out.{p}",
    "qa_outputs.{p}": "span.out.{p}",
}


BOTH: dict[str, Entry] = {
    "shared.weight": "encoder.embed.tokens.weight",
    "encoder.embed_tokens.weight": "encoder.embed.tokens.weight",
    "decoder.embed_tokens.weight": "embed.tokens.weight",
    "lm_head.weight": "lm_head.out.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": Unused("never read in T5's own code"),
    **sides("encoder", "encoder.", cross=False),
    **sides("decoder", "", cross=True),
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    absent = ".wi.weight" if c.feed_forward_proj.startswith("gated-") else ".wi_1.weight"
    names = {name: slot for name, slot in BOTH.items() if not name.endswith(absent)}
    return names | {f"transformer.{name}": slot for name, slot in names.items()} | LABELS


def HEADS(c: Config) -> dict[Task, dict[str, Entry]]:  # noqa: N802
    """Two classes hold T5 under `transformer.`."""
    inner = {name: slot for name, slot in WEIGHTS(c).items() if name.startswith("transformer.")}
    labels: dict[str, Entry] = {"classifier.{p}": "classifier.out.{p}"}
    return {"sequence-classification": inner, "token-classification": inner | labels}


def gguf_side(side: str, at: str) -> dict[str, Entry]:
    """One side's layers in a GGUF file."""
    layer, slot = f"{side}.blk.{{i}}.", f"{at}blocks.{{i}}."
    return {
        **{f"{layer}attn_{x}.weight": f"{slot}attn.{x}.weight" for x in "qkvo"},
        **{f"{layer}cross_attn_{x}.weight": f"{slot}cross.{x}.weight" for x in "qkvo" if not at},
        **{f"{layer}ffn_{x}.weight": f"{slot}mlp.{x}.weight" for x in ("gate", "up", "down")},
        layer + "attn_norm.weight": slot + "attn_norm.weight", layer + "ffn_norm.weight": slot + "mlp_norm.weight",
        **({} if at else {layer + "cross_attn_norm.weight": slot + "cross_norm.weight"}),
        f"{side}.blk.0.attn_rel_b.weight": f"{at}relative_bias.weight",
        f"{side}.output_norm.weight": f"{at}norm.weight",
    }  # fmt: skip


GGUF = Gguf(
    {
        "d_model": "embedding_length", "d_kv": "attention.key_length", "d_ff": "feed_forward_length",
        "num_layers": "block_count", "num_decoder_layers": "decoder_block_count", "num_heads": "attention.head_count",
        "relative_attention_num_buckets": "attention.relative_buckets_count",
        "layer_norm_epsilon": "attention.layer_norm_rms_epsilon", "decoder_start_token_id": "decoder_start_token_id",
    },
    {
        "token_embd.weight": "encoder.embed.tokens.weight", "output.weight": "lm_head.out.weight",
        **gguf_side("enc", "encoder."), **gguf_side("dec", ""),
        "dec.blk.{i}.cross_attn_rel_b.weight": Unused("never read in T5's own code"),
    },
    more=lambda said: {
        "feed_forward_proj": "gated-gelu" if said.has("enc.blk.0.ffn_gate.weight") else "relu",
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    kind = c.feed_forward_proj
    gated = kind.startswith("gated-")
    act = activation(act_name(kind), c)
    if c.get("is_gated_act", gated) != gated or activation(c.get("dense_act_fn") or act_name(kind), c) != act:
        what = f"is_gated_act={c.get('is_gated_act')} and dense_act_fn={c.get('dense_act_fn')!r} contradict"
        raise ConfigError(f"{what} feed_forward_proj={kind!r}", where=c.where, next="correct config.json")
    return encoder_decoder(c, "t5", Mlp(hidden=c.size("d_ff"), act=act, gated=gated, dropout=c.share("dropout_rate")))


def encoder_decoder(c: Config, family: str, mlp: Mlp) -> Spec:
    """Both sides, with the same feed-forward part in every layer."""
    width, heads, drop = c.size("d_model"), c.size("num_heads"), c.share("dropout_rate")
    norm = RmsNorm(eps=c.number("layer_norm_epsilon", float))

    def attention(causal: bool) -> Attention:
        kv = c.size("d_kv")
        return Attention(heads=heads, kv_heads=heads, head_dim=kv, scale=1.0, causal=causal, dropout=drop)

    def stack(layers: int, decoder: bool) -> Stack:
        block = Block(
            attn=attention(causal=decoder), cross=attention(causal=False) if decoder else None,
            mlp=mlp, order=PreNorm(norm=norm), dropout=drop,
        )  # fmt: skip
        buckets = c.number("relative_attention_num_buckets", least=4)
        bias = RelativeBias(
            buckets=buckets, bidirectional=not decoder,
            max_distance=c.number("relative_attention_max_distance", least=buckets // 2 + 1),
        )  # fmt: skip
        embed = Embed(vocab=c.size("vocab_size"), dropout=drop)
        return Stack(width=width, embed=embed, blocks=(block,) * layers, norm=norm, relative_bias=bias, dropout=drop)

    layers = c.layers("num_layers")
    decoder_layers = c.layers("num_decoder_layers", null=layers)
    # The first T5 ties its head to the embedding and scales what goes in; 1.1 does neither. Files written by
    # transformers 5 always say "tied" and keep the difference in scale_decoder_outputs.
    scaled = c.get("scale_decoder_outputs", c.tie_word_embeddings is not False)
    head = LmHead(tied=c.tie_word_embeddings is not False, scale=width**-0.5 if scaled else None)
    start = c.decoder_start_token_id
    return Spec(
        family=family,
        stack=stack(decoder_layers, decoder=True),
        encoder=stack(layers, decoder=False),
        heads={"seq2seq-lm": head, **labels(c)},
        decoder_start=c.pad_token_id if start is None else start,
    )


def labels(c: Config) -> dict[Task, Head]:
    """What stands on the decoder's output for the text itself, and for tokens on the encoder's."""
    count, drop = c.size("num_labels"), c.share("classifier_dropout", null=0.0)
    return {
        "sequence-classification": SequenceHead(labels=count, pool="eos", hidden=Dense(act="tanh"), dropout=drop),
        "token-classification": TokenHead(labels=count, dropout=drop),
        "question-answering": SpanHead(),
    }


def act_name(kind: str) -> str:
    """The activation in `gated-gelu`, `relu` …; T5 means the tanh form by gated GELU."""
    return "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
