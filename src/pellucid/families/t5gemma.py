"""T5Gemma: an encoder and a decoder, each a Gemma 2 of its own size. Paper: arXiv 2504.06225."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import gemma2
from pellucid.families._decoder import attention, classes, gated, rms, windows
from pellucid.spec import Block, Embed, Head, LmHead, Sandwich, SequenceHead, Spec, Stack, Task, TokenHead
from pellucid.weights.table import Entry, Recomputed

CLASSES = classes("T5Gemma", "seq2seq-lm", "sequence-classification", "token-classification", "text-encoding")
DEFAULTS = {
    "encoder": None, "decoder": None, "is_encoder_decoder": True, "dropout_rate": 0.0, "classifier_dropout_rate": 0.0,
    "attention_dropout": 0.0, "tie_word_embeddings": True, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
IGNORED = {
    "vocab_size": None,  # each side has its own
    "tie_word_embeddings": None,  # read where there is a head
}
# A side's own: what the outer config says of both; what is read of the decoder alone; what follows from the other side.
INNER = gemma2.IGNORED | {
    "is_decoder": None, "dropout_rate": None, "attention_dropout": None, "cross_attention_hidden_size": None,
    "final_logit_softcapping": None, "tie_word_embeddings": None,
}  # fmt: skip

BASE = "model."


def layers(side: str, at: str) -> dict[str, Entry]:
    """One side's names; `at` stands before its slots."""
    layer, block = f"model.{side}.layers.{{i}}", f"{at}blocks.{{i}}"
    parts = {"self_attn": "attn"} | ({"cross_attn": "cross"} if side == "decoder" else {})
    names: dict[str, Entry] = {
        f"{layer}.{theirs}.{x}_proj.{{p}}": f"{block}.{ours}.{x}.{{p}}"
        for theirs, ours in parts.items()
        for x in "qkvo"
    }
    for theirs, ours in (parts | {"feedforward": "mlp"}).items():
        names[f"{layer}.pre_{theirs}_layernorm.weight"] = f"{block}.{ours}_norm.weight"
        names[f"{layer}.post_{theirs}_layernorm.weight"] = f"{block}.{ours}_post_norm.weight"
    return names | {
        **{f"{layer}.mlp.{x}_proj.weight": f"{block}.mlp.{x}.weight" for x in ("gate", "up", "down")},
        f"model.{side}.embed_tokens.weight": f"{at}embed.tokens.weight",
        f"model.{side}.norm.weight": f"{at}norm.weight",
        f"model.{side}.rotary_emb.inv_freq": Recomputed("inverse frequencies"),
    }


HEAD_WEIGHTS: dict[str, Entry] = {
    "lm_head.out_proj.weight": "lm_head.out.weight",
    "score.out_proj.{p}": "classifier.out.{p}",
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    sides = layers("encoder", "encoder.") | layers("decoder", "") if c.is_encoder_decoder else layers("encoder", "")
    return sides | HEAD_WEIGHTS


def HEADS(c: Config) -> dict[Task, dict[str, Entry]]:  # noqa: N802
    """The class of the encoder alone is a base, and its names go without the prefix."""
    inner = {} if c.is_encoder_decoder else {name.removeprefix(BASE): slot for name, slot in WEIGHTS(c).items()}
    return {"text-encoding": inner}


def spec(c: Config) -> Spec:
    """Both sides; or, as the config says, the encoder alone."""
    encoder, decoder = (
        Config(section.given() if section else {}, defaults=gemma2.DEFAULTS, where=f"{c.where}: {name}")
        for name, section in (("encoder", c.section("encoder")), ("decoder", c.section("decoder")))
    )
    reader, labels, drop = stack(encoder, c), c.size("num_labels"), c.share("classifier_dropout_rate")
    heads: dict[Task, Head] = {
        "sequence-classification": SequenceHead(labels=labels, pool="last", dropout=drop),
        "token-classification": TokenHead(labels=labels, dropout=drop),
    }
    encoder.close(INNER)
    context = encoder.size("max_position_embeddings")
    if not c.is_encoder_decoder:
        return Spec(family="t5gemma", stack=reader, heads=heads, context=context)
    writer = stack(decoder, c, over=reader.width)
    cap = decoder.number("final_logit_softcapping", float, least=1e-6, null=None)
    decoder.close(INNER)
    return Spec(
        family="t5gemma", stack=writer, encoder=reader, shared_embedding=False, context=context,
        heads={**heads, "seq2seq-lm": LmHead(tied=c.tie_word_embeddings, cap=cap)},
        decoder_start=decoder.bos_token_id,
    )  # fmt: skip


def stack(side: Config, c: Config, over: int | None = None) -> Stack:
    """Gemma 2's layers; with `over`, causal, and reading an encoder's output of that width."""
    width, drop = side.size("hidden_size"), c.share("dropout_rate")
    norm = rms(side, offset=1.0, round_first=False)
    attn = attention(
        side, scale=side.number("query_pre_attn_scalar", float, least=1e-6) ** -0.5,
        cap=side.number("attn_logit_softcapping", float, least=1e-6, null=None),
    )  # fmt: skip
    attn = replace(attn, causal=over is not None, dropout=c.share("attention_dropout"))
    cross = None if over is None else replace(attn, causal=False, rope=None, memory_width=over)
    mlp = gated(side, act="hidden_activation", dropout=drop)
    kinds = windows(side, attn, lambda i: ("sliding_attention", "full_attention")[i % 2])
    embed = Embed(vocab=side.size("vocab_size"), scale=width**0.5, dropout=drop)
    return Stack(
        width=width, embed=embed, norm=norm, dropout=drop,
        blocks=tuple(Block(attn=one, cross=cross, mlp=mlp, order=Sandwich(norm=norm), dropout=drop) for one in kinds),
    )  # fmt: skip
