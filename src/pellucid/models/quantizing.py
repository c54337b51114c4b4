"""Packing while loading: the matrices of linear layers, one file tensor at a time, as a packed file would have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pellucid.models.model import Model
from pellucid.nn.linear import Linear
from pellucid.ops.packed import PackedTensor
from pellucid.weights.safetensors import Entry
from pellucid.weights.source import Behind, Weights
from pellucid.weights.table import Fused, Paired, Place, Stacked, Transposed


@dataclass(frozen=True)
class Quantize:
    """What to pack, and to what.

    Args:
        pack: numbers [out, in] -> the same packed.
        kind: what people call the format.
        skip: modules that stay as they are, by their names in files: a whole name, its beginning or its end, or a
            pattern; None for heads.
        says: what config.json will say of it, as `quantization_config`.
    """

    pack: Callable[[Tensor], PackedTensor]
    kind: str
    skip: Sequence[str] | None = None
    says: Mapping[str, Any] = field(default_factory=dict)

    def wants(self, name: str, *, head: bool) -> bool:
        """Whether a module is packed, by its name in files."""
        if self.skip is None:
            return not head
        edge = r"(?:(?<=\.)|(?=\.|$))"
        return not any(re.match(f"(?:{each}){edge}", name) or name.endswith(each) for each in self.skip)


class QuantizedWeights(Behind):
    """Weights of which the matrices of linear layers come packed. Those of tied layers do not, nor a router's."""

    def __init__(self, of: Weights, model: Model, dtype: torch.dtype, how: Quantize, heads: Sequence[str]) -> None:
        super().__init__(of)
        self._dtype, self._how = dtype, how
        self._places = {
            name: place
            for name, place in matrices(of, model).items()
            if how.wants(name.removesuffix(".weight"), head=place.slots[0].split(".")[0] in heads)
        }

    def packed(self, name: str) -> bool:
        return name in self._places or super().packed(name)

    def entry(self, name: str) -> Entry:
        """Kind and shape; the bytes are those of the file."""
        entry, place = self._of_files.entry(name), self._places.get(name)
        if place is None:
            return entry
        shape = entry.shape[::-1] if isinstance(place.layout, Transposed) else entry.shape
        return replace(entry, dtype=self._how.kind, shape=shape)

    def tensor(self, name: str) -> Tensor:
        """A tensor; packed anew each time that it is asked for."""
        tensor, place = self._of_files.tensor(name), self._places.get(name)
        if place is None:
            return tensor
        if not (tensor.dtype == torch.float16 and self._dtype == torch.float32):  # widened to compute: packed as it is
            tensor = tensor.to(self._dtype)
        packed = self._how.pack(tensor.t().contiguous() if isinstance(place.layout, Transposed) else tensor)
        self._of_files.release(name)  # its pages: the model needs them no more
        return packed


def matrices(weights: Weights, model: Model) -> dict[str, Place]:
    """File tensors that are a linear layer's matrix, or several, and their places: no tied ones, no precise ones."""
    tied = {slot for pair in model.ties().items() for slot in pair}
    layers = {f"{path}.weight": module for path, module in model.named_modules() if isinstance(module, Linear)}
    found: dict[str, Place] = {}
    for name in weights.names:
        place = model.file_table.find(name)
        if place is None or not place.slots or place.row is not None or place.share is not None:
            continue
        if not isinstance(upright(place).layout, str | Fused | Paired) or len(weights.entry(name).shape) != 2:
            continue
        if all(
            slot in layers and slot not in tied and not getattr(layers[slot].weight, "precise", False)
            for slot in place.slots
        ):
            found[name] = place
    return found


def upright(place: Place) -> Place:
    """Where a packed matrix has its place: formats keep it as [out, in], also where the unpacked file has [in, out]."""
    match place.layout:
        case Transposed(of):
            return replace(place, layout=of)
        case Stacked(Transposed(of)):
            return replace(place, layout=replace(place.layout, of=of))
    return place
