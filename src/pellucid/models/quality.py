"""What packing costs: how well a model predicts a text before and after, and how far apart its predictions are.

perplexity    e to the mean of -log p(token | what is before it). Windows of the text overlap, and only the tokens
              behind the overlap count, so that each has been predicted from at least half a window.
KL            of the packed model's prediction from the other's, in nats: mean, and 99th percentile over the tokens.
same top      share of places where both would say the same.
drift         of models that predict no tokens: |change of the final states| / |final states|.

Logits of a few tokens are in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.models.beside import memory_of, moved
from pellucid.models.inputs import Inputs
from pellucid.models.model import Model
from pellucid.spec import LmHead

NUMBERS = 2**24  # of logits that are in memory at a time


@dataclass(frozen=True)
class Quality:
    """See the module; what a kind of model has not is None. Perplexities are of decoders without an encoder."""

    tokens: int
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    kl_mean: float | None = None
    kl_99: float | None = None
    same_top: float | None = None
    drift: float | None = None

    def facts(self) -> dict[str, Any]:
        """For scripts: what there is."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Window:
    """A stretch of a text, of which the tokens from `first` on count."""

    ids: Sequence[int]
    first: int


def windows(ids: Sequence[int], length: int, stride: int | None = None) -> Iterator[Window]:
    """Windows of so many tokens, each begun `stride` tokens after the one before; half a window if not said."""
    stride = stride or max(length // 2, 1)
    done = 0
    for first in range(0, len(ids), stride):
        last = min(first + length, len(ids))
        if last > done and last - first > 1:
            yield Window(ids[first:last], max(done - first, 0))
        done = last
        if last == len(ids):
            return


def perplexity(model: Model, text: Sequence[Window]) -> float:
    """Of a decoder, over the windows of a text."""
    lost, count = surprise(model, text)
    return math.exp(min(lost / max(count, 1), 700.0))


@torch.no_grad()
def surprise(model: Model, text: Iterable[Window]) -> tuple[float, int]:
    """The sum of -log p of a text's tokens, in nats, and how many they are."""
    lost, count = 0.0, 0
    for window in text:
        for logits_NV, targets_N in _pieces(model, window):
            lost += float(-_chance(logits_NV, targets_N).double().sum())
            count += len(targets_N)
    return lost, count


@torch.no_grad()
def compared(before: Model, after: Model, text: Sequence[Window]) -> Quality:
    """Both models on the windows of a text."""
    if not isinstance(before.head_spec, LmHead):
        return _drift(before, after, text)
    lost = [0.0, 0.0]
    apart: list[Tensor] = []
    same = count = 0
    for window in text:
        for (one_NV, targets_N), (two_NV, _) in zip(_pieces(before, window), _pieces(after, window)):
            lost[0] += float(-_chance(one_NV, targets_N).double().sum())
            lost[1] += float(-_chance(two_NV, targets_N).double().sum())
            one_NV, two_NV = one_NV.log_softmax(-1), two_NV.log_softmax(-1)
            same += int((one_NV.argmax(-1) == two_NV.argmax(-1)).sum())
            apart.append((one_NV.exp() * (one_NV - two_NV)).double().sum(-1).clamp(min=0))
            count += len(targets_N)
    nats = torch.cat(apart) if apart else torch.zeros(1)
    predicts = before.encoder is None and before.spec.remembers
    one, two = (math.exp(min(each / max(count, 1), 700.0)) for each in lost)
    return Quality(
        tokens=count,
        perplexity_before=one if predicts else None,
        perplexity_after=two if predicts else None,
        kl_mean=float(nats.mean()),
        kl_99=float(nats.sort().values[int(0.99 * (len(nats) - 1))]),
        same_top=same / max(count, 1),
    )


def _drift(before: Model, after: Model, text: Sequence[Window]) -> Quality:
    apart, whole, count = 0.0, 0.0, 0
    for window in text:
        one_ND, two_ND = (final(model, window.ids)[window.first :].double() for model in (before, after))
        apart, whole = apart + float((one_ND - two_ND).square().sum()), whole + float(one_ND.square().sum())
        count += len(one_ND)
    return Quality(count, drift=math.sqrt(apart / (whole or 1.0)))


def _pieces(model: Model, window: Window) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [n, V] in float32 of the places before the tokens that count, and those tokens, a few at a time."""
    first = max(window.first, 1)
    x_ND = final(model, window.ids)[first - 1 : -1]
    targets_N = torch.tensor(list(window.ids[first:]), device=x_ND.device)
    size = max(NUMBERS // max(model.spec.vocab or 1, 1), 1)
    for x, targets in zip(x_ND.split(size), targets_N.split(size)):
        with model.threads(len(x)):
            yield model.predict(x).float(), targets


def _chance(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """log p of each target, [N]."""
    return logits_NV.gather(1, targets_N[:, None])[:, 0] - logits_NV.logsumexp(-1)


def final(model: Model, ids: Sequence[int]) -> Tensor:
    """The last states for one sequence, [N, D]; of an encoder-decoder, of a decoder that says what the encoder read."""
    read = torch.tensor([list(ids)], device=model.device)
    extra = {"bbox": read.new_zeros(*read.shape, 4)} if "bbox" in model.stack.inputs else {}
    given, memory = Inputs(read, extra=extra), None
    if model.encoder is not None:
        memory = memory_of(model.encoder.stack, model._encode(given, hidden=False, patterns=False), None)
        given = Inputs(moved(model, read, None), side="decoder_")
    x_ND, _, batch = model._enter(model, given, None, memory)
    with model.threads(len(x_ND)):
        return model.run(x_ND, batch)
