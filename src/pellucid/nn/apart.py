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

from pellucid.cache import keys
from pellucid.cache.batch import Batch, Memory
from pellucid.cache.cache import Cache
from pellucid.errors import InputError
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


# ---------------------------------------------------------------------------------------------- over a cache

_library.define("cache(int rows) -> Tensor")
_library.define(
    "begin(Tensor(a!) key, Tensor place, Tensor? real, Tensor? ids, Tensor? types, Tensor? memory, Tensor? memory_real,"
    " int rows, int model, bool absolute) -> Tensor"
)
_library.define("remember(Tensor(a!) key, Tensor x, int module, str part, int model) -> Tensor")
_library.define("finish(Tensor(a!) key) -> ()")


def begin(model: nn.Module, key: Tensor, batch: Batch, types: Tensor | None, *, absolute: bool) -> Tensor:
    """Begins a forward over the cache with this key; returns the position of each token in its row, [M].

    Args:
        batch: what the graph knows: its positions are counted from each row's first new token, unless `absolute`.
    """
    memory = batch.memory
    number: Any = model.number
    found: Tensor = torch.ops.pellucid.begin(
        key, batch.positions, batch.real, batch.ids, types, memory and memory.x, memory and memory.real,
        len(batch.lengths), number, absolute,
    )  # fmt: skip
    return found


def remembering(module: nn.Module, part: str) -> Callable[..., Tensor]:
    """A mixer ("attn", "cross"), or a tower ("run"), as an operator over the cache of the running forward."""
    number: Any = module.number

    def call(x_MD: Tensor, batch: Batch, bias: object = None) -> Tensor:
        found: Tensor = torch.ops.pellucid.remember(batch.key, x_MD, number, part, batch.model)
        return found

    return call


def finish(key: Tensor) -> None:
    """Moves the rows on."""
    torch.ops.pellucid.finish(key)


def _cache(rows: int) -> Tensor:
    return keys.keep(Cache(rows)).clone()


def _begin(
    key: Tensor,
    place: Tensor,
    real: Tensor | None,
    ids: Tensor | None,
    types: Tensor | None,
    memory: Tensor | None,
    memory_real: Tensor | None,
    rows: int,
    model: int,
    absolute: bool,
) -> Tensor:
    cache, time = keys.of(key), len(place) // rows
    owner: Any = NUMBERED[model]
    cache.pages.claim(owner)
    if len(cache) != rows:
        what = f"the cache holds {len(cache)} rows, the batch {rows}"
        raise InputError(what, where="past_key_values", next="cache.select(rows) keeps the rows you need")
    if not absolute:
        begins = torch.tensor([row.position for row in cache.rows], device=place.device)
        place = place + begins.repeat_interleave(time)
    kept = None if real is None else real.flatten().nonzero().flatten()

    def own(x: Tensor | None) -> Tensor | None:
        return x if x is None or kept is None else x[kept]

    lengths = [time] * rows if real is None else real.sum(1).tolist()
    place_N = place if kept is None else place[kept]
    ends = [int(place_T[-1]) + 1 for place_T in place_N.split(lengths)]
    owner.check_positions(max(ends))
    read = None
    if memory is not None and memory_real is not None:
        read = Memory(memory[memory_real.flatten()], memory_real.sum(1).tolist())
    elif memory is not None:
        read = Memory(memory, [len(memory) // rows] * rows)
    batch = Batch(lengths, place_N, ends, cache, memory=read, ids=own(ids))
    keys.running[int(key)] = keys.Running(batch, kept, own(types))
    return place.clone()


def _remember(key: Tensor, x: Tensor, module: int, part: str, model: int) -> Tensor:
    now = keys.running[int(key)]
    called: Any = NUMBERED[module]
    owner: Any = NUMBERED[model]
    with torch.no_grad():
        x_ND = x if now.kept is None else x[now.kept]
        if part == "run":
            found: Tensor = called.run(x_ND, now.batch, now.types)
        else:
            found = called(x_ND, now.batch, owner.relative_bias) if part == "attn" else called(x_ND, now.batch)
        if now.kept is None:
            return found.clone() if found is x else found
        return x.new_zeros(len(x), found.shape[1]).index_copy(0, now.kept, found)


def _finish(key: Tensor) -> None:
    keys.running.pop(int(key)).batch.finish()


def _fake_remember(key: Tensor, x: Tensor, module: int, part: str, model: int) -> Tensor:
    tower: Any = NUMBERED[module]
    width = tower.stack.out or tower.stack.width if part == "run" else x.shape[1]
    return x.new_empty(x.shape[0], width)


for _name, _function in (("cache", _cache), ("begin", _begin), ("remember", _remember), ("finish", _finish)):
    _library.impl(_name, _function, "CompositeExplicitAutograd")
torch.library.register_fake("pellucid::cache", lambda rows: torch.empty((), dtype=torch.int64), lib=_library)
torch.library.register_fake("pellucid::begin", lambda key, place, *rest: torch.empty_like(place), lib=_library)
torch.library.register_fake("pellucid::remember", _fake_remember, lib=_library)
torch.library.register_fake("pellucid::finish", lambda key: None, lib=_library)
