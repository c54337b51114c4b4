"""Attention over the cache: rows that begin, that go on with few tokens or with many, in one batch; each is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid import spec as s
from pellucid.cache.batch import Batch, Memory
from pellucid.cache.cache import Cache
from pellucid.nn.attention import FEW, Attention

WIDTH = 22
PIECES = [[5, 1, 40, 3], [1, 33, 1, 1], [70, 1, 1, 2], [3, 2, 35, 6]]  # of each row in each forward


def module(dtype: torch.dtype = torch.float64, *, cross: bool = False, **changes: Any) -> Attention:
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "heads": 6, "kv_heads": 2, "head_dim": 8, "scale": 0.4, "causal": not cross, "rope": None if cross else ROPE,
    }  # fmt: skip
    made = Attention(WIDTH, s.Attention(**(fields | changes)), 0, cross=cross).to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.dim() > 1 else 1))
    return made


ROPE = s.Rope(theta=50.0, dim=8)
VARIANTS: list[dict[str, Any]] = [
    {},
    {"window": 7},
    {"chunk": 9},
    {"cap": 2.0},
    {"sinks": True, "window": 40},
    {"rope": None, "bias": s.Alibi()},
    {"rope": None, "bias": s.Alibi(rounded=True)},
    {"rope": None, "bias": s.RelativeBias(buckets=8, max_distance=30, bidirectional=False)},
    {"value_dim": 5},
]


def forward(
    m: Attention, x: list[Tensor], lengths: list[int], cache: Cache | None, memory: Memory | None = None
) -> Any:
    starts = [row.length for row in cache.rows] if cache else [0] * len(lengths)
    pieces = [row[start : start + n] for row, start, n in zip(x, starts, lengths)]
    places = torch.tensor([p for start, n in zip(starts, lengths) for p in range(start, start + n)])
    batch = Batch(lengths, places, [start + n for start, n in zip(starts, lengths)], cache, memory=memory)
    out = m(torch.cat(pieces), batch)
    batch.finish()
    return out.split(lengths)


def in_pieces(m: Attention, x: list[Tensor], rows: list[int], first: list[Memory] | None = None) -> list[Tensor]:
    """Some rows through one cache, each in its pieces."""
    cache, found = Cache(len(rows)), [[] for _ in rows]
    for step in range(len(PIECES[0])):
        memory = first[0] if first and not step else None
        outs = forward(m, [x[i] for i in rows], [PIECES[i][step] for i in rows], cache, memory)
        for at, out in enumerate(outs):
            found[at].append(out)
        cache.pages.check()
    return [torch.cat(pieces) for pieces in found]


@torch.inference_mode()
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_pieces_of_every_length_are_one_pass(changes: dict[str, Any]) -> None:
    m = module(**changes)
    x = [torch.randn(sum(pieces), WIDTH, dtype=torch.float64) for pieces in PIECES]
    assert any(n > FEW for pieces in PIECES for n in pieces[1:])
    for i, found in enumerate(in_pieces(m, x, [0, 1, 2, 3])):
        (whole,) = forward(m, [x[i]], [len(x[i])], None)
        assert torch.allclose(found, whole, atol=1e-9), f"row {i}"
    if "rounded=True" not in str(changes):  # absolute positions: a window's first key would count as the first of all
        seen: list[Tensor] = []
        m.listen("pattern", lambda x: seen.append(x))
        assert torch.allclose(in_pieces(m, x, [2])[0], forward(m, [x[2]], [len(x[2])], None)[0], atol=1e-9)
        assert seen


@torch.inference_mode()
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_company_changes_no_bit_of_attention(changes: dict[str, Any], dtype: torch.dtype) -> None:
    """The projections aside, whose products may round otherwise for other numbers of rows."""
    m = module(dtype, **changes)
    mixed: list[Tensor] = []
    m.listen("mix", lambda x: mixed.append(x.clone()))
    keys = {name: torch.randn(4, 120, heads, 8, dtype=dtype) for name, heads in (("q", 6), ("k", 2), ("v", 2))}
    if m.spec.value_dim:
        keys["v"] = keys["v"][..., : m.spec.value_dim]
    x = [torch.zeros(120, WIDTH, dtype=dtype)] * 4

    def run(rows: list[int]) -> list[list[Tensor]]:
        cache, found = Cache(len(rows)), [[] for _ in rows]
        for step in range(len(PIECES[0])):
            lengths = [PIECES[i][step] for i in rows]
            at = [slice(row.length, row.length + n) for row, n in zip(cache.rows, lengths)]
            stops = [
                m.listen(name, lambda _, all_=all_, at=at: torch.cat([all_[i, a] for i, a in zip(rows, at)]))
                for name, all_ in keys.items()
            ]
            forward(m, [x[i] for i in rows], lengths, cache)
            for row, piece in enumerate(mixed.pop().split(lengths)):
                found[row].append(piece)
            for stop in stops:
                stop()
        return found

    together = run([0, 1, 2, 3])
    for i in range(4):
        for step, (one, other) in enumerate(zip(run([i])[0], together[i])):
            assert torch.equal(one, other), f"row {i}, step {step}"


@torch.inference_mode()
@pytest.mark.parametrize("quantized", [None, "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_prompts_where_another_kernel_is_faster(
    quantized: str | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tiles in oneDNN: many tokens take a dense call, few read pages, packed ones too; all are near each other."""
    m = module(dtype)
    x = [torch.randn(300, WIDTH, dtype=dtype) for _ in range(2)]
    found = []
    for leads in (True, False):
        monkeypatch.setattr("pellucid.ops.cpu.paged.leads", lambda x, leads=leads: leads)
        cache, outs = Cache(2, quantized=quantized), []
        for lengths in ([250, 3], [1, 200], [2, 1], [40, 1]):
            outs += forward(m, x, lengths, cache)
        found.append(torch.cat(outs).double())
    assert (found[0] - found[1]).abs().max() <= (1e-5 if dtype == torch.float32 else 2e-2) * found[0].abs().max()


