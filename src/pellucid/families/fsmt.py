"""FSMT: fairseq's translators of WMT 19. Paper: arXiv 1907.06616."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec, Stack
from pellucid.weights.table import Entry

CLASSES = {None: "FSMTModel", "seq2seq-lm": "FSMTForConditionalGeneration"}
DEFAULTS = b.DEFAULTS | {
    "src_vocab_size": 42024, "tgt_vocab_size": 42024, "activation_function": "relu", "scale_embedding": True,
    "tie_word_embeddings": False,
}  # fmt: skip
DEFAULTS.pop("vocab_size")
ALIASES = b.ALIASES | {"vocab_size": "tgt_vocab_size"}
IGNORED = b.IGNORED | {"langs": None, "decoder": None}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    one = {"model.decoder.embed_tokens.weight": "encoder.embed.tokens.weight"} if c.tie_word_embeddings else {}
    head = {"model.decoder.output_projection.weight": "lm_head.out.weight"}
    return {**one, **b.ENCODER, **b.DECODER, **one, **b.WAVES, **head}


def spec(c: Config) -> Spec:
    positions = b.fairseq(c)
    sides: dict[b.Side, Stack] = {
        "encoder": b.stack(c, "encoder", b.POST, b.embedding(c, positions, None, vocab="src_vocab_size")),
        "decoder": b.stack(c, "decoder", b.POST, b.embedding(c, positions, None, vocab="tgt_vocab_size")),
    }
    return b.encoder_decoder(c, "fsmt", order=b.POST, positions=positions, sides=sides, start="last", fixed_bias=False)
