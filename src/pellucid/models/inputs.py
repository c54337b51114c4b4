"""What a caller gives for each token of one tower: checked, and ready to be packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.cache.packing import Packing
from pellucid.errors import InputError
from pellucid.models import checks
from pellucid.models.packing import axes, positions
from pellucid.spec import Stack

ARGUMENTS = {
    "ids": "input_ids", "vectors": "inputs_embeds", "mask": "attention_mask", "places": "position_ids",
    "types": "token_type_ids",
}  # fmt: skip


@dataclass
class Inputs:
    """Arguments of a forward by what they are; `side` is what begins their names.

    Args:
        ids, vectors: [B, T] or [B, T, D]; one of the two.
        places: [B, T], or [3, B, T] where positions have axes.
        types: [B, T].
        extra: [B, T, …] by name, what `Stack.inputs` asks for.
    """

    ids: Tensor | None = None
    vectors: Tensor | None = None
    mask: Tensor | None = None
    places: Tensor | None = None
    types: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    side: str = ""

    def check(self, stack: Stack, dtype: torch.dtype) -> tuple[int, int]:
        """B and T, where ids or vectors are as they should be.

        Raises:
            InputError: both, neither, another shape or dtype.
        """
        ids, vectors = f"{self.side}input_ids", f"{self.side}inputs_embeds"
        if (self.ids is None) == (self.vectors is None):
            found = "neither" if self.ids is None else "both"
            raise InputError(f"{found} of {ids} and {vectors} given", where="forward", next="give one of the two")
        if self.vectors is not None:
            width, x_BTD = stack.embed.width or stack.width, self.vectors
            right = isinstance(x_BTD, Tensor) and x_BTD.dim() == 3 and x_BTD.shape[-1] == width
            if not right or not x_BTD.numel() or x_BTD.dtype != dtype:
                what = f"inputs_embeds is {checks.describe(x_BTD)}, not [batch, time, {width}] {dtype}"
                raise InputError(what, where="inputs_embeds", next="give what model.get_input_embeddings() returns")
            return x_BTD.shape[0], x_BTD.shape[1]
        given = self.ids
        right = isinstance(given, Tensor) and given.dim() == 2 and given.dtype in checks.WHOLE
        if given is None or not right or not given.numel():
            what = f"{ids} is {checks.describe(given)}"
            raise InputError(what, where=ids, next="give integer ids, [batch, time], at least one")
        return given.shape[0], given.shape[1]

    def check_beside(self, stack: Stack, batch: int, time: int) -> None:
        """Refuses token types and further inputs that do not go with the ids."""
        if self.types is not None:
            kinds = stack.embed.token_types
            shapes = ((batch, time), (1, time))[: 1 + (batch == 1)]
            checks.whole_numbers("token_type_ids", self.types, shapes, least=0, below=max(kinds, 1))
        for name, value in self.extra.items():
            if not isinstance(value, Tensor) or tuple(value.shape[:2]) != (batch, time):
                what = f"{name} is {checks.describe(value)} for a [{batch}, {time}] input"
                raise InputError(what, where=name, next="give one for each token")

    def flat(self) -> tuple[Inputs, int]:
        """Choices as rows of their own, [B, choices, T] -> [B choices, T], and how many choices there are.

        Raises:
            InputError: an input that is no list of choices.
        """
        first = self.ids if self.ids is not None else self.vectors
        dims = 3 if self.ids is not None else 4
        if not isinstance(first, Tensor) or first.dim() != dims:
            what = f"the input is {checks.describe(first)}"
            raise InputError(what, where="input_ids", next="give each row as a list of choices: [batch, choices, time]")
        given = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        rows = {name: _rows(name, value, first) for name, value in (given | dict(self.extra)).items()}
        extra = {name: rows.pop(name) for name in self.extra}
        return Inputs(**rows, extra=extra), first.shape[1]  # type: ignore[arg-type]  # rows are tensors by field

    def packed(self, shape: Packing, stack: Stack) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Ids and further inputs of the tokens that count, [N, …].

        Positions that were given are rows of a table that skips tokens: then nothing is counted, and no ids are told.
        """
        skips = getattr(stack.embed.positions, "skip", None) is not None
        ids_N = None if self.ids is None or (skips and self.places is not None) else shape.pack(self.ids)
        return ids_N, {name: shape.pack(value) for name, value in self.extra.items()}

    def positions(
        self, shape: Packing, cache: Cache | None, stack: Stack, device: torch.device, *, turning: bool
    ) -> tuple[Tensor, list[int], Tensor | None]:
        """Positions [N], the end of each sequence, and positions on axes [3, N] where such were given.

        Args:
            turning: the tower has rotary positions on several axes.
        """
        table = stack.embed.positions
        rows = getattr(table, "rows", None)
        if turning and isinstance(self.places, Tensor) and self.places.dim() == 3:
            axes_AN, ends = axes(shape, self.places)
            return axes_AN[0], ends, axes_AN
        place_N, ends = positions(shape, cache, self.places, device, rows)
        if self.places is not None and table is not None and getattr(table, "skip", None) is not None:
            offset = table.offset  # type: ignore[union-attr]  # what skips has an offset
            return place_N - offset, [end - offset for end in ends], None
        return place_N, ends, None


def _rows(name: str, value: Tensor, first: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.shape[:2] != first.shape[:2]:
        name = ARGUMENTS.get(name, name)
        what = f"{name} is {checks.describe(value)} beside an input of {list(first.shape)}"
        raise InputError(what, where=name, next="give it for each choice too")
    return value.flatten(0, 1)


def places(stack: Stack) -> int | None:
    """How many positions have a vector; None for all."""
    rows = getattr(stack.embed.positions, "rows", None)
    return None if rows is None else rows - getattr(stack.embed.positions, "offset", 0)


def check_end(stack: Stack, end: int) -> None:
    """Refuses positions that have no vector.

    Raises:
        InputError: the text is longer than the table.
    """
    room = places(stack)
    if room is not None and end > room:
        what = f"{end} tokens, and the model has {room} positions"
        raise InputError(what, where="input_ids", next="shorten the text")
