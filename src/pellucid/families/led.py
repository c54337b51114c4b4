"""LED: BART whose encoder attends in windows. Paper: arXiv 2004.05150, section 7."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.families._decoder import under
from pellucid.families.longformer import windows
from pellucid.spec import Custom, Spec
from pellucid.weights.table import Entry

CLASSES = b.both("LED", "seq2seq-lm", "question-answering")
DEFAULTS = b.DEFAULTS | {
    "max_position_embeddings": None, "max_encoder_position_embeddings": 16384,
    "max_decoder_position_embeddings": 1024, "attention_window": None,
}  # fmt: skip
ALIASES = b.ALIASES | {"attention_probs_dropout_prob": "attention_dropout"}
IGNORED = b.IGNORED | {"max_position_embeddings": None}  # each side says its own

BASE = "led."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    attn, slots = "led.encoder.layers.{i}.self_attn", "encoder.blocks.{i}.attn"
    own: dict[str, Entry] = {f"{attn}.output.{{p}}": f"{slots}.o.{{p}}"}
    for name in ("query", "key", "value"):
        own[f"{attn}.longformer_self_attn.{name}.{{p}}"] = f"{slots}.{name[0]}.{{p}}"
        own[f"{attn}.longformer_self_attn.{name}_global.{{p}}"] = f"{slots}.global_{name[0]}.{{p}}"
    return own | under(BASE, b.table(c))


def spec(c: Config) -> Spec:
    plain, full = b.block(c, "encoder", b.POST), b.attention(c, "encoder")
    options = (("heads", full.heads), ("head_dim", full.head_dim), ("dropout", full.dropout))
    path = "pellucid.nn.local:LocalAttention"
    blocks = [
        replace(plain, attn=Custom(path=path, options=(*options, ("radius", radius))))
        for radius in windows(c, c.layers("encoder_layers"))
    ]
    reads = b.embedding(c, b.learned(c, rows="max_encoder_position_embeddings"), b.NORM)
    writes = b.embedding(c, b.learned(c, rows="max_decoder_position_embeddings"), b.NORM)
    return Spec(
        family="led", encoder=replace(b.stack(c, "encoder", b.POST, reads, blocks), inputs=("global_attention_mask",)),
        stack=b.stack(c, "decoder", b.POST, writes), heads=b.heads(c), decoder_start=c.decoder_start_token_id,
        shared_embedding=bool(c.tie_word_embeddings), context=c.size("max_encoder_position_embeddings"),
    )  # fmt: skip
