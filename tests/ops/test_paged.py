"""Paged attention, native and written out, against pattern and mix in float64; and that a query's bits are its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from native import needs_kernels as native_kernels
from native import on_threads, skip_where_they_cannot_be_built
from pellucid.errors import ArgumentError
from pellucid.ops.attention import mix, pattern, visible
from pellucid.ops.cpu import paged as native
from pellucid.ops.paged import attend_gathered, attend_paged, empty_pages, write_paged
from pellucid.ops.scoring import Scoring

library = native.library()
BUILT = library is not None
needs_kernels = native_kernels(BUILT)
LEVELS = [
    pytest.param(
        level,
        marks=pytest.mark.skipif(
            library is None or not library.pellucid_attends(native.LEVELS[level]),
            reason=f"no native kernels, or a processor without {level}",
        ),
    )
    for level in ("avx2", "avx512", "dot")
]
WIDTHS = [(7, 7), (40, 40), (64, 64), (80, 80), (128, 64), (24, 56), (256, 256)]  # of keys and values
GROUPS = [(2, 1), (1, 4), (2, 7)]  # key heads, queries that share one
SIGHTS = [{}, {"window": 9}, {"chunk": 33}, {"window": 70, "cap": 2.0}]
ADDED = [(), ("sinks_H",), ("slopes_H",), ("bias",), ("sinks_H", "slopes_H", "bias")]
NEAR = {torch.float32: 2e-6, torch.bfloat16: 2**-8}  # of the largest number


@dataclass(frozen=True)
class Case:
    """A call, over pages that lie anywhere in the pool."""

    q: Tensor
    k: Tensor
    v: Tensor
    tables: Tensor
    lengths: list[int]
    ends: list[int]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, attend: Any = attend_paged, **more: Any) -> Tensor:
        with torch.inference_mode():
            options = dict(self.options)
            if "codes" in options:
                more["codes"] = options.pop("codes")
            scoring = Scoring(**options)
            return attend(self.q, self.k, self.v, self.tables, self.lengths, self.ends, scoring, **more)


def case(
    lengths: list[int],
    ends: list[int],
    *,
    kv_heads: int = 2,
    group: int = 2,
    widths: tuple[int, int] = (16, 16),
    page: int = 16,
    dtype: torch.dtype = torch.float32,
    added: tuple[str, ...] = (),
    seed: int = 0,
    **options: Any,
) -> Case:
    chance = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance)

    heads, entries = kv_heads * group, -(-max(ends) // page)
    pages = len(ends) * entries + 3
    options["scale"] = widths[0] ** -0.5
    for name in added:
        options[name] = [noise(heads, t, s) for t, s in zip(lengths, ends)] if name == "bias" else noise(heads)
    if "slopes_H" in options:
        options["slopes_H"] = options["slopes_H"] / 8
    return Case(
        noise(sum(lengths), heads, widths[0]).to(dtype),
        noise(pages, page, kv_heads, widths[0]).to(dtype),
        noise(pages, page, kv_heads, widths[1]).to(dtype),
        torch.randperm(pages, generator=chance)[: len(ends) * entries].view(len(ends), entries).int(),
        lengths,
        ends,
        options,
    )


def exact(c: Case) -> Tensor:
    """Pattern and mix in float64, row by row, from the tokens of its pages in order."""
    o, rows = c.options, []
    slopes_H, sinks_H = o.get("slopes_H"), o.get("sinks_H")
    for b, (q, T, S) in enumerate(zip(c.q.split(c.lengths), c.lengths, c.ends)):
        k, v = (pool[c.tables[b].long()].flatten(0, 1)[None, :S].double() for pool in (c.k, c.v))
        bias = o["bias"][b].double() if "bias" in o else torch.zeros(q.shape[1], T, S, dtype=torch.float64)
        if slopes_H is not None:
            bias = bias + slopes_H.double()[:, None, None] * (torch.arange(S) - torch.arange(S - T, S)[:, None])
        allow = visible(T, S, end=S, device=q.device, window=o.get("window"), chunk=o.get("chunk"))
        share = pattern(
            q[None].double(), k, scale=o["scale"], allow_TS=allow, bias_HTS=bias, cap=o.get("cap"), sinks_H=sinks_H
        )
        rows.append(mix(share, v)[0])
    return torch.cat(rows)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    assert (found.double() - wanted).abs().max() <= NEAR[found.dtype] * wanted.abs().max()


@pytest.fixture(params=[2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with on_threads(request.param) as count:
        yield count


def test_kernels_are_built_where_they_can_be() -> None:
    skip_where_they_cannot_be_built()
    assert BUILT


@pytest.mark.parametrize("level", [*LEVELS, "written out"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_against_the_definition(level: str, dtype: torch.dtype, widths: tuple[int, int]) -> None:
    """Ragged rows, one of them without queries; every sight, with all that is added to scores in turns."""
    turn = WIDTHS.index(widths)
    kv_heads, group = GROUPS[turn % 3]
    for i, sight in enumerate(SIGHTS):
        for added in (ADDED[(turn + i) % 5], ADDED[(turn + i + 2) % 5]):
            c = case(
                [1, 3, 0, 40], [1, 77, 20, 150], kv_heads=kv_heads, group=group, widths=widths, dtype=dtype,
                page=(16, 32, 5)[turn % 3], added=added, **sight,
            )  # fmt: skip
            found = c(attend_gathered) if level == "written out" else c(native.attend_paged, level=level)
            assert found.dtype == dtype and found.shape == (44, kv_heads * group, widths[1])
            if level == "written out" and dtype == torch.bfloat16:  # shares and biases are rounded before they are used
                assert (found.double() - exact(c)).abs().mean() < 2**-5 * exact(c).abs().mean()
            else:
                assert_near(found, exact(c))


@needs_kernels
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 200)), min_size=1, max_size=6),
    st.integers(1, 70),
    st.sampled_from([None, 1, 7, 64, 65, 1000]),
    st.sampled_from([None, 8, 100]),
    st.sampled_from(["avx2", "best"]),
    st.integers(0, 99),
)
def test_any_pages_and_lengths(
    rows: list[tuple[int, int]], page: int, window: int | None, chunk: int | None, level: str, seed: int
) -> None:
    lengths, ends = [min(t, s) for t, s in rows], [s for _, s in rows]
    c = case(lengths, ends, page=page, window=window, chunk=chunk, seed=seed)
    if sum(lengths):
        assert_near(c(native.attend_paged, level=level), exact(c))
    else:
        assert c().shape == (0, 4, 16)


# ------------------------------------------------------------------------------ a query's bits are its own


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_bits_do_not_depend_on_company_or_threads(
    dtype: torch.dtype, group: int, sight: dict[str, Any], threads: int
) -> None:
    lengths, ends = [1, 7, 1, 70, 2], [300, 64, 1, 200, 130]
    whole = case(
        lengths, ends, kv_heads=5, group=group, widths=(40, 72), dtype=dtype, added=("sinks_H", "slopes_H", "bias"),
        **sight,
    )  # fmt: skip
    together = whole().split(lengths)
    torch.set_num_threads(1)
    for b, q in enumerate(whole.q.split(lengths)):
        options = whole.options | {"bias": [whole.options["bias"][b]]}
        alone = replace(
            whole, q=q, tables=whole.tables[b : b + 1], lengths=[lengths[b]], ends=[ends[b]], options=options
        )
        assert torch.equal(alone(), together[b])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_several_queries_have_the_bits_of_single_steps(dtype: torch.dtype, level: str, sight: dict[str, Any]) -> None:
    """So a speculation that verifies many tokens at once agrees with plain decoding to the bit."""
    T, S = 70, 150
    many = case([T], [S], group=3, widths=(24, 40), dtype=dtype, added=("sinks_H", "slopes_H", "bias"), **sight)
    together = many(native.attend_paged, level=level)
    for t in range(T):
        end = S - T + t + 1
        options = many.options | {"bias": [many.options["bias"][0][:, t : t + 1, :end]]}
        single = replace(many, q=many.q[t : t + 1], lengths=[1], ends=[end], options=options)
        assert torch.equal(single(native.attend_paged, level=level)[0], together[t])


@needs_kernels
def test_bits_do_not_depend_on_where_pages_lie() -> None:
    for seed in range(5):
        c = case([1, 5], [100, 77], dtype=torch.bfloat16)
        moved = torch.randperm(len(c.k), generator=torch.Generator().manual_seed(seed))
        back = moved.argsort()
        elsewhere = replace(c, k=c.k[moved], v=c.v[moved], tables=back[c.tables.long()].int())
        assert torch.equal(elsewhere(), c())


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bits_do_not_depend_on_whether_tokens_or_heads_lie_together(dtype: torch.dtype) -> None:
    c = case([1, 3, 12], [200, 77, 90], group=4, widths=(64, 64), dtype=dtype)
    pages = [empty_pages(len(x), x.shape[1], x[0]) for x in (c.k, c.v)]
    assert pages[0].stride() != c.k.stride(), "the kernel's pages keep a head's tokens together"
    k, v = (page.copy_(x) for page, x in zip(pages, (c.k, c.v)))
    assert torch.equal(replace(c, k=k, v=v)(), c())


# ------------------------------------------------------------------------------ what is not seen is not touched


@pytest.mark.parametrize("attend", [pytest.param(native.attend_paged, marks=needs_kernels), attend_gathered])
@pytest.mark.parametrize("sight", [{}, {"window": 20}, {"chunk": 64}], ids=str)
def test_unseen_pages_are_not_touched(attend: Any, sight: dict[str, Any]) -> None:
    """Pages that no query sees are not in the table, and the rest of the pool holds anything."""
    c = case([1, 3], [80, 100], page=8, **sight)
    kept = torch.zeros(len(c.k), 8, dtype=torch.bool)
    tables = c.tables.clone()
    for b, (length, end) in enumerate(zip(c.lengths, c.ends)):
        position = end - length
        first = max(
            0, position - sight.get("window", end) + 1, position // sight.get("chunk", end) * sight.get("chunk", 0)
        )
        tables[b, : first // 8] = -1
        tables[b, -(-end // 8) :] = -1
        for token in range(first // 8 * 8, end):
            kept[tables[b, token // 8], token % 8] = True
    k, v = c.k.clone(), c.v.clone()
    k[~kept], v[~kept] = float("nan"), float("nan")
    found = replace(c, k=k, v=v, tables=tables)(attend)
    if attend is native.attend_paged:
        assert torch.equal(found, c(attend))
    else:
        assert_near(found, exact(c))


@needs_kernels
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_stays_in_its_row(bad: float) -> None:
    c = case([1, 1, 2], [40, 100, 70], widths=(16, 40))
    page, place = c.tables[1, 3], 5
    for pool in ("k", "v"):
        spoilt = getattr(c, pool).clone()
        spoilt[page, place] = bad
        found = replace(c, **{pool: spoilt})()
        clean = c()
        assert torch.equal(found[[0, 2, 3]], clean[[0, 2, 3]])
        assert not torch.equal(found[1], clean[1])
        if bad != bad:
            assert found[1].isnan().all()


@needs_kernels
def test_a_bias_may_hide_keys() -> None:
    """Whole tiles of them, from the first on; and what the query sees is all that counts."""
    for hidden in (slice(0, 190), slice(3, 200)):
        c = case([1], [200], added=("bias",))
        c.options["bias"][0][..., hidden] = float("-inf")
        assert_near(c(), exact(c))


@needs_kernels
def test_large_scores() -> None:
    c = case([2], [90])
    large = replace(c, q=c.q * 1e4)
    assert_near(large(), exact(large))


# ------------------------------------------------------------------------------ layouts


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_may_be_the_first_channels_of_keys(dtype: torch.dtype) -> None:
    """Latent attention: one key head for all, whose values lie in it. More queries than one pass takes."""
    c = case([3], [70], kv_heads=1, group=20, widths=(72, 64), dtype=dtype)
    shared = replace(c, v=c.k[..., :64])
    assert_near(shared(), exact(shared))
    assert torch.equal(shared(), replace(c, v=c.k[..., :64].contiguous())())


@needs_kernels
def test_steps_of_queries_and_pools() -> None:
    """A layer's pool in the middle of a larger tensor, queries out of a wider one, a bias that is a view."""
    c = case([1, 2], [50, 40], widths=(24, 24))
    k = torch.randn(len(c.k), 16, 5, 2, 48)
    k[:, :, 2, :, :24] = c.k
    q = torch.randn(3, 4, 30)
    q[..., :24] = c.q
    bias = [torch.randn(4, 1, end).expand(-1, length, -1) for length, end in zip(c.lengths, c.ends)]
    given = c.options | {"bias": bias}
    dense = replace(c, options=c.options | {"bias": [x.contiguous() for x in bias]})
    assert torch.equal(replace(c, q=q[..., :24], k=k[:, :, 2, :, :24], options=given)(), dense())


