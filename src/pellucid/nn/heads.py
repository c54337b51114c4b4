"""Heads: hidden states to logits, and logits to a loss. Picked by the spec, the same for every family.

Losses are means over the labels that count; -100 does not. They are computed in float32 at least.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate, soft_cap, upcast
from pellucid.spec import Head, LmHead, SequenceHead, SpanHead, TokenHead, Transform

IGNORE = -100  # a label that does not count


class Transforming(nn.Module):
    """Dense, activation, norm."""

    def __init__(self, width: int, spec: Transform) -> None:
        super().__init__()
        self.spec = spec
        self.dense = Linear(width, width)
        self.norm = norm(width, spec.norm)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.norm(activate(self.dense(x_ND), self.spec.act))


class Vocabulary(Tapped):
    """Logits over the vocabulary. Tap: `logits` [N, V]."""

    TAPS = ("logits",)

    def __init__(self, width: int, vocab: int, spec: LmHead) -> None:
        super().__init__()
        self.spec = spec
        self.transform = Transforming(width, spec.transform) if spec.transform else None
        self.out = Linear(width, vocab, bias=spec.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        if self.transform is not None:
            x_ND = self.transform(x_ND)
        if self.spec.scale is not None:
            x_ND = x_ND * self.spec.scale
        return self.tap("logits", soft_cap(self.out(x_ND), self.spec.cap))


class Classifier(Tapped):
    """Logits over labels, for sequences or for tokens. Tap: `logits`."""

    TAPS = ("logits",)

    def __init__(self, width: int, labels: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.out = Linear(width, labels, bias=bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.tap("logits", self.out(F.dropout(x_ND, self.dropout, self.training)))


class Pooler(nn.Module):
    """tanh(W x + b) on the first token of each sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, width)

    def forward(self, first_BD: Tensor) -> Tensor:
        return torch.tanh(self.dense(first_BD))


def head(width: int, vocab: int, spec: Head) -> tuple[str, nn.Module]:
    """A head's module and the name under which the model holds it."""
    match spec:
        case LmHead():
            return "lm_head", Vocabulary(width, vocab, spec)
        case SequenceHead(labels=labels, bias=bias, dropout=dropout):
            return "classifier", Classifier(width, labels, bias=bias, dropout=dropout)
        case TokenHead(labels=labels, dropout=dropout):
            return "classifier", Classifier(width, labels, bias=True, dropout=dropout)
        case SpanHead():
            return "span", Classifier(width, 2, bias=True, dropout=0.0)


# ---------------------------------------------------------------------------------------------- losses


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of [N, V] logits against [N] labels."""
    return F.cross_entropy(upcast(logits), labels.to(logits.device), ignore_index=IGNORE)


def next_tokens(labels_N: Tensor, lengths: list[int]) -> Tensor:
    """What each packed token should predict: its successor, and nothing at a sequence's end."""
    shifted = [F.pad(one[1:], (0, 1), value=IGNORE) for one in labels_N.split(lengths)]
    return torch.cat(shifted)


def label_loss(logits_BC: Tensor, labels: Tensor, problem: str | None) -> Tensor:
    """The loss of a sequence classifier.

    Args:
        problem: "regression", "single_label_classification" or "multi_label_classification"; None infers it from
            the number of labels and the labels' dtype.
    """
    C = logits_BC.shape[-1]
    if problem is None:
        whole = labels.dtype in (torch.long, torch.int)
        problem = "regression" if C == 1 else "single_label_classification" if whole else "multi_label_classification"
    logits_BC = upcast(logits_BC)
    if problem == "regression":
        return F.mse_loss(logits_BC.reshape(labels.shape), labels.to(logits_BC.dtype))
    if problem == "single_label_classification":
        return F.cross_entropy(logits_BC, labels.view(-1))
    return F.binary_cross_entropy_with_logits(logits_BC, labels.to(logits_BC.dtype))


def span_loss(start_BT: Tensor, end_BT: Tensor, first_B: Tensor, last_B: Tensor) -> Tensor:
    """Mean cross-entropy of an answer's first and last token; positions beyond the text do not count."""
    T = start_BT.shape[1]
    losses = [
        F.cross_entropy(upcast(logits), where.view(-1).clamp(0, T), ignore_index=T)
        for logits, where in ((start_BT, first_B), (end_BT, last_B))
    ]
    return (losses[0] + losses[1]) / 2
