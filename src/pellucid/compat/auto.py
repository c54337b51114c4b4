"""The Auto classes."""

from __future__ import annotations

from pellucid.compat.modeling import PreTrainedModel


class AutoModel(PreTrainedModel):
    """Hidden states, and the pooled output where the family has one."""


class AutoModelForCausalLM(PreTrainedModel):
    """Next-token logits."""

    TASK = "causal-lm"


class AutoModelForMaskedLM(PreTrainedModel):
    """Logits for masked tokens."""

    TASK = "masked-lm"


class AutoModelForSeq2SeqLM(PreTrainedModel):
    """Next-token logits of a decoder over an encoder."""

    TASK = "seq2seq-lm"


class AutoModelForSequenceClassification(PreTrainedModel):
    """One set of labels for a sequence."""

    TASK = "sequence-classification"


class AutoModelForTokenClassification(PreTrainedModel):
    """One set of labels for each token."""

    TASK = "token-classification"


class AutoModelForQuestionAnswering(PreTrainedModel):
    """Where an answer starts and ends."""

    TASK = "question-answering"


__all__ = [
    "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForQuestionAnswering",
    "AutoModelForSeq2SeqLM", "AutoModelForSequenceClassification", "AutoModelForTokenClassification",
]  # fmt: skip