# ------------------------------------------------------------------------------ dispatch, and calls that are wrong


def test_gradients_go_through_the_written_form() -> None:
    c = case([2], [20])
    q = c.q.clone().requires_grad_()
    attend_paged(q, c.k, c.v, c.tables, c.lengths, c.ends, Scoring(1.0)).sum().backward()
    assert q.grad is not None and q.grad.abs().sum() > 0


def test_other_dtypes_take_the_written_form() -> None:
    c = case([1, 2], [50, 40], dtype=torch.float64)
    assert (c() - exact(c)).abs().max() < 1e-12


@needs_kernels
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tables": torch.tensor([[0, -1, 1]], dtype=torch.int32)}, "row 0: 1 queries at the end of 40 tokens"),
        ({"tables": torch.tensor([[0, 1, 99]], dtype=torch.int32)}, r"pages \[0, 1, 99\]"),
        ({"tables": torch.tensor([[0, 1, 2]])}, "int64"),
        ({"ends": [49]}, "49 tokens"),
        ({"ends": [40, 40]}, "2 ends"),
        ({"lengths": [2]}, "1 queries for rows of 2"),
        ({"q": torch.randn(1, 3, 16)}, "do not fit"),
        ({"v": torch.randn(6, 8, 2, 16)}, "do not fit"),
        ({"options": {"scale": 1.0, "sinks_H": torch.zeros(3)}}, "4 heads"),
        ({"options": {"scale": 1.0, "bias": [torch.zeros(4, 1, 39)]}}, "bias of row 0"),
    ],
)
def test_what_does_not_belong_together_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        replace(case([1], [40]), **wrong)()


