"""Rectangular calls to packed tokens and back.

`[batch, time]` with a mask becomes the tokens that count, one sequence after the other. Pads on either side are gone
before any arithmetic, so that a row's numbers are those of the row alone; in outputs they are zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.cache.packing import Packing
from pellucid.errors import InputError
from pellucid.models.checks import describe, whole_numbers


def packing(batch: int, time: int, mask: Tensor | None, *, name: str = "attention_mask", past: bool = False) -> Packing:
    """The packing of a rectangle under a mask of ones and zeros.

    Args:
        mask: [B, T]; None for all ones.
        past: a cache holds earlier tokens, and the mask may be [B, past + T].

    Raises:
        InputError: the mask has another shape, other values, or a row without any token.
    """
    if mask is None:
        return Packing(batch, time, [time] * batch, None)
    right = isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[0] == batch
    if not right or mask.shape[1] < time or (mask.shape[1] > time and not past):
        raise InputError(
            f"{name} is {describe(mask)} for a [{batch}, {time}] input",
            where=name,
            next="give one 0 or 1 for each token; Pellucid derives causal masks and windows from the model",
        )
    mask = mask[:, mask.shape[1] - time :]
    counts = mask != 0
    if torch.compiler.is_compiling():
        return in_graph(counts)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"{name} holds values other than 0 and 1", where=name, next="give one 0 or 1 for each token")
    if bool(counts.all()):
        return Packing(batch, time, [time] * batch, None)
    lengths = counts.sum(1).tolist()
    if 0 in lengths:
        raise InputError(f"row {lengths.index(0)} of {name} masks every token", where=name, next="leave the row out")
    return Packing(batch, time, lengths, counts.flatten().nonzero().flatten())


def in_graph(counts_BT: Tensor) -> Packing:
    """The packing in a graph, whose shapes may not follow from a mask: all places, each row's tokens before its pads.

    Pads are computed too. Nothing that is causal sees them; other layers leave them out by `real`.
    """
    B, T = counts_BT.shape
    order_BT = (~counts_BT).to(torch.uint8).argsort(dim=1, stable=True)
    kept = order_BT + torch.arange(0, B * T, T, device=counts_BT.device)[:, None]
    real_BT = torch.arange(T, device=counts_BT.device) < counts_BT.sum(1, keepdim=True)
    return Packing(B, T, [T] * B, kept.flatten(), real_BT)


def placed(pattern_BHTS: Tensor, queries_BT: Tensor | None, keys_BS: Tensor | None) -> Tensor:
    """A pattern whose rows begin at the left, with queries and keys where masks say that they are; zeros elsewhere.

    Args:
        queries_BT, keys_BS: ones at the places that count; None for as it is. One that counts other places than the
            pattern has (of pooled states, or of a window that forgets) leaves it as it is, too.
    """
    B, H, T, S = pattern_BHTS.shape
    queries_BT, keys_BS = _fitting(queries_BT, B, T), _fitting(keys_BS, B, S)
    if queries_BT is None and keys_BS is None:
        return pattern_BHTS
    queries_BT = torch.ones(B, T) if queries_BT is None else queries_BT
    keys_BS = torch.ones(B, S) if keys_BS is None else keys_BS
    whole = pattern_BHTS.new_zeros(B, H, queries_BT.shape[1], keys_BS.shape[1])
    for row, queries, keys in zip(range(B), queries_BT, keys_BS):
        at, to = queries.nonzero().to(whole.device), keys.nonzero().flatten().to(whole.device)
        whole[row, :, at, to] = pattern_BHTS[row, :, : len(at), : len(to)]
    return whole


def _fitting(mask_BT: Tensor | None, rows: int, most: int) -> Tensor | None:
    """A mask that moves something, and whose longest row has `most` tokens."""
    if mask_BT is None or bool(mask_BT.all()) or len(mask_BT) != rows or int(mask_BT.sum(1).max()) != most:
        return None
    return mask_BT


def positions(
    shape: Packing, cache: Cache | None, given: Tensor | None, device: torch.device, rows: int | None = None
) -> tuple[Tensor, list[int]]:
    """[N] position of each token, and for each sequence the position after its last.

    A sequence begins at 0 with its first token that counts, or goes on where its cache row ends. Gaps inside a row
    count as positions, as they do for the reference's encoders.
    """
    if given is not None:
        return _given_positions(shape, given, rows)
    begin = [row.position for row in cache.rows] if cache is not None else [0] * shape.batch
    ramp = torch.arange(shape.time, device=device)
    if shape.kept is None:
        ends = [b + shape.time for b in begin]
        if len(set(begin)) == 1:
            return (ramp + begin[0]).repeat(shape.batch), ends
        return (ramp + torch.tensor(begin, device=device)[:, None]).flatten(), ends
    place = shape.kept
    row = place // shape.time
    column = place - row * shape.time
    if shape.real is not None:
        return shape.blank(column - column[shape.first()][row], 0), [shape.time] * shape.batch
    offset = torch.tensor(begin, device=device) - column[shape.first()]
    found = column + offset[row]
    return found, (found[shape.last()] + 1).tolist()


def _given_positions(shape: Packing, given: Tensor, rows: int | None) -> tuple[Tensor, list[int]]:
    whole_numbers("position_ids", given, ((shape.batch, shape.time), (1, shape.time)), least=0, below=rows)
    found = shape.pack(given.expand(shape.batch, -1))
    if torch.compiler.is_compiling():
        return found, [shape.time] * shape.batch
    return found, (found[shape.last()] + 1).tolist()


def axes(shape: Packing, given: Tensor) -> tuple[Tensor, list[int]]:
    """[3, N] positions on three axes, and for each sequence the position after its furthest."""
    whole_numbers("position_ids", given, ((3, shape.batch, shape.time), (3, 1, shape.time)), least=0)
    found_AN = torch.stack([shape.pack(one.expand(shape.batch, -1)) for one in given])
    if torch.compiler.is_compiling():
        return found_AN, [shape.time] * shape.batch
    return found_AN, [int(one.max()) + 1 for one in found_AN.split(list(shape.lengths), dim=1)]
