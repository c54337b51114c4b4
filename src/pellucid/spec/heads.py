"""What turns hidden states into answers. Generic: a family picks, none writes its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.spec.ffn import Activation
from pellucid.spec.norms import Custom, Norm


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Dense, activation, norm: what BERT puts before its vocabulary."""

    act: Activation | None
    norm: Norm | None
    width: int | None = None  # of its output, where the vocabulary's matrix is narrower than the stack
    bias: bool = True
    inner: int | None = None  # a dense layer of this width before it, with the same activation (UltraBERT)


@dataclass(frozen=True, kw_only=True)
class LmHead:
    """One logit for each token of the vocabulary."""

    tied: bool  # the matrix is the token embedding
    bias: bool = False
    transform: Transform | None = None
    scale: float | None = None  # multiplies the hidden state
    logit_scale: float | None = None  # multiplies the logits
    cap: float | None = None  # logits become cap * tanh(logit / cap)
    fixed_bias: bool = False  # a stored row that is added and not trained: BART's final_logits_bias
    beside: int = 0  # last channels of what it reads, which go through a second matrix, not tied (MobileBERT)
    vocab: int | None = None  # tokens that can be said, where the embedding knows more (Moshi)
    smoothing: float = 0.0  # of the labels, in the loss. arXiv 1512.00567, section 7
    labels_ahead: bool = False  # labels name each token's successor already: decoders without their encoder


# Where one vector for a sequence comes from: the pooler's output, the first or last token, the mean of the tokens, the
# last end-of-sequence token. late: every token has logits, and their mean is the sequence's (EuroBERT). end: the first
# end-of-sequence token; largest: the token with the largest id, which is that in CLIP's first files.
Pool = Literal["pooler", "first", "last", "mean", "eos", "late", "end", "largest"]


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """The vector for a sequence that a base model returns: dense and activation on one of its tokens."""

    pool: Pool = "first"
    act: Activation | None = None  # None: the token's state as it is
    width: int | None = None  # None: the stack's
    # Without a head it is returned beside the tokens' states, in their place (DPR), or not at all (GTE).
    returned: Literal["beside", "alone", "never"] = "beside"


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A hidden layer of a classifier."""

    act: Activation
    width: int | None = None  # None: the stack's
    bias: bool = True
    norm: Norm | None = None  # after the activation
    drop_first: bool = True  # dropout before it too
    residual: bool = False


@dataclass(frozen=True, kw_only=True)
class SequenceHead:
    """One logit for each label, from one vector for the sequence."""

    labels: int
    pool: Pool
    bias: bool = True
    hidden: Dense | None = None
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TokenHead:
    """One logit for each label and token."""

    labels: int
    bias: bool = True
    hidden: Dense | None = None
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SpanHead:
    """Two logits for each token: the answer starts here, the answer ends here."""

    hidden: Dense | None = None
    bias: bool = True
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ChoiceHead:
    """One logit for each choice; a row of inputs is a list of choices."""

    pool: Pool
    hidden: Dense | None = None
    bias: bool = True
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PairHead:
    """Two sentences, two logits from the pooled output.

    next: does the second follow the first (arXiv 1810.04805, 3.1); order: are they in order (arXiv 1909.11942, 3.1).
    """

    asks: Literal["next", "order"] = "next"
    labels: int = 2
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PretrainingHead:
    """What a model was first trained on, together: the vocabulary, and a second answer."""

    lm: LmHead | None
    pair: PairHead | None = None
    token: TokenHead | None = None  # ELECTRA: was this token replaced? arXiv 2003.10555


Head = LmHead | SequenceHead | TokenHead | SpanHead | ChoiceHead | PairHead | PretrainingHead | Custom

Task = Literal[
    "causal-lm",
    "masked-lm",
    "seq2seq-lm",
    "sequence-classification",
    "token-classification",
    "question-answering",
    "table-question-answering",
    "document-question-answering",
    "multiple-choice",
    "next-sentence",
    "pretraining",
    "text-encoding",
]


def language(head: Head | None) -> LmHead | None:
    """The part of a head that predicts tokens."""
    return head.lm if isinstance(head, PretrainingHead) else head if isinstance(head, LmHead) else None


def pools(head: Head | None) -> bool:
    """Whether a head reads the pooler's output; without a head it is returned."""
    match head:
        case None | PairHead():
            return True
        case SequenceHead(pool=pool) | ChoiceHead(pool=pool):
            return pool == "pooler"
        case PretrainingHead(pair=pair):
            return pair is not None
        case _:
            return False