# ------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 33])
def test_writing(dtype: torch.dtype, tokens: int) -> None:
    pools = torch.randn(5, 8, 3, 20).to(dtype), torch.randn(5, 8, 3, 12).to(dtype)
    fresh = torch.randn(tokens, 3, 20).to(dtype), torch.randn(tokens, 3, 12).to(dtype)
    slots = torch.randperm(40)[:tokens]
    wanted = [pool.clone() for pool in pools]
    for pool, new in zip(wanted, fresh):
        pool.view(40, 3, -1)[slots] = new
    write_paged(*pools, slots, *fresh)
    assert torch.equal(pools[0], wanted[0]) and torch.equal(pools[1], wanted[1])


def test_writing_what_lies_apart() -> None:
    both = torch.zeros(5, 8, 2, 3, 12)
    fresh = torch.randn(4, 2, 3, 12)
    slots = torch.tensor([39, 0, 17, 8])
    write_paged(both[:, :, 0], both[:, :, 1], slots, fresh[:, 0], fresh[:, 1])
    assert torch.equal(both.view(40, 2, 3, 12)[slots], fresh)
    assert both.count_nonzero() == fresh.count_nonzero()


@needs_kernels
@pytest.mark.parametrize("slot", [-1, 40])
def test_there_is_no_such_slot(slot: int) -> None:
    with pytest.raises(ArgumentError, match=f"slot {slot} for token 1"):
        write_paged(
            torch.zeros(5, 8, 1, 2), torch.zeros(5, 8, 1, 2), torch.tensor([3, slot]), torch.ones(2, 1, 2),
            torch.ones(2, 1, 2),
        )  # fmt: skip