@torch.inference_mode()
def test_an_encoders_output_is_kept_for_each_row() -> None:
    """Several memories, one of them later than the others; tokens see all of theirs."""
    m = module(cross=True)
    x = [torch.randn(120, WIDTH, dtype=torch.float64) for _ in range(3)]
    read = [torch.randn(n, WIDTH, dtype=torch.float64) for n in (50, 7, 33)]
    alone = [forward(m, [x[i]], [75], None, Memory(read[i], [len(read[i])]))[0] for i in range(3)]
    cache = Cache(3)
    late = cache.rows.pop()
    found = [[], [], []]
    for lengths, memory in (
        ([5, 3], Memory(torch.cat(read[:2]), [50, 7])),
        ([1, 40, 2], Memory(read[2], [0, 0, 33])),
        ([1, 1, 1], None),
        ([40, 2, 35], None),
    ):
        if len(lengths) == 3 and late not in cache.rows:
            cache.rows.append(late)
        for i, out in enumerate(forward(m, x, lengths, cache, memory)):
            found[i].append(out)
        cache.pages.check()
    for i in range(3):
        out = torch.cat(found[i])
        assert torch.allclose(out, alone[i][: len(out)], atol=1e-9)
    fork = cache.rows[0].copy()
    assert fork.tables["memory"].pages == cache.rows[0].tables["memory"].pages


def test_gradients_do_not_meet_later_writes() -> None:
    """What a gradient is computed from stays as it was when the cache goes on."""
    m = module()
    x = torch.randn(12, WIDTH, dtype=torch.float64)
    cache = Cache(1)
    forward(m, [x], [6], cache)
    (second,) = forward(m, [x], [3], cache)
    forward(m, [x], [3], cache)
    second.square().sum().backward()
    assert m.q.weight.grad is not None and m.q.weight.grad.abs().sum() > 0
