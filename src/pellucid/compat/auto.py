"""The Auto classes."""

from __future__ import annotations

from pellucid.compat.modeling import PreTrainedModel


class AutoModel(PreTrainedModel):
    """Hidden states, and the pooled output where the family has one."""


class AutoModelForPreTraining(PreTrainedModel):
    """What the family was first trained on."""

    TASK = "pretraining"


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


class AutoModelForTableQuestionAnswering(PreTrainedModel):
    """Which cells of a table are the answer, and what to do with them."""

    TASK = "table-question-answering"


class AutoModelForDocumentQuestionAnswering(PreTrainedModel):
    """Where on a page an answer starts and ends."""

    TASK = "document-question-answering"


class AutoModelForMultipleChoice(PreTrainedModel):
    """Which of several texts is right."""

    TASK = "multiple-choice"


class AutoModelForNextSentencePrediction(PreTrainedModel):
    """Whether the second sentence follows the first."""

    TASK = "next-sentence"


class AutoModelForTextEncoding(PreTrainedModel):
    """Hidden states of a text; of an encoder-decoder, the encoder's."""

    TASK = "text-encoding"


__all__ = [
    "AutoModel", "AutoModelForCausalLM", "AutoModelForDocumentQuestionAnswering", "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForNextSentencePrediction", "AutoModelForPreTraining", "AutoModelForQuestionAnswering",
    "AutoModelForSeq2SeqLM", "AutoModelForSequenceClassification", "AutoModelForTableQuestionAnswering",
    "AutoModelForTextEncoding", "AutoModelForTokenClassification",
]  # fmt: skip
