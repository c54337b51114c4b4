"""Perceiver IO over bytes. Paper: arXiv 2107.14795."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._read import activation
from pellucid.spec import Custom, Embed, LearnedPositions, LmHead, Mlp, SequenceHead, Spec, Stack, Task
from pellucid.weights.table import Entry

CLASSES = {
    "masked-lm": "PerceiverForMaskedLM", "sequence-classification": "PerceiverForSequenceClassification",
}  # fmt: skip
DEFAULTS = {
    "num_latents": 256, "d_latents": 1280, "d_model": 768, "num_blocks": 1, "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8, "num_cross_attention_heads": 8, "qk_channels": None, "v_channels": None,
    "cross_attention_shape_for_attention": "kv", "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1, "hidden_act": "gelu", "attention_probs_dropout_prob": 0.1,
    "use_query_residual": True, "vocab_size": 262, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {
    "layer_norm_eps": None,  # every norm has 1e-5
    # of pictures, sound and optical flow
    "image_size": None, "train_size": None, "num_frames": None, "audio_samples_per_frame": None,
    "samples_per_patch": None, "output_shape": None, "output_num_channels": None,
    "_label_trainable_num_channels": None,
}  # fmt: skip

BASE = "perceiver."


def reader(file: str, slot: str, kind: str) -> dict[str, Entry]:
    """The names of one reader; `kind` is its attention, "attn" or "cross"."""
    return {
        f"{file}.attention.self.layernorm1.{{p}}": f"{slot}.norm.{{p}}",
        **({f"{file}.attention.self.layernorm2.{{p}}": f"{slot}.source_norm.{{p}}"} if kind == "cross" else {}),
        f"{file}.attention.self.query.{{p}}": f"{slot}.{kind}.q.{{p}}",
        f"{file}.attention.self.key.{{p}}": f"{slot}.{kind}.k.{{p}}",
        f"{file}.attention.self.value.{{p}}": f"{slot}.{kind}.v.{{p}}",
        f"{file}.attention.output.dense.{{p}}": f"{slot}.{kind}.o.{{p}}",
        f"{file}.layernorm.{{p}}": f"{slot}.mlp_norm.{{p}}",
        f"{file}.mlp.dense1.{{p}}": f"{slot}.mlp.up.{{p}}",
        f"{file}.mlp.dense2.{{p}}": f"{slot}.mlp.down.{{p}}",
    }


def answers(file: str) -> dict[str, Entry]:
    """The names of the reader at the end, and of its queries."""
    return {
        f"{file}.output_position_encodings.position_embeddings": "body.queries.weight",
        **reader(f"{file}.decoding_cross_attention", "body.answer", "cross"),
        f"{file}.final_layer.{{p}}": "classifier.out.{p}",
    }


WEIGHTS: dict[str, Entry] = {
    "perceiver.input_preprocessor.embeddings.weight": "embed.tokens.weight",
    "perceiver.input_preprocessor.position_embeddings.weight": "embed.positions.weight",
    "perceiver.embeddings.latents": "body.latents",
    **reader("perceiver.encoder.cross_attention", "body.read", "cross"),
    **reader("perceiver.encoder.self_attends.{i}", "body.think.{i}", "attn"),
    "embedding_decoder.bias": "lm_head.out.bias",
}
HEADS: dict[Task | None, dict[str, Entry]] = {
    "masked-lm": answers("perceiver.decoder"),
    "sequence-classification": answers("perceiver.decoder.decoder"),
}


def spec(c: Config) -> Spec:
    width, inner, rows = c.size("d_model"), c.size("d_latents"), c.size("max_position_embeddings")
    act, dropout = activation(c.hidden_act, c), c.share("attention_probs_dropout_prob")
    shape = c.cross_attention_shape_for_attention
    cross, own = c.size("num_cross_attention_heads"), c.size("num_self_attention_heads")
    qk, v = c.size("qk_channels", null=None), c.size("v_channels", null=None)
    if shape not in ("kv", "q") or width % 8 or (v or qk or inner) != inner:
        what = f"cross_attention_shape_for_attention={shape!r}, d_model={width}, v_channels={v} for d_latents={inner}"
        raise ConfigError(what, where=c.where, next="'kv' or 'q', a multiple of 8, and as many as the latents have")

    def options(at: int, heads: int, qk: int, v: int, widening: int = 1, residual: bool = True) -> Custom:
        if qk % heads or v % heads:
            raise ConfigError(f"{heads} heads for {qk} and {v} channels", where=c.where, next="correct config.json")
        mlp = Mlp(hidden=widening * at, act=act, gated=False, bias=True)
        return Custom(path="pellucid.families.perceiver.body:Reading", options=(
            ("heads", heads), ("qk", qk), ("v", v), ("dropout", dropout), ("mlp", mlp), ("residual", residual),
        ))  # fmt: skip

    through = qk or (width if shape == "kv" else inner)
    read = options(
        inner, cross, through, v or through, c.size("cross_attention_widening_factor"), c.use_query_residual
    )  # fmt: skip
    think = options(inner, own, qk or inner, v or qk or inner, c.size("self_attention_widening_factor"))
    shared = (
        ("latents", c.size("num_latents")), ("latent_width", inner), ("read", read), ("think", think),
        ("layers", c.layers("num_self_attends_per_block")), ("rounds", c.layers("num_blocks")),
    )  # fmt: skip

    def body(queries: int, answer: Custom) -> Custom:
        options = (*shared, ("queries", queries), ("answer", answer))
        return Custom(path="pellucid.families.perceiver.body:Perceiver", options=options)

    embed = Embed(
        vocab=c.size("vocab_size"), width=width, positions=LearnedPositions(rows=rows)
    )  # fmt: skip
    bytes_out = Stack(
        width=width, embed=embed, blocks=(), norm=None,
        body=body(rows, options(width, 8, 256, width, residual=False)),
    )  # fmt: skip
    label_out = replace(bytes_out, width=inner, body=body(1, options(inner, 1, inner, inner)))
    return Spec(
        family="perceiver",
        stack=bytes_out,
        stacks={"sequence-classification": label_out},
        heads={
            "masked-lm": LmHead(tied=True, bias=True),
            "sequence-classification": SequenceHead(labels=c.size("num_labels"), pool="first"),
        },
        context=rows,
    )
