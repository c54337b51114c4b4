"""Operators of a compiled graph that call a module as it is.

`torch.compile` draws a graph of a forward before it has seen any numbers. Where numbers decide what is computed (which
experts run, where a row's tokens end, what a cache holds) no graph can be drawn, so such a piece of the model is one
operator of the graph, `torch.ops.pellucid.apart`, and what it does at run time is what happens without a compiler,
with our own kernels, taps and packed weights.

Its gradients are those of the same piece, computed once more from the operator's inputs, as checkpointing does. Draws
of random numbers are repeated: they follow from a seed that is an input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.nn.tapped import NUMBERED

Piece = Callable[..., Tensor]

_library = torch.library.Library("pellucid", "FRAGMENT")
_library.define(
    "apart(Tensor[] xs, Tensor[] weights, int module, str piece, SymInt[] shape, ScalarType dtype, Tensor? seed)"
    " -> Tensor"
)
_library.define(
    "apart_back(Tensor grad, Tensor[] xs, Tensor[] weights, int module, str piece, Tensor? seed) -> Tensor[]"
)


compiling = torch.compiler.is_compiling


def apart(
    module: nn.Module, piece: str, xs: Sequence[Tensor], shape: Sequence[int], dtype: torch.dtype | None = None
) -> Tensor:
    """`module.<piece>(*xs)` as one operator of the graph that is being compiled.

    Args:
        piece: a method of the module; behind it, if they are many, a word that it is told, and the names of `xs`: then
            it is called with the word and a dict.
        xs: all tensors that it reads beside the module's own.
        shape, dtype: of its result; None for the dtype of the first of `xs`.
    """
    weights = [p for p in module.parameters() if p.requires_grad] if torch.is_grad_enabled() else []
    seed = torch.randint(2**62, ()) if module.training else None
    number: Any = module.number
    found: Tensor = torch.ops.pellucid.apart(list(xs), weights, number, piece, list(shape), dtype or xs[0].dtype, seed)
    return found


def _run(number: int, piece: str, xs: Sequence[Tensor], seed: Tensor | None) -> Tensor:
    name, *rest = piece.split("|")
    method: Piece = getattr(NUMBERED[number], name)
    given = (rest[0], dict(zip(rest[1:], xs))) if rest else xs
    if seed is None:
        return method(*given)
    devices = {x.device for x in xs if x.is_cuda}
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(seed))
        return method(*given)


def _apart(
    xs: list[Tensor],
    weights: list[Tensor],
    module: int,
    piece: str,
    shape: list[int],
    dtype: torch.dtype,
    seed: Tensor | None,
) -> Tensor:
    found = _run(module, piece, xs, seed)
    return found.clone() if any(found is x for x in xs) else found


def _fake(
    xs: list[Tensor],
    weights: list[Tensor],
    module: int,
    piece: str,
    shape: list[int],
    dtype: torch.dtype,
    seed: Tensor | None,
) -> Tensor:
    return xs[0].new_empty(shape, dtype=dtype)


def _apart_back(
    grad: Tensor, xs: list[Tensor], weights: list[Tensor], module: int, piece: str, seed: Tensor | None
) -> list[Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in xs]
        out = _run(module, piece, leaves, seed)
        own = [p for p in NUMBERED[module].parameters() if p.requires_grad][: len(weights)]
        wanted = [x for x in leaves if x.requires_grad] + own
        grads = iter(torch.autograd.grad(out, wanted, grad, allow_unused=True))
    found = [next(grads) if x.requires_grad else None for x in (*leaves, *own)]
    return [x.new_zeros(x.shape) if g is None else g.contiguous() for g, x in zip(found, (*xs, *weights))]


def _fake_back(
    grad: Tensor, xs: list[Tensor], weights: list[Tensor], module: int, piece: str, seed: Tensor | None
) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in (*xs, *weights)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    xs, weights, ctx.module, ctx.piece, _, _, seed = inputs
    ctx.count = len(xs)
    ctx.save_for_backward(*xs, *weights, *(() if seed is None else (seed,)))
    ctx.seeded = seed is not None


def _back(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    seed = saved.pop() if ctx.seeded else None
    xs, weights = saved[: ctx.count], saved[ctx.count :]
    grads = torch.ops.pellucid.apart_back(grad, xs, weights, ctx.module, ctx.piece, seed)
    mine = [g if x.is_floating_point() else None for g, x in zip(grads, xs)]
    return mine, grads[ctx.count :], None, None, None, None, None


_library.impl("apart", _apart, "CompositeExplicitAutograd")
_library.impl("apart_back", _apart_back, "CompositeExplicitAutograd")
torch.library.register_fake("pellucid::apart", _fake, lib=_library)
torch.library.register_fake("pellucid::apart_back", _fake_back, lib=_library)
torch.library.register_autograd("pellucid::apart", _back, setup_context=_save, lib=_library)
