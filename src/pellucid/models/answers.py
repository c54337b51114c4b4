"""From hidden states to what a task returns: the one place that knows every kind of head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.cache.packing import Packing
from pellucid.errors import InputError
from pellucid.nn import heads
from pellucid.nn.asked import Asked, spanned
from pellucid.spec import (
    ChoiceHead,
    Custom,
    LmHead,
    PairHead,
    Pool,
    PretrainingHead,
    SequenceHead,
    SpanHead,
    TokenHead,
)

if TYPE_CHECKING:
    from pellucid.models.model import Model


def answer(model: Model, x_ND: Tensor, asked: Asked) -> dict[str, Any]:
    """The values that a model's task returns, losses included where labels were given."""
    shape, labels = asked.shape, asked.labels
    match model.head_spec:
        case None:
            pooled = pool_of(model, "pooler", x_ND, asked) if model.pooler is not None else None
            if model.pooler is not None and model.pooler.spec.returned == "alone":
                return {"pooler_output": pooled}
            return {"last_hidden_state": shape.unpack(x_ND), "pooler_output": pooled}
        case LmHead() as head:
            return language(model, x_ND, asked, shift=model.task == "causal-lm" and not head.labels_ahead)
        case SequenceHead(pool=pool):
            late = pool == "late"
            logits = (
                means(model.classifier(x_ND), shape) if late else model.classifier(pool_of(model, pool, x_ND, asked))
            )
            loss = None if labels is None else heads.label_loss(logits, labels, model.config.problem_type)
            return {"loss": loss, "logits": logits}
        case ChoiceHead(pool=pool):
            logits = model.classifier(pool_of(model, pool, x_ND, asked)).view(-1, asked.choices)
            return {"loss": None if labels is None else heads.token_loss(logits, labels.view(-1)), "logits": logits}
        case TokenHead():
            logits_NC = model.classifier(x_ND)
            loss = None if labels is None else heads.token_loss(logits_NC, labels_of(shape, labels))
            return {"loss": loss, "logits": shape.unpack(logits_NC)}
        case SpanHead():
            return span(model, x_ND, asked)
        case PairHead():
            logits, loss = pair(model, x_ND, asked)
            return {"loss": loss, "logits": logits}
        case PretrainingHead() as head:
            return pretraining(model, head, x_ND, asked)
        case Custom():
            found: dict[str, Any] = model.head(x_ND, asked)
            return found


def language(model: Model, x_ND: Tensor, asked: Asked, *, shift: bool) -> dict[str, Any]:
    """Logits for each token; the loss is over successors where `shift` is set."""
    shape, keep = asked.shape, asked.keep
    if isinstance(keep, Tensor):
        return {"logits": model.lm_head(x_ND[shape.pack(keep)])}
    if keep and asked.labels is None:
        return {"logits": model.lm_head(shape.unpack(x_ND)[:, -keep:])}
    logits_NV = model.lm_head(x_ND)
    loss = None
    if asked.labels is not None:
        labels_N = labels_of(shape, asked.labels)
        if shift:
            labels_N = heads.next_tokens(labels_N, list(shape.lengths))
        ahead = [model.lm_head(a_ND) for a_ND in asked.batch.ahead] if asked.batch else []
        smoothing = model.lm_head.spec.smoothing
        loss = torch.stack([heads.token_loss(each, labels_N, smoothing) for each in (logits_NV, *ahead)]).mean()
    return {"loss": loss, "logits": shape.unpack(logits_NV)[:, -keep:]}


def span(model: Model, x_ND: Tensor, asked: Asked) -> dict[str, Any]:
    """A score for each token as the first, and as the last, of an answer."""
    start_BT, end_BT = asked.shape.unpack(model.span(x_ND)).unbind(-1)
    return spanned(start_BT, end_BT, asked)


def pair(model: Model, x_ND: Tensor, asked: Asked) -> tuple[Tensor, Tensor | None]:
    """Logits for two sentences, and their loss."""
    logits: Tensor = model.next_sentence(pool_of(model, "pooler", x_ND, asked))
    label = asked.labels if asked.pair is None else asked.pair
    return logits, None if label is None else heads.token_loss(logits, label.view(-1))