@needs_kernels
def test_writing_refuses_what_does_not_fit() -> None:
    with pytest.raises(ArgumentError, match="do not fit"):
        write_paged(
            torch.zeros(5, 8, 1, 2), torch.zeros(5, 8, 1, 2), torch.tensor([3]), torch.ones(1, 1, 2),
            torch.ones(1, 2, 2),
        )  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_keys_and_values_in_float16(level: str, widths: tuple[int, int]) -> None:
    """The bits of the same numbers in float32; few queries and many, and each beside what is added to its scores."""
    for i, added in enumerate(ADDED):
        wide = case([1, 3, 0, 40], [1, 77, 20, 150], kv_heads=3, widths=widths, page=16, added=added, **SIGHTS[i % 4])
        narrow = replace(wide, k=wide.k.half(), v=wide.v.half())
        same = replace(narrow, k=narrow.k.float(), v=narrow.v.float())
        assert native.takes(narrow.q, narrow.k, narrow.v)
        found = narrow(native.attend_paged, level=level)
        assert torch.equal(found, same(native.attend_paged, level=level))
        assert torch.allclose(found, narrow(attend_gathered), atol=1e-5)


def test_writing_without_the_kernel_knows_both_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "writes", lambda *pools_and_new: False)
    chance, slots = torch.Generator().manual_seed(0), torch.tensor([33, 5, 9])
    new = torch.randn(3, 2, 8, generator=chance)
    by_tokens = torch.zeros(3, 16, 2, 8), torch.zeros(3, 16, 2, 8)
    by_heads = tuple(torch.zeros(3, 2, 16, 8).transpose(1, 2) for _ in range(2))
    for pools in (by_tokens, by_heads):
        write_paged(*pools, slots, new, -new)
    assert torch.equal(by_tokens[0][2, 1], new[0]) and torch.equal(by_tokens[1][0, 9], -new[2])
    assert all(torch.equal(x, y) for x, y in zip(by_tokens, by_heads))
