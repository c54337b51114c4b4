"""A decode step as a list of calls: recorded once, then made again in one parallel region (steps.cpp).

While a `Recording` is made, a kernel does not run: it notes its call (`Recording.call`), with the addresses that it
will read and write. What torch computes meanwhile passes through the recording too:

    views                      are views of the same memory in every step
    of constants alone         computed now, once for all
    sums, products, lookups    become calls of kernels that give torch's bits
    anything else              is computed by torch again in every step: before all calls where it needs none of them,
                               else between two

What asks for a tensor's numbers, draws, or multiplies by a matrix through torch is refused (`Refused`). So the list
gives the bits that the functions themselves give, as long as what they read from modules is as it was
(nn/unchanged.py).

Results lie where they lay while recording. Their memory is taken from a small stock, again as soon as nobody refers to
a result any more.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from pellucid.ops.cpu import kernels, recorder
from pellucid.ops.cpu.elementwise import gather, joined

CALL = struct.Struct("2Q3q")  # as in steps.h
MOST = 2**24  # bytes that torch's own operations may leave in a step
WORTH_SHARING = 2**15  # multiply-adds of a call, from which all threads make it: they are awake

aten = torch.ops.aten
T = TypeVar("T")
EMPTY = {
    aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default, aten.empty_strided.default,
    aten.new_empty_strided.default,
}  # fmt: skip
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear", "matmul"}
UNKNOWN = (torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Refused(Exception):
    """A step does something that a list of calls does not hold; the text says what."""


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library, where it makes lists of calls."""
    found = kernels()
    if found is None:
        return None
    found.pellucid_calls.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p]
    found.pellucid_calls.restype = ctypes.c_int64
    return found


@lru_cache(maxsize=32)
def address(kernel: str) -> int:
    """Where a kernel's share lies in memory."""
    found = ctypes.cast(getattr(library(), f"pellucid_{kernel}"), ctypes.c_void_p).value
    assert found is not None, "a function has an address"
    return found


class Again:
    """An operation of torch that every step makes again; its results go where those of the recording lie."""

    def __init__(self, func: Callable[..., Any], args: Any, kwargs: Any, results: Sequence[Tensor], label: str) -> None:
        self.func, self.args, self.kwargs, self.results, self.label = func, args, kwargs, results, label

    def __call__(self) -> None:
        found = self.func(*self.args, **self.kwargs)
        if len(self.results) == 1:
            self.results[0].copy_(found)
        elif self.results:
            for result, x in zip(self.results, found):
                result.copy_(x)


