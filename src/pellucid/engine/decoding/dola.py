"""DoLa: what the last layer says, in contrast with what an earlier one would say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from pellucid.engine.decoding.reading import Straight
from pellucid.engine.sequence import Feed, Seen, Seq
from pellucid.errors import ArgumentError, Unsupported
from pellucid.models.model import Model

if TYPE_CHECKING:
    from pellucid.engine.job import Job

LIKELY = log(0.1)  # tokens less likely than a tenth of the best one's probability are out
DEEP = 40  # blocks, from which on only the first or last twenty are looked at


@dataclass(frozen=True, kw_only=True)
class Dola:
    """Logits are log p - log q, where q is what the head says to the residual stream before one of the `layers` (0 is
    the token embedding): the one that differs most from p, by Jensen-Shannon divergence, chosen anew for each token.

    Args:
        layers: "low" or "high", every second one of the lower or the upper half; or which ones.

    Source: arXiv 2309.03883, equations 2 to 7; as the reference computes it, of its version 4.
    """

    layers: Literal["low", "high"] | Sequence[int]

    def reader(self, job: Job) -> Contrast:
        """Raises Unsupported behind an encoder, ArgumentError for layers that do not exist."""
        return Contrast(job.seq(), job.model, candidates(job.model, self.layers))


def candidates(model: Model, layers: str | Sequence[int]) -> list[int]:
    """The layers that may be contrasted with: indices into the hidden states.

    "low" leaves out the embedding where it is the head's own matrix: the head would only find the token again.
    """
    if model.encoder is not None:
        what = "DoLa is for models without an encoder"
        raise Unsupported(what, where="dola_layers", next="leave dola_layers out")
    last = len(model.stack.depth or model.stack.blocks)
    tied = bool(getattr(model.head_spec, "tied", False))
    start = min(2, last - 1) if tied and last > 1 else 0
    if layers == "low":
        found = list(range(start, last // 2 if last <= DEEP else DEEP // 2, 2)) or [start]
    elif layers == "high":
        found = list(range(last // 2 if last <= DEEP else last - DEEP // 2, last, 2))
    else:
        found = [layer for layer in layers if isinstance(layer, int) and 0 <= layer < last]
        if isinstance(layers, str) or len(found) < len(layers) or not found:
            what = f"dola_layers={layers!r} of a model with {last} layers"
            advice = f"use 'low', 'high', or layers from 0 to {last - 1}"
            raise ArgumentError(what, where="dola_layers", next=advice)
    return found


class Contrast(Straight):
    """The reader of DoLa."""

    def __init__(self, seq: Seq, model: Model, layers: Sequence[int]) -> None:
        super().__init__(seq)
        self.model, self.layers = model, layers

    def feeds(self, tokens: Sequence[int], want: int = 1) -> list[Feed]:
        return [Feed(self.seq, tokens, want, hidden=True)]

    def read(self, seen: Sequence[Seen]) -> Tensor:
        early_LWV = torch.stack([self._say(seen[0].hidden[layer]) for layer in self.layers])
        return torch.stack([contrasted(logits_V, early_LWV[:, w]) for w, logits_V in enumerate(seen[0].logits_WV)])

    def fork(self) -> Contrast:
        return Contrast(self.seq.fork(), self.model, self.layers)

    @torch.inference_mode()
    def _say(self, x_WD: Tensor) -> Tensor:
        """What the head's matrix says to an early state: no norm, no scale and no cap, as in the reference."""
        said: Tensor = self.model.lm_head.out(x_WD.to(self.model.device))
        return said.float().cpu()


def contrasted(logits_V: Tensor, early_LV: Tensor) -> Tensor:
    """The logits against those of the early layer that differs most."""
    most = int(divergence(logits_V, early_LV).argmax()) if len(early_LV) > 1 else 0
    logp_V, early_V = logits_V.log_softmax(-1), early_LV[most].log_softmax(-1)
    return torch.where(logp_V < logp_V.max() + LIKELY, -torch.inf, logp_V - early_V)


def divergence(logits_V: Tensor, early_LV: Tensor) -> Tensor:
    """By how much the distributions of early layers differ from the last one's, [L].

    The two Kullback-Leibler divergences are those of the mean from each of the two, and means over the vocabulary, as
    in the reference.
    """
    logp_V, early_logp_LV = logits_V.log_softmax(-1), early_LV.log_softmax(-1)
    mean_LV = 0.5 * (logits_V.softmax(-1) + early_LV.softmax(-1))
    last_L = kl_div(logp_V.expand_as(mean_LV), mean_LV, reduction="none").mean(-1)
    return 0.5 * (last_L + kl_div(early_logp_LV, mean_LV, reduction="none").mean(-1))
