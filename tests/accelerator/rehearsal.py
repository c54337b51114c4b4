"""A card of paper: tensors that say they lie on "card:0", and are numbers of the processor.

Operations refuse operands of two devices, as an accelerator's do, and what asks whether a tensor lies on the processor
is told that it does not. So what would stop on a card for a table left behind stops here. Kernels, graphs, rounding and
speed are not rehearsed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from pellucid.ops.packed import PackedTensor

PAPER = os.environ.get("PELLUCID_ACCELERATOR") == "paper"
DEVICE = "card:0" if PAPER else "cuda:0"
if PAPER:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("card")

aten = torch.ops.aten
MIXED = {aten.copy_.default, aten._to_copy.default}  # operands may lie apart
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class There(Tensor):
    """A tensor on the card; `inner` has its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **options: Any) -> str:
        return f"There({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **options: Any) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the processor, once it is clear that the card could do it."""
    if torch.is_inference_mode_enabled():  # torch leaves composed operations whole there, such as `to`
        with Card():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    given, _ = tree_flatten((args, kwargs))
    there = [x for x in given if isinstance(x, There)]
    refuse_mixed(func, args, given, bool(there))
    asked = kwargs.get("device")
    on_card = bool(there) if asked is None else torch.device(asked).type == torch.device(DEVICE).type
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu") if on_card else asked}
    whole = {id(x.inner): x for x in there}
    args, kwargs = tree_map(lambda x: x.inner if isinstance(x, There) else x, (args, kwargs))
    result = func(*args, **kwargs)

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return whole[id(x)] if id(x) in whole else There(x) if on_card else x

    with torch.inference_mode(torch.is_inference_mode_enabled() and all(x.is_inference() for x in there)):
        return tree_map(wrapped, result)  # a view of an ordinary tensor is one, too


def refuse_mixed(func: Any, args: Any, given: list[Any], any_there: bool) -> None:
    """Numbers without dimensions may come from the processor, and so may the indices of something on the card."""
    if not any_there or func in MIXED:
        return
    apart = [x for x in given if isinstance(x, Tensor) and not isinstance(x, There) and x.dim() > 0]
    if func in INDEXED and isinstance(args[0], There):
        apart = [x for x in apart if all(x is not index for index in args[1])]
    if apart:
        shapes = [tuple(x.shape) for x in apart]
        raise RuntimeError(f"{func}: operands on {DEVICE} and, of shapes {shapes}, on the processor")


class Card(TorchDispatchMode):
    """Makes tensors on the card where one is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(x, PackedTensor) for x in tree_flatten((args, kwargs))[0]):
            with self:
                return PackedTensor.__torch_dispatch__(func, types, args, kwargs)
        return computed(func, args, kwargs)


@contextmanager
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if there were a card."""
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # of `torch.tensor(…, device=…)` the mode hears, too
    try:
        with Card():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
