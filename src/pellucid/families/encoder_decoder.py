"""Any encoder with any decoder, as a translator or summariser. Paper: arXiv 1907.12461.

Each half is read by its own family; the decoder gets attention over the encoder's output.
"""

from collections.abc import Mapping
from dataclasses import replace

from pellucid import families
from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import Family
from pellucid.spec import Attention, Block, Spec
from pellucid.weights.table import TOWER, Entry, Fused, Transposed, Unused, nested, slots_of

CLASSES = {"seq2seq-lm": "EncoderDecoderModel"}
DEFAULTS = {
    "encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert", "is_decoder": True},
    "pad_token_id": None, "decoder_start_token_id": None, "is_encoder_decoder": True,
}  # fmt: skip
IGNORED = {"tie_word_embeddings": None}  # the decoder's own counts

# GPT-2's names for attention over an encoder; BERT's follow from those of its attention.
GPT2: dict[str, Entry] = {
    "transformer.h.{i}.crossattention.c_attn.weight": Transposed(Fused("blocks.{i}.cross.{}.weight", "kv")),
    "transformer.h.{i}.crossattention.c_attn.bias": Fused("blocks.{i}.cross.{}.bias", "kv"),
    "transformer.h.{i}.crossattention.q_attn.weight": Transposed("blocks.{i}.cross.q.weight"),
    "transformer.h.{i}.crossattention.q_attn.bias": "blocks.{i}.cross.q.bias",
    "transformer.h.{i}.crossattention.c_proj.weight": Transposed("blocks.{i}.cross.o.weight"),
    "transformer.h.{i}.crossattention.c_proj.bias": "blocks.{i}.cross.o.bias",
    "transformer.h.{i}.ln_cross_attn.{p}": "blocks.{i}.cross_norm.{p}",
}


def half(c: Config, name: str) -> tuple[Family, Config]:
    """The family and config of one half."""
    values = c.get(name)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name}={values!r} is no config", where=c.where, next="correct config.json")
    where = f"{c.where}: {name}"
    family = families.find(values.get("model_type"), where)
    said = {"add_cross_attention"} | ({"is_decoder"} - family.config({}, where).to_dict().keys())  # known from here
    return family, family.config({key: value for key, value in values.items() if key not in said}, where)


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    family, config = half(c, "encoder")
    table = family.table(config)
    inner = {name.removeprefix(table.base): entry for name, entry in table.entries.items()}
    read = {n: e for n, e in inner.items() if not slots_of(e) or slots_of(e)[0].split(".")[0] in TOWER}
    unread = dict.fromkeys(inner.keys() - read.keys(), Unused("what the encoder was made for", kept=True))
    names = nested(read, name="encoder.", slot="encoder.") | nested(unread, name="encoder.")
    family, config = half(c, "decoder")
    entries = family.table(config, "causal-lm").entries
    return names | nested(entries | cross(entries), name="decoder.")


def cross(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """What a decoder's files call attention over an encoder, where its family has no names for it."""
    if "transformer.h.{i}.ln_1.weight" in entries:
        return GPT2
    return {
        name.replace(".attention.", ".crossattention."): slot.replace(".attn", ".cross")
        for name, slot in entries.items()
        if isinstance(slot, str) and ".attn" in slot and ".attention." in name
    }


def spec(c: Config) -> Spec:
    (reads, encoder), (writes, decoder) = half(c, "encoder"), half(c, "decoder")
    reader, writer = reads.spec(encoder)[0], writes.spec(decoder)[0]
    if reader.encoder is not None or reader.remembers or "causal-lm" not in writer.heads:
        what = f"encoder={reads.name!r} with decoder={writes.name!r}: the one must read both ways, the other write"
        raise ConfigError(what, where=c.where, next="set is_decoder in the decoder's config, and not in the encoder's")
    if reader.width != writer.width:
        what = f"an encoder of width {reader.width} and a decoder of width {writer.width}"
        raise ConfigError(what, where=c.where, next="use halves of one width")
    return replace(
        writer, family="encoder-decoder", encoder=reader.stack, pooler=None, shared_embedding=False,
        stack=replace(writer.stack, blocks=tuple(with_cross(block, c) for block in writer.stack.blocks)),
        heads={"seq2seq-lm": writer.heads["causal-lm"]}, decoder_start=c.decoder_start_token_id,
    )  # fmt: skip


def with_cross(block: object, c: Config) -> Block:
    """A decoder's block that also reads the encoder's output."""
    if not isinstance(block, Block) or not isinstance(block.attn, Attention):
        what = "a decoder whose layers are not made of attention"
        raise ConfigError(what, where=c.where, next="use a decoder of the BERT, GPT-2 or BART school")
    cross = replace(block.attn, causal=False, rope=None, bias=None, window=None)
    return replace(block, cross=block.cross or cross)