class Recording(TorchDispatchMode):
    """What a function does, as calls: `of` records it, and `run` makes them again."""

    label = ""  # what is noted now is for this; said by whoever measures (cli/_profile.py)

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, str]] = []  # label and kernel of each call
        self._before: list[Again] = []
        self._body: list[Again | list[int]] = []  # operations, and pairs: the first call and the one behind the last
        self._calls: list[tuple[int, bytes, bool, bool]] = []
        self._kept: list[object] = []
        self._stock: list[tuple[Tensor, int]] = []  # memory, and how many tensors lie in it while nobody uses it
        self._constant: set[int] = set()  # homes whose numbers are the same in every step
        self._made: set[int] = set()  # homes that calls, or operations between them, write to
        self._left = MOST
        self._busy: dict[bool, tuple[set[int], set[int]]] = {}
        self._awake()
        self._prepared: dict[object, tuple[Tensor, Tensor]] = {}

    def of(self, function: Callable[[], T]) -> T:
        """Records what a function does; returns its result, which `run` fills.

        Raises:
            Refused: it does something that a list of calls does not hold.
        """
        recorder.current = self
        try:
            with self:
                result = function()
        finally:
            recorder.current = None
            self._prepared.clear()
        self._lay_out()
        return result

    def _lay_out(self) -> None:
        """The calls as the library reads them."""
        sizes = [len(work) + -len(work) % 8 for _, work, _, _ in self._calls]
        self._work = ctypes.create_string_buffer(sum(sizes) + 8)
        self._list = ctypes.create_string_buffer(CALL.size * len(self._calls) + 8)
        at = ctypes.addressof(self._work)
        for i, ((share, work, shared, wait), size) in enumerate(zip(self._calls, sizes)):
            ctypes.memmove(at, work, len(work))
            CALL.pack_into(self._list, i * CALL.size, share, at, shared, wait, 0)
            at += size

    # ---------------------------------------------------------------------------------------- what is noted

    def call(
        self, kernel: str, work: bytes, work_size: int, reads: Iterable[Tensor | None], writes: Iterable[Tensor]
    ) -> None:
        """A kernel's call joins the list. Its memory is somebody's who outlives the recording, or the recording's own.

        Args:
            kernel: the name of its share in the library.
            work: what the share is given, packed.
            work_size: about how many multiply-adds it is; 0 for what one thread does alone.
        """
        if not self._body or not isinstance(self._body[-1], list):
            self._body.append([len(self._calls), len(self._calls)])
            self._awake()  # a parallel region begins
        shared = work_size >= WORTH_SHARING
        read, written = {_home(x) for x in reads if x is not None}, {_home(x) for x in writes}
        wait = any(
            (shared or other) and (written & (others[0] | others[1]) or read & others[1])
            for other, others in self._busy.items()
        )
        if wait:
            self._awake()
        self._busy[shared][0].update(read)
        self._busy[shared][1].update(written)
        self._made.update(written)
        self._calls.append((address(kernel), work, shared, wait))
        self.noted.append((self.label, kernel))
        last = self._body[-1]
        assert isinstance(last, list), "appended above where it was not"
        last[1] = len(self._calls)

    def again(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A function of ours that every step calls again, of a tensor that no call writes."""
        if _home(x) in self._made:
            raise Refused(f"{function} reads what a call writes")
        with _disable_current_modes():
            found = _aside(function, (x,), {})
        self._before.append(Again(function, (x,), {}, [found], self.label))
        return found

    def prepared(self, key: object, x: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """What several calls in a row make of the same x, made once."""
        found = self._prepared.get(key)
        if found is None or found[0] is not x:
            self._prepared = {k: v for k, v in self._prepared.items() if v[0] is x}
            found = self._prepared[key] = x, make()
        return found[1]

    def _awake(self) -> None:
        """Nobody reads or writes anything: all threads have waited for each other."""
        self._busy = {True: (set(), set()), False: (set(), set())}

    # ---------------------------------------------------------------------------------------- what torch is asked

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch would import its compiler (0.5 s) at the first operation, to be told to leave this alone."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        if func is aten.dropout.default and not args[2]:
            return args[0]
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if func in EMPTY:
            return self.empty(func(*args, **kwargs))
        if any(tag in UNKNOWN for tag in func.tags):
            raise Refused(f"{func} asks for numbers, or draws")
        if func is aten.lift_fresh.default:  # what torch.tensor makes of numbers
            self._keep_constant([args[0]])
            return args[0]
        if not schema.is_mutable and schema.returns and all(r.alias_info is not None for r in schema.returns):
            return func(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        homes = {_home(x) for x in given}
        if not schema.is_mutable and homes <= self._constant:
            found = _aside(func, args, kwargs)
            self._keep_constant(x for x in tree_leaves(found) if isinstance(x, Tensor))
            return found
        if not schema.is_mutable and (call := NATIVE.get(func)) is not None:
            found = call(self, *args, **kwargs)
            if found is not None:
                return found
        return self._again(func, args, kwargs, homes)

    def _again(self, func: Any, args: Any, kwargs: Any, homes: set[int]) -> Any:
        if func._schema.name.partition("::")[2] in PRODUCTS:
            raise Refused(f"{func} multiplies by a matrix")
        found = _aside(func, args, kwargs)
        results = [] if func._schema.is_mutable else [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        again = Again(func, args, kwargs, results, self.label)
        self._left -= sum(x.numel() * x.element_size() for x in results)
        if self._left < 0:
            raise Refused(f"{func} and others leave more than {MOST} bytes")
        if func._schema.is_mutable:
            written = {
                _home(x)
                for at, argument in enumerate(func._schema.arguments)
                if argument.alias_info is not None and argument.alias_info.is_write
                for x in tree_leaves(args[at] if at < len(args) else kwargs.get(argument.name))
                if isinstance(x, Tensor)
            }
            if written & self._constant:
                raise Refused(f"{func} writes over a constant")
            self._body.append(again)
            self._made.update(written)
        elif homes & self._made:
            self._body.append(again)
            self._made.update(_home(x) for x in results)
        else:
            self._before.append(again)
        return found

    def _keep_constant(self, found: Iterable[Tensor]) -> None:
        for x in found:
            self._kept.append(x)
            self._constant.add(_home(x))

    def empty(self, like: Tensor) -> Tensor:
        """Memory of the stock for a result."""
        size = like.numel() * like.element_size()
        if not size or not like.is_contiguous() or not like.is_cpu:
            self._kept.append(like)
            return like
        for memory, alone in self._stock:
            if memory.numel() == size and _tensors_in(memory) == alone:
                break
        else:
            memory = torch.empty(size, dtype=torch.uint8)
            self._stock.append((memory, _tensors_in(memory)))
        return memory.view(like.dtype).view(like.shape)

    # ---------------------------------------------------------------------------------------- the calls, made

    def run(self, threads: int, spent: Spent | None = None) -> None:
        """Does once more what was recorded, on so many threads at most; the bits do not depend on them.

        Args:
            spent: of this recording: the time of each call is added there.

        Raises:
            RuntimeError: a call failed: it was asked for pages or rows that are not there, or had no memory.
        """
        found = library()
        assert found is not None, "nothing is recorded without it"
        first = ctypes.addressof(self._list)
        for part in chain(self._before, self._body):
            if isinstance(part, Again):
                part() if spent is None else spent.of(part)
                continue
            begin, end = part
            times = None if spent is None else spent.behind(begin)
            if failed := found.pellucid_calls(first + begin * CALL.size, end - begin, threads, times):
                raise RuntimeError(f"a recorded call failed with {failed}")
        if spent is not None:
            spent.runs += 1

    @property
    def bytes(self) -> int:
        """Memory that the results take."""
        return sum(memory.numel() for memory, _ in self._stock) + MOST - self._left


class Spent:
    """The time of everything that a recording makes again, all runs together."""

    def __init__(self, recording: Recording) -> None:
        self.runs = 0
        self._noted = recording.noted
        self._calls = (ctypes.c_int64 * (len(self._noted) + 1))()
        self._torch: Counter[str] = Counter()

    def of(self, again: Again) -> None:
        """Makes an operation of torch again."""
        start = time.perf_counter_ns()
        again()
        self._torch[again.label] += time.perf_counter_ns() - start

    def behind(self, call: int) -> int:
        """Where the library adds the nanoseconds of this call, and of those after it."""
        return ctypes.addressof(self._calls) + 8 * call

    def seconds(self) -> Counter[tuple[str, str]]:
        """By label, and by the kernel's name or torch's."""
        found: Counter[tuple[str, str]] = Counter()
        for (label, kernel), taken in zip(self._noted, self._calls):
            found[label, kernel.removesuffix("_share")] += taken
        for label, taken in self._torch.items():
            found[label, "torch"] += taken
        return Counter({what: taken / 1e9 for what, taken in found.items()})


def _aside(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operation gives; kernels that it calls run now."""
    recording, recorder.current = recorder.current, None
    try:
        return func(*args, **kwargs)
    finally:
        recorder.current = recording


def _home(x: Tensor) -> int:
    """The memory that a tensor lies in; 0 for those that have none of their own."""
    if type(x) not in (Tensor, torch.nn.Parameter) or x.layout is not torch.strided:
        return 0
    return x.untyped_storage().data_ptr()


def _tensors_in(memory: Tensor) -> int:
    return torch._C._storage_Use_Count(memory.untyped_storage()._cdata)


def _plain(x: Any) -> bool:
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.is_cpu
        and x.is_contiguous()
        and x.dtype in (torch.float32, torch.bfloat16)
    )


