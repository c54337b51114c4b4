"""What a format says of the tensors of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pellucid.weights.safetensors import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.ops.packed import PackedTensor
    from pellucid.weights.source import Weights


class Entries(dict[str, Entry]):
    """What the headers say of a file's tensors, by name; and `read` for a tensor that says what others mean."""

    def __init__(self, of: Weights) -> None:
        super().__init__({name: of.entry(name) for name in of.names})
        self._of = of

    def read(self, name: str) -> bytes:
        """The bytes of a small tensor; without torch, from a safetensors file."""
        entry, path = self[name], self._of.file_of(name)
        if path.suffix != ".safetensors":
            return bytes(self._of.tensor(name).numpy())
        with path.open("rb") as file:
            file.seek(entry.start)
            return file.read(entry.nbytes)


@dataclass(frozen=True)
class Group:
    """The file tensors that are one weight.

    Args:
        name: of the weight, as an unquantized file would call it: `model.layers.0.self_attn.q_proj.weight`.
        parts: part of the `PackedTensor` -> file tensor.
        shape: of the numbers, as in an unquantized file.
        kind: what people call it: "Q4_K", "GPTQ 4-bit".
        options: what the format needs to remember of this weight.
    """

    name: str
    parts: Mapping[str, str]
    shape: tuple[int, ...]
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Format(Protocol):
    """The module of a format, `quant/<name>.py`."""

    def groups(self, entries: Entries, options: Mapping[str, Any]) -> Iterable[Group]:
        """The packed weights of a file.

        Args:
            entries: all its tensors, by name; a mapping, whose `read` gives the bytes of a small one.
            options: config.json's `quantization_config`; empty for GGUF.

        Raises:
            WeightsError: parts that are missing or do not fit each other.
            Unsupported: a variant that this version does not read.
        """

    def pack(self, group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
        """One weight, from the file's tensors as they are mapped."""
