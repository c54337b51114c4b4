"""What Longformer marks by itself, where a call gives no `global_attention_mask`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.nn.local import LocalAttention
from pellucid.spec import Custom

SEPARATORS = 3  # <s> question </s></s> text </s>


class TaskAttention(LocalAttention):
    """Classifiers mark the first token, answers to questions the question, choices what stands behind the question.

    Options: those of `LocalAttention`; `sep`, the id between the texts.
    """

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec, layer)
        self.sep = spec["sep"]

    def marks(self, batch: Batch) -> Tensor | None:
        if "global_attention_mask" in batch.extra:
            return super().marks(batch)
        places = [torch.arange(length, device=batch.positions.device) for length in batch.lengths]
        match batch.task:
            case "sequence-classification":
                return torch.cat([place == 0 for place in places])
            case "question-answering" if batch.ids is not None:
                ends = self.questions(batch, batch.ids)
                return torch.cat([place < end for place, end in zip(places, ends)])
            case "multiple-choice" if batch.ids is not None:
                ends = self.questions(batch, batch.ids)
                return torch.cat([place > end + 1 for place, end in zip(places, ends)])
        return None

    def questions(self, batch: Batch, ids_N: Tensor) -> Sequence[int | Tensor]:
        """Where each question ends.

        Raises:
            InputError: a text of another form.
        """
        if torch.compiler.is_compiling():  # a graph cannot look at numbers
            return [(ids == self.sep).int().argmax() for ids in ids_N.split(list(batch.lengths))]
        found = [(ids == self.sep).nonzero().flatten().tolist() for ids in ids_N.split(list(batch.lengths))]
        if any(len(places) != SEPARATORS for places in found):
            what = f"a text with another number of separators, id {self.sep}, than {SEPARATORS}: where is the question?"
            raise InputError(what, where="input_ids", next="give global_attention_mask, or a pair of texts")
        return [places[0] for places in found]