def _alike(x: Any, y: Any) -> bool:
    return _plain(x) and _plain(y) and x.shape == y.shape and x.dtype is y.dtype


def _sum(recording: Recording, x: Any, y: Any, *, alpha: Any = 1) -> Tensor | None:
    return joined(recording, "sum", x, y) if alpha == 1 and _alike(x, y) else None


def _product(recording: Recording, x: Any, y: Any) -> Tensor | None:
    if _alike(x, y):
        return joined(recording, "product", x, y)
    number = y
    if isinstance(y, Tensor):
        if y.dim() or y.dtype is not getattr(x, "dtype", None) or _home(y) not in recording._constant:
            return None
        number = y.item()
    return (
        joined(recording, "scaled", x, None, float(number)) if _plain(x) and isinstance(number, int | float) else None
    )


def _lookup(recording: Recording, table: Any, ids: Any, *rest: Any) -> Tensor | None:
    fits = _plain(table) and ids.dtype is torch.int64 and ids.dim() == 1 and ids.is_contiguous()
    return gather(recording, table, ids) if fits else None


def _converted(recording: Recording, x: Any, *, dtype: Any = None, **options: Any) -> Tensor | None:
    halved = dtype is torch.float16 and _plain(x) and x.dtype is torch.float32
    return joined(recording, "halved", x, None) if halved else None


NATIVE: dict[Any, Callable[..., Tensor | None]] = {
    aten.add.Tensor: _sum,
    aten.mul.Tensor: _product,
    aten.embedding.default: _lookup,
    aten._to_copy.default: _converted,
}
