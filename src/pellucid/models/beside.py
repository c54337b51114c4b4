"""A decoder beside its encoder: what it is given, and what it reads where nobody says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.cache.batch import Memory
from pellucid.errors import InputError
from pellucid.models import checks
from pellucid.models.inputs import Inputs
from pellucid.models.output import Output
from pellucid.models.packing import packing
from pellucid.nn import heads
from pellucid.spec import LmHead, Stack

if TYPE_CHECKING:
    from pellucid.models.model import Model


def memory_of(encoder: Stack, outputs: Output | tuple[Tensor, ...] | None, mask: Tensor | None) -> Memory | None:
    """An encoder's results, packed for attention over them."""
    if outputs is None:
        return None
    width = encoder.out or encoder.width
    x_BTD: Any = outputs[0] if isinstance(outputs, (Output, tuple, list)) and len(outputs) else outputs
    right = isinstance(x_BTD, Tensor) and x_BTD.dim() == 3 and x_BTD.shape[-1] == width
    if not right or not x_BTD.numel():
        what = f"encoder_outputs begin with {checks.describe(x_BTD)}, not [batch, time, {width}]"
        raise InputError(what, where="encoder_outputs", next="pass what model.encode returned")
    shape = packing(x_BTD.shape[0], x_BTD.shape[1], mask)
    return Memory(shape.pack(x_BTD), shape.lengths, shape.real)


def following(model: Model, first: Inputs, beside: Inputs, labels: Tensor | None) -> Inputs:
    """What the decoder reads: what was given for it, or else the labels, or the text itself, moved one place."""
    if beside.ids is not None or beside.vectors is not None:
        return beside
    if isinstance(model.head_spec, LmHead):
        if labels is None:
            return beside
        B, T = labels.shape if isinstance(labels, Tensor) and labels.dim() == 2 else (1, 1)
        checks.labels_of(model.head_spec, labels, B, T, model.spec.vocab, None)
        return replace(beside, ids=moved(model, labels, None))
    if model.head_spec is None or first.ids is None:
        return beside
    B, T = first.ids.shape
    shape = packing(B, T, first.mask)
    return replace(beside, ids=moved(model, first.ids, shape.places()), mask=first.mask)


def moved(model: Model, ids_BT: Tensor, places_BT: Tensor | None) -> Tensor:
    """One place to the right, behind the start token, which stands before each row's first token."""
    start, pad = model.spec.decoder_start, model.config.pad_token_id
    if start is None:
        raise InputError("the config names no decoder_start_token_id", where="labels", next="set it in the config")
    moved_BT = F.pad(ids_BT[:, :-1], (1, 0), value=0)
    begins_BT = torch.zeros_like(moved_BT, dtype=torch.bool)
    rows = torch.arange(len(begins_BT), device=begins_BT.device)
    begins_BT[rows, 0 if places_BT is None else places_BT.int().argmax(1).to(rows.device)] = True
    if start == "last":
        real_BT = ids_BT != pad if pad is not None else torch.ones_like(begins_BT)
        last_B = (real_BT & (ids_BT != heads.IGNORE)).sum(1) - 1
        moved_BT = torch.where(begins_BT, ids_BT.gather(1, last_B[:, None]), moved_BT)
    else:
        moved_BT = moved_BT.masked_fill(begins_BT, start)
    return moved_BT.masked_fill(moved_BT == heads.IGNORE, pad if pad is not None else 0)


def as_encoder(outputs: Output | tuple[Tensor, ...] | None) -> dict[str, Any]:
    """An encoder's results under the names that the whole model returns them by."""
    if outputs is None:
        return {}
    if not isinstance(outputs, Output):
        return {"encoder_last_hidden_state": outputs[0]}
    return {
        "encoder_last_hidden_state": outputs.last_hidden_state,
        "encoder_hidden_states": outputs.hidden_states,
        "encoder_attentions": outputs.attentions,
    }
