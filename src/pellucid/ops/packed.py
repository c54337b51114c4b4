"""Matrices that stay packed: a tensor that holds a file's own bytes and makes its numbers when somebody asks for them.

To modules a `PackedTensor` is a parameter like any other, with the shape of the matrix and the dtype to compute in:

    linear layers      multiply by a native kernel of the format, or by tiles of unpacked rows (`nn/linear.py`)
    embeddings         unpack the rows that are looked up
    row by row         split, sliced, reordered, stacked, it stays packed: an op that only moves rows moves their bytes
    to another dtype   changes what it unpacks to, never the bytes
    any other op       runs on the unpacked numbers, of the whole matrix: slow, and right
    in-place ops       are refused: a packed matrix is not trained. Adapters are modules beside it.

A format is a subclass in `quant/` (see there); this file knows none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pellucid.errors import Unsupported

TILE = 2**19  # numbers unpacked at a time: 2 MB in float32. With four times as many a step takes half as long again
WIDE = 2**26  # the same on an accelerator, where launching costs more than memory
STEADY = 64  # rows of a tile are a multiple of so many, but for the last

aten = torch.ops.aten
P = TypeVar("P", bound="PackedTensor")


@dataclass(frozen=True)
class Way:
    """How a layer multiplies by a packed matrix: x [N, I], bias [O] or None -> [N, O], without gradients.

    `rounds`: it rounds x first, so that the result is not that of the unpacked numbers.
    `takes` says of x and bias whether it does; where not, tiles do.
    """

    name: str
    product: Callable[[Any, Tensor, Tensor | None], Tensor]
    rounds: bool = False
    takes: Callable[[Tensor, Tensor | None], bool] = lambda x_NI, bias_O: True


_exact: ContextVar[bool] = ContextVar("exact", default=False)


@contextmanager
def exactly() -> Iterator[None]:
    """In this context packed matrices are multiplied as if they were unpacked: activations are not rounded.

    Some formats' own engines round them to 8 bits, and so do our kernels of these formats. It is much faster, and off
    by about half a percent of a layer's output.
    """
    before = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(before)


def asked_exactly() -> bool:
    """Whether the caller is in such a context."""
    return _exact.get()


class PackedTensor(Tensor):
    """A matrix [*lead, I] of floating-point numbers, in a format of its own.

    Its rows are numbered 0 to R - 1 in the order of memory. A subclass says how rows are unpacked, and how the bytes of
    some of them are taken out; `parts` are the file's tensors, untouched: views of the mapped file where there is one.

    Args:
        parts: name -> tensor, of the format's own shapes and dtypes.
        meta: what else describes the format, the same for all rows; compared with ==.
        shape: of the numbers.
        dtype: what they are unpacked to: what the model computes in.
    """

    KIND: ClassVar[str] = "packed"  # as `pellucid show` calls it; `kind` of an instance may say more
    META: ClassVar[tuple[type, ...]] = ()  # classes of `meta`, where they are the format's own

    _names: tuple[str, ...]
    meta: Any
    _way: Way | None | str
    _seen: dict[str, Any]

    @staticmethod
    def __new__(
        cls: type[Any],
        parts: Mapping[str, Tensor],
        meta: Any,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
    ) -> Any:
        device = next(iter(parts.values())).device
        return Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=device, requires_grad=False)

    def __init__(
        self, parts: Mapping[str, Tensor], meta: Any, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> None:
        self._names = tuple(parts)
        for name, part in parts.items():
            setattr(self, f"part_{name}", part)
        self.meta = meta
        self._way, self._seen = "not chosen", {}

    def __init_subclass__(cls) -> None:
        """`torch.load` makes nothing that it was not told of: it may make these, of tensors and plain values."""
        super().__init_subclass__()
        torch.serialization.add_safe_globals([cls, *cls.META])

    # ------------------------------------------------------------------------ what a subclass writes

    def unpack(self, rows: slice) -> Tensor:
        """The numbers of rows `rows.start` to `rows.stop`, [n, I], exactly as the format has them; any float dtype."""
        raise NotImplementedError

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor] | None:
        """The parts of some rows, by slice (a view, if it can be) or by numbers; None: not without unpacking."""
        return None

    @classmethod
    def joined(cls, pieces: Sequence[Self]) -> Mapping[str, Tensor] | None:
        """The parts of matrices one below the other; None: not without unpacking."""
        return None

    def file_names(self, name: str) -> Mapping[str, str]:
        """Part -> what a file calls it, for a weight of this name. Of one part, the name itself."""
        return dict.fromkeys(self._names, name)

    def file_parts(self) -> Mapping[str, Tensor]:
        """The parts as a file has them: where the numbers have more dimensions than rows and inputs, so may these."""
        return self.parts

    def way(self) -> Way | None:
        """A native kernel for this matrix on this machine; None for tiles. Asked once for each dtype and device."""
        return None

    @property
    def kind(self) -> str:
        """What the format calls this sort of matrix."""
        return self.KIND

    # ------------------------------------------------------------------------ what everybody asks for

    @property
    def parts(self) -> dict[str, Tensor]:
        """The tensors that are in memory."""
        return {name: getattr(self, f"part_{name}") for name in self._names}

    @property
    def packed_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    @property
    def rows(self) -> int:
        return self.numel() // self.shape[-1] if self.shape[-1] else 0

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        """The numbers of some rows in this tensor's dtype, [n, I]; of all, if none are named, in the whole shape."""
        whole = first == 0 and last is None
        numbers = self.unpack(slice(first, self.rows if last is None else last)).to(self.dtype)
        return numbers.reshape(self.shape) if whole else numbers

    def tiles(self) -> Iterator[tuple[int, int]]:
        """First and last row of each tile."""
        size = max((TILE if self.is_cpu else WIDE) // max(self.shape[-1], 1) // STEADY, 1) * STEADY
        for first in range(0, self.rows, size):
            yield first, min(first + size, self.rows)

    def lookup(self, ids: Tensor) -> Tensor:
        """The rows of these numbers, [*ids, I]."""
        flat = ids.reshape(-1)
        if torch.compiler.is_compiling() or not flat.is_cpu:  # each as it comes: nothing may wait for the numbers
            picked = self.pick(flat)
            found = self.dense()[flat] if picked is None else self.like(picked, (len(flat), self.shape[-1])).dense()
            return found.view(*ids.shape, self.shape[-1])
        own, back = flat.unique(return_inverse=True)
        if own.numel() and not 0 <= int(own[0]) <= int(own[-1]) < self.rows:
            raise IndexError(f"row {int(own[0])} or {int(own[-1])} of {self.rows}")
        picked = self.pick(own)
        if picked is not None:
            found = self.like(picked, (own.numel(), self.shape[-1])).dense()
        else:
            found = torch.cat([self.dense(i, i + 1) for i in own.tolist()] or [self.dense(0, 0)])
        return found[back].view(*ids.shape, self.shape[-1])

    def chosen(self) -> Way | None:
        """The kernel of this matrix, decided when first asked."""
        if isinstance(self._way, str):
            self._way = self.way()
        return None if self._way is not None and self._way.rounds and _exact.get() else self._way

    def seen(self, what: str, look: Callable[[], Any]) -> Any:
        """What a format must read in its parts to know how to unpack: looked at once, for an accelerator waits."""
        if torch.compiler.is_compiling():
            return look()
        if what not in self._seen:
            self._seen[what] = look()
        return self._seen[what]

    def like(self, parts: Mapping[str, Tensor], shape: Sequence[int], dtype: torch.dtype | None = None) -> Self:
        """Other parts in the same format."""
        made: Self = type(self)(parts, self.meta, shape, dtype or self.dtype)
        return made

    def parameter(self) -> Self:
        """The same as a parameter, which is not trained.

        `nn.Parameter(self)` is one too, but it detaches first, and the first op that torch dispatches to a subclass
        imports torch.distributed.tensor with it: 0.6 seconds.
        """
        made = self.like(self.parts, self.shape)
        made._is_param = True  # what isinstance(…, nn.Parameter) asks for
        return made

    def moved(self, func: Callable[[Tensor], list[Tensor]]) -> list[Self] | None:
        """What a function that only moves whole rows makes of this tensor; None if it does anything else.

        Without asking torch for each of its ops: see `parameter`.
        """
        rows = torch.arange(self.rows).view(self.shape[:-1])
        pieces = func(
            torch.stack([rows, -rows, rows * 0 + 1], -1)
        )  # whatever is done to numbers, or across them, shows
        for piece in pieces:
            if piece.shape[-1:] != (3,) or piece[..., :2].sum(-1).any() or (piece[..., 2] != 1).any():
                return None
        taken = [each for piece in pieces if (each := _taken(self, piece[..., 0])) is not None]
        return taken if len(taken) == len(pieces) else None

    def same(self, other: object) -> bool:
        """Whether another tensor holds the same bytes in the same format."""
        if type(other) is not type(self) or other.meta != self.meta or other.shape != self.shape:
            return False
        mine, theirs = self.parts, other.parts
        return mine.keys() == theirs.keys() and all(torch.equal(part, theirs[name]) for name, part in mine.items())

    # ------------------------------------------------------------------------ what torch asks for

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch's own subclasses

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares a plain function
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        handler = HANDLERS.get(func)
        if handler is not None:
            result = handler(func, *args, **kwargs)
            if result is not NotImplemented:
                return result
        elif torch.is_inference_mode_enabled():  # torch leaves composed ops whole there, such as `to`
            result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if func._schema.is_mutable:
            _refuse_writing(func, args, kwargs)
        args, kwargs = tree_map(unpacked, (args, kwargs))
        return func(*args, **kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # torch says Any
        return f"{type(self).__name__}({self.kind}, {list(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied: Self = self.like({name: part.clone() for name, part in self.parts.items()}, self.shape)
        if isinstance(self, torch.nn.Parameter):
            copied = copied.parameter()
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        parameter = isinstance(self, torch.nn.Parameter)
        return _again, (type(self), self.parts, self.meta, tuple(self.shape), self.dtype, parameter)

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return [f"part_{name}" for name in self._names], (self._names, self.meta, self.dtype)

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, Tensor], context: Any, size: Any, stride: Any) -> Any:
        names, meta, dtype = context
        return cls({name: inner[f"part_{name}"] for name in names}, meta, size, dtype)


