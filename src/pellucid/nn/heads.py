"""Heads: hidden states to logits, and logits to a loss. Picked by the spec, the same for every family.

Losses are means over the labels that count; -100 does not. They are computed in float32 at least.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.nn.custom import custom
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate, soft_cap, upcast
from pellucid.spec import (
    ChoiceHead,
    Custom,
    Dense,
    Head,
    LmHead,
    PairHead,
    Pooling,
    PretrainingHead,
    SequenceHead,
    SpanHead,
    TokenHead,
    Transform,
)

IGNORE = -100  # a label that does not count


class Transforming(nn.Module):
    """Dense, activation, norm; the first two perhaps twice."""

    def __init__(self, width: int, spec: Transform) -> None:
        super().__init__()
        self.spec = spec
        out = spec.width or width
        self.inner = Linear(width, spec.inner, bias=spec.bias) if spec.inner else None
        self.dense = Linear(spec.inner or width, out, bias=spec.bias)
        self.norm = norm(out, spec.norm) if spec.norm else None

    def forward(self, x_ND: Tensor) -> Tensor:
        for dense in (self.inner, self.dense):
            if dense is not None:
                x_ND = dense(x_ND) if self.spec.act is None else activate(dense(x_ND), self.spec.act)
        return x_ND if self.norm is None else self.norm(x_ND)


class Fixed(nn.Module):
    """A stored row that no training changes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(1, width))

    def forward(self, x_ND: Tensor) -> Tensor:
        return x_ND + self.bias.detach()


class Vocabulary(Tapped):
    """Logits over the vocabulary. Tap: `logits` [N, V]."""

    TAPS = ("logits",)

    def __init__(self, width: int, vocab: int, spec: LmHead) -> None:
        super().__init__()
        self.spec = spec
        self.transform = Transforming(width, spec.transform) if spec.transform else None
        inner = (spec.transform.width if spec.transform else None) or width
        self.out = Linear(inner - spec.beside, vocab, bias=spec.bias)
        self.beside = Linear(spec.beside, vocab, bias=False) if spec.beside else None
        self.fixed = Fixed(vocab) if spec.fixed_bias else None

    def forward(self, x_ND: Tensor) -> Tensor:
        if self.transform is not None:
            x_ND = self.transform(x_ND)
        if self.spec.scale is not None:
            x_ND = x_ND * self.spec.scale
        if self.beside is None:
            logits_NV = self.out(x_ND)
        else:
            logits_NV = self.out(x_ND[..., : -self.spec.beside]) + self.beside(x_ND[..., -self.spec.beside :])
        if self.fixed is not None:
            logits_NV = self.fixed(logits_NV)
        if self.spec.logit_scale is not None:
            logits_NV = logits_NV * self.spec.logit_scale
        return self.tap("logits", soft_cap(logits_NV, self.spec.cap))


class Classifier(Tapped):
    """Logits over labels, for sequences or for tokens, through a hidden layer where there is one. Tap: `logits`."""

    TAPS = ("logits",)

    def __init__(self, width: int, labels: int, *, bias: bool, dropout: float, hidden: Dense | None = None) -> None:
        super().__init__()
        self.hidden, self.dropout = hidden, dropout
        inner = (hidden.width if hidden else None) or width
        self.dense = Linear(width, inner, bias=hidden.bias) if hidden else None
        self.norm = norm(inner, hidden.norm) if hidden and hidden.norm else None
        self.out = Linear(inner, labels, bias=bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        if self.dense is not None and self.hidden is not None:
            x_ND = self.within(x_ND, self.dense, self.hidden)
        return self.tap("logits", self.out(F.dropout(x_ND, self.dropout, self.training)))

    def within(self, x_ND: Tensor, dense: Linear, hidden: Dense) -> Tensor:
        """The hidden layer."""
        read_ND = F.dropout(x_ND, self.dropout, self.training and hidden.drop_first)
        inner_ND = activate(dense(read_ND), hidden.act)
        if hidden.residual:
            inner_ND = inner_ND + x_ND
        return inner_ND if self.norm is None else self.norm(inner_ND)


class Pooler(nn.Module):
    """act(W x + b), of what stands for each sequence."""

    def __init__(self, width: int, spec: Pooling) -> None:
        super().__init__()
        self.spec = spec
        self.dense = Linear(width, spec.width or width) if spec.act else None

    def forward(self, x_BD: Tensor) -> Tensor:
        if self.dense is None or self.spec.act is None:
            return x_BD
        return activate(self.dense(x_BD), self.spec.act)


def modules(width: int, vocab: int, spec: Head | None) -> dict[str, nn.Module]:
    """A head's modules, by the names under which the model holds them."""
    match spec:
        case None:
            return {}
        case LmHead():
            return {"lm_head": Vocabulary(width, spec.vocab or vocab, spec)}
        case SequenceHead() | TokenHead():
            labels, hidden = spec.labels, spec.hidden
            return {"classifier": Classifier(width, labels, bias=spec.bias, dropout=spec.dropout, hidden=hidden)}
        case ChoiceHead():
            return {"classifier": Classifier(width, 1, bias=spec.bias, dropout=spec.dropout, hidden=spec.hidden)}
        case SpanHead():
            return {"span": Classifier(width, 2, bias=spec.bias, dropout=spec.dropout, hidden=spec.hidden)}
        case PairHead():
            return {"next_sentence": Classifier(width, spec.labels, bias=True, dropout=spec.dropout)}
        case PretrainingHead():
            return {
                name: module
                for part in (spec.lm, spec.pair, spec.token)
                for name, module in modules(width, vocab, part).items()
            }
        case Custom():
            return {"head": custom(spec)(width, vocab, spec)}


# ---------------------------------------------------------------------------------------------- losses


def token_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of [N, V] logits against [N] labels."""
    wanted = labels.to(logits.device)
    return F.cross_entropy(upcast(logits), wanted, ignore_index=IGNORE, label_smoothing=smoothing)


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


def replaced_loss(logits_N: Tensor, labels_N: Tensor) -> Tensor:
    """Yes or no for each token. arXiv 2003.10555, section 2."""
    logits_N = upcast(logits_N)
    if torch.compiler.is_compiling():  # where labels of pads are to be ignored
        counts_N = labels_N != IGNORE
        wanted_N = labels_N.clamp_min(0).to(logits_N.dtype)
        lost_N = F.binary_cross_entropy_with_logits(logits_N, wanted_N, reduction="none")
        return (lost_N * counts_N).sum() / counts_N.sum()
    return F.binary_cross_entropy_with_logits(logits_N, labels_N.to(logits_N.dtype))


def span_loss(start_BT: Tensor, end_BT: Tensor, first_B: Tensor, last_B: Tensor) -> Tensor:
    """Mean cross-entropy of an answer's first and last token; positions beyond the text do not count."""
    T = start_BT.shape[1]
    losses = [
        F.cross_entropy(upcast(logits), where.view(-1).clamp(0, T), ignore_index=T)
        for logits, where in ((start_BT, first_B), (end_BT, last_B))
    ]
    return (losses[0] + losses[1]) / 2
