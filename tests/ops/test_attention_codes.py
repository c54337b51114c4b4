"""Attention over packed pages, native and written out, against float64 over the numbers that codes count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_paged import ADDED, GROUPS, LEVELS, SIGHTS, WIDTHS, Case, assert_near, case, exact, needs_kernels

from native import on_threads
from pellucid.cache.batch import Batch
from pellucid.cache.cache import Cache
from pellucid.errors import ArgumentError
from pellucid.ops.codes import Codes, pack
from pellucid.ops.cpu import paged as native
from pellucid.ops.paged import attend_gathered
from pellucid.ops.scoring import Scoring


def packed(c: Case, bits: int, *, keep: int = 2) -> tuple[Case, Case]:
    """The case with all but the last pages of each row in few bits; and what it is in float64, without codes."""
    k, v = c.k.clone(), c.v.clone()
    codes = Codes(pack(c.k, bits, over=1), pack(c.v, bits, over=3), bits)
    tables, wide_k, wide_v = c.tables.clone(), c.k.double(), c.v.double()
    for b, end in enumerate(c.ends):
        for page in tables[b, : max(0, -(-end // c.k.shape[1]) - keep)].tolist():
            wide_k[page], wide_v[page] = (x[0] for x in codes.of(torch.tensor([page]), torch.float64))
            k[page] = v[page] = float("nan")  # they are read from codes alone
        gone = tables[b, : max(0, -(-end // c.k.shape[1]) - keep)]
        gone.copy_(-1 - gone)
    wide = replace(c, q=c.q.double(), k=wide_k, v=wide_v)
    return replace(c, k=k, v=v, tables=tables, options=c.options | {"codes": codes}), wide


@pytest.mark.parametrize("level", [*LEVELS, "written out"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_against_the_definition(level: str, dtype: torch.dtype, bits: int, widths: tuple[int, int]) -> None:
    """Rows of packed pages, of both kinds in one tile, and of none; for one query and for many."""
    turn = WIDTHS.index(widths)
    kv_heads, group = GROUPS[turn % 3]
    sight = SIGHTS[turn % 4]
    c = case(
        [1, 3, 0, 40], [1, 77, 20, 150], kv_heads=kv_heads, group=group, widths=widths, dtype=dtype,
        page=(16, 32, 6)[turn % 3], added=ADDED[(turn + bits) % 5], **sight,
    )  # fmt: skip
    few, wide = packed(c, bits)
    found = few(attend_gathered) if level == "written out" else few(native.attend_paged, level=level)
    wanted = exact(wide)
    if level == "written out" and dtype == torch.bfloat16:  # all are rounded before they are used
        assert (found.double() - wanted).abs().mean() < 2**-5 * wanted.abs().mean()
    else:
        assert_near(found, wanted)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [8, 4])
def test_bits_are_a_querys_own(dtype: torch.dtype, level: str, bits: int) -> None:
    """In any company, on any threads, and one by one as in a prompt."""
    lengths, ends = [1, 30, 2], [200, 190, 64]
    few, _ = packed(case(lengths, ends, group=3, widths=(40, 72), dtype=dtype), bits)
    with on_threads(3):
        together = few(native.attend_paged, level=level).split(lengths)
    with on_threads(1):
        for b, q in enumerate(few.q.split(lengths)):
            for t in range(0, lengths[b], 7):
                one = replace(
                    few, q=q[t : t + 1], tables=few.tables[b : b + 1], lengths=[1], ends=[ends[b] - lengths[b] + t + 1]
                )
                assert torch.equal(one(native.attend_paged, level=level)[0], together[b][t])


@needs_kernels
@pytest.mark.parametrize("changes", [{"bits": 4}, {"k": None}, {"page": 7}], ids=str)
def test_codes_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    few, _ = packed(case([1], [80]), 8)
    codes: Codes = few.options["codes"]
    if "bits" in changes:
        codes = replace(codes, bits=4)
    elif "k" in changes:
        codes = replace(codes, k=codes.v)
    else:
        codes = Codes(pack(few.k[:, :7], 8, over=1), pack(few.v[:, :7], 8, over=3), 8)
    with pytest.raises(ArgumentError, match="do not fit"):
        replace(few, options=few.options | {"codes": codes})()


@needs_kernels
def test_a_page_of_codes_that_is_not_there() -> None:
    few, _ = packed(case([1], [80]), 8)
    few.tables[0, 0] = -1 - len(few.k)
    with pytest.raises(ArgumentError, match="every page that a query sees"):
        few()


@torch.inference_mode()
@pytest.mark.parametrize("quantized", ["int8", "int4"])
def test_a_cache_is_read_in_place(quantized: str) -> None:
    """What the kernel reads from the tables of a cache is what its rows give back, token by token."""
    cache, chance = Cache(2, quantized=quantized), torch.Generator().manual_seed(0)
    lengths = [300, 170]
    for step in range(3):
        fresh = torch.randn(sum(lengths), 2, 24, generator=chance)
        ends = [row.length + n for row, n in zip(cache.rows, lengths)]
        batch = Batch(lengths, torch.cat([torch.arange(e - n, e) for e, n in zip(ends, lengths)]), ends, cache)
        places = batch.places(None)
        pool = places.write(0, fresh, fresh.flip(0))
        q = torch.randn(sum(lengths), 4, 24, generator=chance)
        rows = [places.read(0, b) for b in range(2)]
        codes = places.codes(0)
        assert (codes is None) == (step == 0)
        tables = places.of_rows((0, 1), lengths)[2]
        found = attend_gathered(q, *pool, tables, lengths, places.ends, Scoring(0.3), codes)
        whole = [torch.cat([row[i] for row in rows])[:, None] for i in range(2)]  # a page for each token
        every = torch.arange(sum(ends), dtype=torch.int32).split(ends)
        alone = torch.zeros(2, max(ends), dtype=torch.int32)
        for b, numbers in enumerate(every):
            alone[b, : len(numbers)] = numbers
        wanted = attend_gathered(q, *whole, alone, lengths, ends, Scoring(0.3))
        assert torch.allclose(found, wanted, atol=1e-5)
        if native.library() is not None:
            assert_near(native.attend_paged(q, *pool, tables, lengths, ends, Scoring(0.3), codes), wanted.double())
        batch.finish()
        lengths = [1, 3]