def pretraining(model: Model, head: PretrainingHead, x_ND: Tensor, asked: Asked) -> dict[str, Any]:
    """The vocabulary and a second answer; the loss is the sum of theirs."""
    found: dict[str, Any] = {"loss": None}
    losses = []
    if head.lm is not None:
        found |= language(model, x_ND, asked, shift=False)
        found["prediction_logits"] = found.pop("logits")
        losses.append(found["loss"])
    if head.token is not None:
        logits_N = model.classifier(x_ND).squeeze(-1)
        found["logits"] = asked.shape.unpack(logits_N)
        if asked.labels is not None:
            losses.append(heads.replaced_loss(logits_N, labels_of(asked.shape, asked.labels)))
    if head.pair is not None:
        name = "sop_logits" if head.pair.asks == "order" else "seq_relationship_logits"
        found[name], loss = pair(model, x_ND, asked)
        losses.append(loss)
    if asked.labels is not None:
        found["loss"] = sum(losses)
    return found


# ------------------------------------------------------------------------------------------------ one vector


def pool_of(model: Model, pool: Pool, x_ND: Tensor, asked: Asked) -> Tensor:
    """One vector for each sequence, [B, D]."""
    shape = asked.shape
    match pool:
        case "pooler":
            assert model.pooler is not None
            return model.pooler(pool_of(model, model.pooler.spec.pool, x_ND, asked))
        case "first":
            return asked.firsts(x_ND)
        case "mean" | "late":
            return means(x_ND, shape)
        case "last":
            return x_ND[last_tokens(shape, asked.ids, model.config.pad_token_id)]
        case "eos" | "end":
            eos = model.config.eos_token_id
            ends_BT = None if asked.ids is None or eos is None else torch.eq(asked.ids, eos)
            return x_ND[end_tokens(shape, ends_BT, eos, first=pool == "end")]
        case "largest":
            if asked.ids is None:
                return x_ND[end_tokens(shape, None, None)]
            ids_BT = asked.ids.masked_fill(~shape.places().to(asked.ids.device), -1)
            return x_ND[end_tokens(shape, ids_BT == ids_BT.amax(1, keepdim=True), None, first=True)]


def means(x_ND: Tensor, shape: Packing) -> Tensor:
    """The mean of each sequence's tokens."""
    if shape.real is not None:
        return shape.blank(x_ND, 0).unflatten(0, shape.real.shape).sum(1) / shape.real.sum(1, keepdim=True)
    return torch.stack([one.mean(0) for one in x_ND.split(list(shape.lengths))])


def labels_of(shape: Packing, labels_BT: Tensor) -> Tensor:
    """The label of each packed token."""
    return shape.blank(shape.pack(labels_BT), heads.IGNORE)


def last_tokens(shape: Packing, ids_BT: Tensor | None, pad: int | None) -> list[int] | Tensor:
    """Packed index of each row's last token; without a mask, pad ids on the right do not count."""
    if shape.kept is not None or pad is None or ids_BT is None:
        return shape.last()
    if torch.compiler.is_compiling():
        real_BT = ids_BT != pad
        return _last_in_graph(shape, torch.where(real_BT.any(1, keepdim=True), real_BT, torch.ones_like(real_BT)))
    found = _last(shape, ids_BT != pad)
    return [end if at is None else at for at, end in zip(found, shape.last())]


def end_tokens(shape: Packing, ends_BT: Tensor | None, eos: int | None, *, first: bool = False) -> list[int] | Tensor:
    """Packed index of each row's last (or first) end-of-sequence token.

    Raises:
        InputError: a row without one.
    """
    if torch.compiler.is_compiling() and ends_BT is not None:
        return _last_in_graph(shape, ends_BT, first=first)
    known = ends_BT is not None and tuple(ends_BT.shape) == (shape.batch, shape.time)
    found = _last(shape, ends_BT, first=first) if known and ends_BT is not None else [None]
    if None in found:
        what = f"no end-of-sequence token, id {eos}, in row {found.index(None)}"
        raise InputError(what, where="input_ids", next="end each text with it: the tokenizer does")
    return [at for at in found if at is not None]


def _last_in_graph(shape: Packing, wanted_BT: Tensor, *, first: bool = False) -> Tensor:
    """`_last` without looking at numbers; the first token of a sequence that has none."""
    wanted_BT = shape.blank(shape.pack(wanted_BT), 0).view(shape.batch, shape.time)
    place_T = torch.arange(1, shape.time + 1, device=wanted_BT.device)
    place_T = place_T.flip(0) if first else place_T
    at_B = (wanted_BT * place_T).argmax(1)
    return at_B + torch.arange(0, shape.batch * shape.time, shape.time, device=at_B.device)


def _last(shape: Packing, wanted_BT: Tensor, *, first: bool = False) -> list[int | None]:
    """Packed index of the last (or first) place of each sequence that is wanted."""
    found: list[int | None] = []
    for start, wanted in zip(shape.first(), shape.pack(wanted_BT).split(list(shape.lengths))):
        places = wanted.nonzero().flatten().tolist()
        found.append(start + places[0 if first else -1] if places else None)
    return found
