"""Attention in tensors alone, and through torch's kernel on an accelerator, against the definition in float64.

The kernel itself needs an accelerator. Without one, a stand-in with its documented meaning shows what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_paged import ADDED, SIGHTS, Case, assert_near, case, exact
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.ops import flash
from pellucid.ops.attention import attend, visible
from pellucid.ops.paged import attend_flash, attend_newest, attend_paged, newest_sight
from pellucid.ops.scoring import Scoring

needs_accelerator = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")


def newest(c: Case) -> Tensor:
    assert set(c.lengths) == {1}
    with torch.inference_mode():
        return attend_newest(c.q, c.k, c.v, c.tables, torch.tensor(c.ends, dtype=torch.int32), Scoring(**c.options))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 150), min_size=1, max_size=5),
    st.sampled_from([1, 5, 16, 32]),
    st.sampled_from([{}, {"window": 1}, {"window": 9}, {"window": 33}, {"chunk": 33}, {"chunk": 8}, *SIGHTS]),
    st.sampled_from([(), ("sinks_H",), ("slopes_H",), ("sinks_H", "slopes_H")]),
    st.sampled_from([None, 2.0]),
    st.sampled_from([(1, 4), (2, 1), (3, 2)]),
)
def test_against_the_definition(
    ends: list[int],
    page: int,
    sight: dict[str, Any],
    added: tuple[str, ...],
    cap: float | None,
    heads: tuple[int, int],
) -> None:
    kv_heads, group = heads
    c = case(
        [1] * len(ends), ends, page=page, added=added, kv_heads=kv_heads, group=group, widths=(16, 24),
        **({"cap": cap} | sight),
    )  # fmt: skip
    assert (newest(c) - exact(c)).abs().max() < 5e-6 * exact(c).abs().max()
    assert (newest(c) - c()).abs().max() < 1e-5


@pytest.mark.parametrize("sight", [{}, {"window": 20}, {"chunk": 64}], ids=str)
@pytest.mark.parametrize("added", ADDED[:3], ids=str)
def test_strangers_never_enter(sight: dict[str, Any], added: tuple[str, ...]) -> None:
    """What no query sees may be NaN: in pages of others, and behind the end in one's own; entries may name any page."""
    c = case([1, 1], [77, 100], page=8, added=added, **sight)
    kept = torch.zeros(len(c.k), 8, dtype=torch.bool)
    tables = c.tables.clone()
    for b, end in enumerate(c.ends):
        first = max(0, end - sight.get("window", end), (end - 1) // sight.get("chunk", end) * sight.get("chunk", 0))
        tables[b, : first // 8] = 0
        tables[b, -(-end // 8) :] = 0
        for token in range(first, end):
            kept[c.tables[b, token // 8], token % 8] = True
    k, v = c.k.clone(), c.v.clone()
    k[~kept], v[~kept] = float("nan"), float("nan")
    found = newest(replace(c, k=k, v=v, tables=tables))
    assert torch.equal(found, newest(c))


def test_a_window_gathers_no_more_than_it_sees() -> None:
    c = case([1, 1], [1000, 40], page=16)
    sights = [newest_sight(c.tables.long(), torch.tensor(c.ends), 16, Scoring(1.0, window)) for window in (None, 33, 1)]
    assert [slot_BM.shape[1] for _, slot_BM, _ in sights] == [1008, 48, 16]


def test_a_bias_is_refused() -> None:
    """Its shape goes by the tokens of a row, which no graph can hold."""
    with pytest.raises(ArgumentError, match="a bias"):
        newest(case([1], [40], added=("bias",)))


# ------------------------------------------------------------------------------ torch's kernel


def stand_in(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    num_splits: int,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
) -> Tensor:
    """What `torch.nn.attention.varlen.varlen_attn` says that it computes; queries are those of the last keys."""
    assert cu_seq_q.dtype == torch.int32 and num_splits == 1 and window_size[1] == 0
    assert enable_gqa == (query.shape[1] != key.shape[-2])
    rows = []
    for b, q_THK in enumerate(query.split(cu_seq_q.diff().tolist())):
        if block_table is None:
            assert cu_seq_k is not None and cu_seq_k.dtype == torch.int32 and seqused_k is None
            k, v = (x[cu_seq_k[b] : cu_seq_k[b + 1]] for x in (key, value))
        else:
            assert cu_seq_k is None and seqused_k is not None and seqused_k.dtype == block_table.dtype == torch.int32
            k, v = (pool[block_table[b].long()].flatten(0, 1)[: seqused_k[b]] for pool in (key, value))
        T, S = len(q_THK), len(k)
        assert max_q >= T and max_k >= S
        window = None if window_size[0] < 0 else window_size[0] + 1
        allow = visible(T, S, end=S, device=query.device, window=window)
        rows.append(attend(q_THK[None], k[None], v[None], scale=scale, allow_TS=allow)[0])
    return torch.cat(rows)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "_kernel", lambda: stand_in)


@pytest.mark.parametrize("window", [None, 1, 9, 70])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_the_kernel_is_given(
    kernel: None, monkeypatch: pytest.MonkeyPatch, in_place: bool, window: int | None
) -> None:
    monkeypatch.setattr(flash, "in_place", lambda k: in_place)
    c = case([1, 3, 40], [77, 20, 150], page=16, window=window)
    scoring = Scoring(c.options["scale"], window)
    with torch.inference_mode():
        assert_near(attend_flash(c.q, c.k, c.v, c.tables, c.lengths, c.ends, scoring), exact(c))


@pytest.mark.parametrize("window", [None, 9])
def test_what_the_kernel_is_given_for_newest_tokens(
    kernel: None, monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    monkeypatch.setattr(flash, "in_place", lambda k: True)
    monkeypatch.setattr(flash, "takes", lambda q, k, v: True)
    c = case([1, 1, 1], [77, 1, 150], page=16, window=window)
    assert_near(newest(c), exact(c))


def test_the_kernel_is_not_asked_for_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks, caps, sinks, slopes and biases take the other forms, on whatever device."""

    def refuse(*args: Any, **options: Any) -> Tensor:
        raise AssertionError("the kernel was asked")

    monkeypatch.setattr(flash, "_kernel", lambda: refuse)
    monkeypatch.setattr(flash, "takes", lambda q, k, v: True)
    monkeypatch.setattr(flash, "in_place", lambda k: True)
    more: Sequence[dict[str, Any]] = ({"chunk": 33}, {"cap": 2.0})
    asked = [case([1, 1], [40, 50], **sight) for sight in more]
    asked += [case([1, 1], [40, 50], added=(name,)) for name in ("sinks_H", "slopes_H")]
    for c in asked:
        assert_near(newest(c), exact(c))
    for c in (*asked, case([2, 1], [40, 50], added=("bias",))):
        assert_near(c(), exact(c))
    with pytest.raises(AssertionError, match="asked"):
        case([1, 1], [40, 50])(attend_paged)


def test_no_kernel_on_a_cpu() -> None:
    c = case([1], [40], dtype=torch.bfloat16)
    assert not flash.takes(c.q, c.k, c.v)


@needs_accelerator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("window", [None, 9, 70])
def test_the_kernel_against_the_definition(dtype: torch.dtype, window: int | None) -> None:
    c = case([1, 3, 40], [77, 20, 150], widths=(64, 64), page=32, dtype=dtype, window=window)
    if not flash.takes(c.q.cuda(), c.k.cuda(), c.v.cuda()):
        pytest.skip("this accelerator or this torch has no such kernel")
    there = replace(c, q=c.q.cuda(), k=c.k.cuda(), v=c.v.cuda())
    assert (there().cpu().double() - exact(c)).abs().max() < 2**-6 * exact(c).abs().max()


@needs_accelerator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("added", ADDED[:3], ids=str)
def test_newest_tokens_on_an_accelerator(dtype: torch.dtype, added: tuple[str, ...]) -> None:
    c = case([1, 1, 1], [77, 20, 150], widths=(64, 64), page=32, dtype=dtype, added=added, window=70)
    options = {name: x.cuda() if isinstance(x, Tensor) else x for name, x in c.options.items()}
    ends = torch.tensor(c.ends, dtype=torch.int32).cuda()
    with torch.inference_mode():
        found = attend_newest(c.q.cuda(), c.k.cuda(), c.v.cuda(), c.tables.cuda(), ends, Scoring(**options))
    near = 2**-6 if dtype == torch.bfloat16 else 1e-5
    assert (found.cpu().double() - exact(c)).abs().max() < near * exact(c).abs().max()
