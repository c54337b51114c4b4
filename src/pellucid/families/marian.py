"""Marian: the OPUS-MT translators. Paper: arXiv 1804.00344."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec, Stack
from pellucid.weights.table import Entry

CLASSES = b.both("Marian", *b.WRITING) | {"seq2seq-lm": "MarianMTModel", "pretraining": "MarianMTModel"}
DEFAULTS = b.DEFAULTS | {
    "vocab_size": 58101, "decoder_vocab_size": None, "share_encoder_decoder_embeddings": True, "pad_token_id": 58100,
    "bos_token_id": None, "eos_token_id": 0, "decoder_start_token_id": 58100,
}  # fmt: skip
ALIASES, IGNORED = b.ALIASES, b.IGNORED

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    one = c.tie_word_embeddings and c.share_encoder_decoder_embeddings
    return (b.BART if one else b.UNTIED) | b.WAVES


def spec(c: Config) -> Spec:
    """Each side may have a vocabulary of its own."""
    positions, own = b.waves(c), not c.share_encoder_decoder_embeddings
    vocab = "decoder_vocab_size" if c.decoder_vocab_size is not None and own else "vocab_size"
    sides: dict[b.Side, Stack] = {
        "encoder": b.stack(c, "encoder", b.POST, b.embedding(c, positions, None)),
        "decoder": b.stack(c, "decoder", b.POST, b.embedding(c, positions, None, vocab=vocab)),
    }
    whole = b.encoder_decoder(c, "marian", order=b.POST, positions=positions, sides=sides)
    return replace(whole, shared_embedding=whole.shared_embedding and not own)