class RowsPacked(PackedTensor):
    """A format in which every part has the rows as its first dimension, [R, …]: most have."""

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor]:
        return {name: part[rows] for name, part in self.parts.items()}

    @classmethod
    def joined(cls, pieces: Sequence[Self]) -> Mapping[str, Tensor]:
        return {name: torch.cat([piece.parts[name] for piece in pieces]) for name in pieces[0]._names}


def _again(
    cls: type[PackedTensor],
    parts: Mapping[str, Tensor],
    meta: Any,
    shape: Sequence[int],
    dtype: torch.dtype,
    parameter: bool,
) -> Any:
    made = cls(parts, meta, shape, dtype)
    return made.parameter() if parameter else made


torch.serialization.add_safe_globals([_again])


def unpacked(x: Any) -> Any:
    """The numbers of a packed tensor; anything else as it is."""
    return x.dense() if isinstance(x, PackedTensor) else x


def _refuse_writing(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for at, argument in enumerate(func._schema.arguments):
        given = kwargs.get(argument.name, args[at] if at < len(args) else None)
        written = argument.alias_info is not None and argument.alias_info.is_write
        if written and isinstance(given, PackedTensor):
            raise Unsupported(
                f"{func} would write into a {given.kind} matrix {list(given.shape)}, which stays packed",
                where="a packed weight",
                next="train an adapter beside it, or load the unquantized checkpoint",
            )


# ------------------------------------------------------------------------------------------- ops that keep it packed


def _alias(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    return x.like(x.parts, x.shape)


def _clone(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    return x.like({name: part.clone() for name, part in x.parts.items()}, x.shape)


def _to(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """To another dtype, which is a promise, or to another device, which moves the bytes."""
    dtype, device = kwargs.get("dtype") or x.dtype, kwargs.get("device")
    if not dtype.is_floating_point:
        return NotImplemented
    parts = x.parts if device is None else {name: part.to(device) for name, part in x.parts.items()}
    return x.like(parts, x.shape, dtype)


def _relaid(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """An op that moves whole rows, done first on their numbers. It may not tear a row apart."""
    if not isinstance(x, PackedTensor) or x.dim() < 2 or x.shape[-1] < 2:
        return NotImplemented
    lead, width = x.shape[:-1], x.shape[-1]
    numbers = torch.arange(x.rows).view(*lead, 1).expand(*lead, width)
    try:
        out = func(numbers, *args, **kwargs)
    except RuntimeError:  # no view of rows
        return NotImplemented
    several = isinstance(out, (list, tuple))
    found = [_rows_of(x, each) for each in (out if several else [out])]
    if any(each is None for each in found):
        return NotImplemented
    return found if several else found[0]


def _rows_of(x: PackedTensor, numbers: Tensor) -> PackedTensor | None:
    """The packed rows that a tensor of row numbers, alike along its last dimension, stands for."""
    if numbers.dim() == 0 or numbers.shape[-1] != x.shape[-1] or numbers.stride(-1) != 0:
        return None
    return _taken(x, numbers[..., 0])


def _taken(x: P, numbers: Tensor) -> P | None:
    """The rows of these numbers, in their shape."""
    flat = numbers.reshape(-1)
    first = int(flat[0]) if flat.numel() else 0
    run = bool((flat == torch.arange(first, first + flat.numel())).all())
    parts = x.pick(slice(first, first + flat.numel()) if run else flat.to(x.device))
    return None if parts is None else x.like(parts, (*numbers.shape, x.shape[-1]))


def _embedding(func: Any, x: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
    return x.lookup(ids) if isinstance(x, PackedTensor) else NotImplemented


def _cat(func: Any, pieces: Sequence[Any], dim: int = 0) -> Any:
    """Matrices of one format below or beside each other by whole rows, or stacked in a new first dimension."""
    first = pieces[0]
    alike = all(type(each) is type(first) and each.meta == first.meta for each in pieces)
    if not isinstance(first, PackedTensor) or not alike or any(each.shape[-1] != first.shape[-1] for each in pieces):
        return NotImplemented
    firsts = accumulate((each.rows for each in pieces), initial=0)
    rows = [torch.arange(n, n + each.rows).view(*each.shape[:-1], 1) for n, each in zip(firsts, pieces)]
    lead = len(first.shape) - (func is not aten.stack.default)  # dimensions of rows
    if not 0 <= (dim if dim >= 0 else dim + lead + 1) < lead:
        return NotImplemented
    parts = type(first).joined(pieces)
    if parts is None:
        return NotImplemented
    numbers = func(rows, dim % (lead + 1))  # [..., 1]
    below = first.like(parts, (sum(each.rows for each in pieces), first.shape[-1]))
    return _rows_of(below, numbers.expand(*numbers.shape[:-1], first.shape[-1]))


def _copy(func: Any, to: Any, source: Any, *args: Any, **kwargs: Any) -> Any:
    """Into the bytes, from the same format; what else would be packed anew is refused."""
    if not isinstance(to, PackedTensor):
        return NotImplemented
    if type(source) is not type(to) or source.meta != to.meta or source.shape != to.shape:
        return NotImplemented
    given = source.parts
    if any(name not in given or given[name].shape != part.shape for name, part in to.parts.items()):
        return NotImplemented
    for name, part in to.parts.items():
        setattr(to, f"part_{name}", given[name].to(part.device, copy=True))
    to._way, to._seen = "not chosen", {}  # they may have read the bytes already
    return to


def _equal(func: Any, x: Any, other: Any) -> Any:
    return True if isinstance(x, PackedTensor) and x.same(other) else NotImplemented


HANDLERS: dict[Any, Callable[..., Any]] = {
    aten.detach.default: _alias,
    aten.alias.default: _alias,
    aten.clone.default: _clone,
    aten._to_copy.default: _to,
    aten.embedding.default: _embedding,
    aten.cat.default: _cat,
    aten.stack.default: _cat,
    aten.copy_.default: _copy,
    aten.equal.default: _equal,
    **dict.fromkeys(
        (
            aten.view.default, aten._unsafe_view.default, aten.split.Tensor, aten.split_with_sizes.default,
            aten.slice.Tensor, aten.select.int, aten.transpose.int, aten.permute.default, aten.unsqueeze.default,
            aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unbind.int, aten.t.default,
        ),
        _relaid,
    ),
}  # fmt: skip
