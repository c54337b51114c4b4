"""What the formats of linear layers share: a module's file tensors by their last names, and checks of their headers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pellucid.errors import Unsupported, WeightsError
from pellucid.weights.safetensors import AGAIN, Entry

FLOATS = ("F16", "BF16", "F32")


def modules(entries: Mapping[str, Entry], marker: str) -> Iterator[str]:
    """Every X that has a tensor X.marker, with its dot."""
    for name in entries:
        if name.endswith(f".{marker}"):
            yield name.removesuffix(marker)


def parts(
    entries: Mapping[str, Entry], module: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, str]:
    """Part -> file tensor. A part is called as the last step of its tensor's name.

    Raises:
        WeightsError: one that is needed is missing.
    """
    for part in needed:
        if module + part not in entries:
            raise WeightsError(f"{module}{needed[0]} is there without {module}{part}", next=AGAIN)
    return {part: module + part for part in (*needed, *optional) if module + part in entries}


def expect(entry: Entry, dtypes: Collection[str], *shapes: tuple[int, ...]) -> None:
    """That a tensor has one of some dtypes, and one of some shapes.

    Raises:
        WeightsError: with what was found.
    """
    if entry.dtype not in dtypes or entry.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise WeightsError(
            f"{entry.name} is {entry.dtype} {list(entry.shape)}, not {' or '.join(dtypes)} {wanted}",
            where="quantized weights",
            next=f"correct quantization_config in config.json, or {AGAIN}",
        )


def check(options: Mapping[str, Any], read: Mapping[str, Collection[Any]], default: Any = None) -> None:
    """That what a config says about its format is something that this version reads.

    Args:
        read: key -> its readable values; a key that is absent counts as `default`.

    Raises:
        Unsupported: with the key and its value.
    """
    for key, values in read.items():
        found = options.get(key, default)
        if (found.lower() if isinstance(found, str) else found) not in list(values):
            refuse(key, found, f"this version reads {', '.join(repr(value) for value in values if value is not None)}")


def refuse(key: str, value: object, next: str = "load the unquantized checkpoint") -> None:
    """Raises Unsupported for an option of a format."""
    raise Unsupported(f"quantization_config has {key}={value!r}", where="config.json", next=next)


def way(kind: str) -> str:
    """What multiplies by a matrix whose groups and zero points are as usual, for `show`."""
    from pellucid.ops.cpu.packed import named
    from pellucid.quant import TILES

    return named() or TILES
