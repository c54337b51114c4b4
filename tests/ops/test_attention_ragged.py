"""Attention over ragged rows, native and written out, against pattern and mix in float64; with the bits of pages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_paged import ADDED, GROUPS, LEVELS, WIDTHS, assert_near, needs_kernels
from torch import Tensor

from native import on_threads
from pellucid.errors import ArgumentError
from pellucid.ops.attention import mix, pattern, visible
from pellucid.ops.cpu import paged as native
from pellucid.ops.ragged import attend_ragged, attend_split
from pellucid.ops.scoring import Scoring

SIGHTS = [{}, {"causal": False}, {"causal": False, "window": 9}, {"causal": False, "chunk": 33, "cap": 2.0}]


@dataclass(frozen=True)
class Ragged:
    q: Tensor
    k: Tensor
    v: Tensor
    lengths: list[int]
    ends: list[int]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, attend: Any = attend_ragged, **more: Any) -> Tensor:
        with torch.inference_mode():
            return attend(self.q, self.k, self.v, self.lengths, self.ends, Scoring(**self.options), **more)


def ragged(
    lengths: list[int],
    ends: list[int],
    *,
    kv_heads: int = 2,
    group: int = 2,
    widths: tuple[int, int] = (16, 16),
    dtype: torch.dtype = torch.float32,
    added: tuple[str, ...] = (),
    seed: int = 0,
    **options: Any,
) -> Ragged:
    chance = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance)

    heads = kv_heads * group
    options["scale"] = widths[0] ** -0.5
    for name in added:
        options[name] = [noise(heads, t, s) for t, s in zip(lengths, ends)] if name == "bias" else noise(heads) / 16
    return Ragged(
        noise(sum(lengths), heads, widths[0]).to(dtype),
        noise(sum(ends), kv_heads, widths[0]).to(dtype),
        noise(sum(ends), kv_heads, widths[1]).to(dtype),
        lengths,
        ends,
        options,
    )


def exact(c: Ragged) -> Tensor:
    """Pattern and mix in float64, row by row."""
    o, rows = c.options, []
    slopes_H, sinks_H = o.get("slopes_H"), o.get("sinks_H")
    sight = {name: o[name] for name in ("causal", "window", "chunk") if name in o}
    for b, (q, k, v) in enumerate(zip(c.q.split(c.lengths), c.k.split(c.ends), c.v.split(c.ends))):
        T, S = len(q), len(k)
        if not T:
            continue
        bias = o["bias"][b].double() if "bias" in o else torch.zeros(q.shape[1], T, S, dtype=torch.float64)
        if slopes_H is not None:
            bias = bias + slopes_H.double()[:, None, None] * (torch.arange(S) - torch.arange(S - T, S)[:, None])
        allow = torch.ones(T, S, dtype=torch.bool)
        if sight != {"causal": False}:
            allow = visible(T, S, end=S, device=q.device, **sight)
        share = pattern(
            q[None].double(), k[None].double(), scale=o["scale"], allow_TS=allow, bias_HTS=bias, cap=o.get("cap"),
            sinks_H=sinks_H,
        )  # fmt: skip
        rows.append(mix(share, v[None].double())[0])
    return torch.cat(rows)


@pytest.mark.parametrize("level", [*LEVELS, "written out"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_against_the_definition(level: str, dtype: torch.dtype, widths: tuple[int, int]) -> None:
    """Rows of every length: one without queries, one with keys before its queries, one of several tiles."""
    turn = WIDTHS.index(widths)
    kv_heads, group = GROUPS[turn % 3]
    for i, sight in enumerate(SIGHTS):
        c = ragged(
            [1, 9, 0, 140, 17], [1, 77, 20, 140, 17], kv_heads=kv_heads, group=group, widths=widths, dtype=dtype,
            added=ADDED[(turn + i) % 5], **sight,
        )  # fmt: skip
        found = c(attend_split) if level == "written out" else c(native.attend_ragged, level=level)
        assert found.dtype == dtype and found.shape == (167, kv_heads * group, widths[1])
        if level == "written out" and dtype == torch.bfloat16:  # shares and biases are rounded before they are used
            assert (found.double() - exact(c)).abs().mean() < 2**-5 * exact(c).abs().mean()
        else:
            assert_near(found, exact(c))


@pytest.mark.parametrize("attend", [pytest.param(native.attend_ragged, marks=needs_kernels), attend_split])
def test_more_queries_than_keys(attend: Any) -> None:
    """Over an encoder's output, where every query sees every key."""
    c = ragged([40, 1, 3], [7, 5, 100], causal=False)
    assert_near(c(attend), exact(c))


@needs_kernels
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 90)), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([None, 1, 7, 64, 65, 1000]),
    st.sampled_from([None, 8, 100]),
    st.sampled_from(["avx2", "best"]),
    st.integers(0, 99),
)
def test_any_lengths(
    rows: list[tuple[int, int]], causal: bool, window: int | None, chunk: int | None, level: str, seed: int
) -> None:
    lengths, ends = [min(t, s) for t, s in rows], [s for _, s in rows]
    c = ragged(lengths, ends, causal=causal, window=window, chunk=chunk, seed=seed)
    if sum(lengths):
        assert_near(c(native.attend_ragged, level=level), exact(c))
    else:
        assert c().shape == (0, 4, 16)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_bits_do_not_depend_on_company_threads_or_pages(dtype: torch.dtype, sight: dict[str, Any], level: str) -> None:
    lengths, ends = [1, 7, 100, 33], [1, 80, 100, 40]
    c = ragged(lengths, ends, group=3, widths=(40, 24), dtype=dtype, **sight)
    with on_threads(3):
        together = c(native.attend_ragged, level=level).split(lengths)
    with on_threads(1):
        for b, (q, k, v) in enumerate(zip(c.q.split(lengths), c.k.split(ends), c.v.split(ends))):
            alone = replace(c, q=q, k=k, v=v, lengths=[lengths[b]], ends=[ends[b]])
            assert torch.equal(alone(native.attend_ragged, level=level), together[b])
            tables = torch.arange(len(k), dtype=torch.int32)[None].flip(1)  # a page for each token, the last first
            paged = native.attend_paged(
                q, k.flip(0)[:, None], v.flip(0)[:, None], tables, [len(q)], [len(k)], Scoring(**c.options), level=level
            )
            assert torch.equal(paged, together[b])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("group", [1, 4])
def test_a_prompt_has_the_bits_of_its_tokens_one_by_one(dtype: torch.dtype, group: int) -> None:
    """And so of every way to cut it into pieces."""
    T = 200
    c = ragged([T], [T], group=group, widths=(48, 80), dtype=dtype)
    whole = c()
    for t in range(0, T, 7):
        k, v = c.k[: t + 1], c.v[: t + 1]
        assert torch.equal(replace(c, q=c.q[t : t + 1], k=k, v=v, lengths=[1], ends=[t + 1])()[0], whole[t])


@needs_kernels
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_in_its_row(bad: float) -> None:
    """And in a key, with those that see it; a value's share may be zero, but that times infinity is not a number."""
    c = ragged([50, 50], [50, 50])
    clean = c()
    for name, others in (("k", [*range(30), *range(50, 100)]), ("v", range(50, 100))):
        spoilt = getattr(c, name).clone()
        spoilt[30] = bad
        found = replace(c, **{name: spoilt})()
        assert torch.equal(found[others], clean[others])
        assert not torch.equal(found[30:50], clean[30:50])


@needs_kernels
def test_keys_out_of_a_wider_tensor() -> None:
    """As a fused projection leaves them."""
    c = ragged([20, 31], [20, 31], causal=False, widths=(24, 24))
    both = torch.cat((c.k, c.v), dim=-1)
    assert torch.equal(replace(c, k=both[..., :24], v=both[..., 24:])(), c())
    both = torch.cat((c.q, c.k, c.v), dim=1)[:51]
    assert torch.equal(replace(c, k=both[:, 4:6], v=both[:, 6:])(), c())


@needs_kernels
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ends": [39]}, "do not fit"),
        ({"lengths": [2]}, "1 queries for rows of 2"),
        ({"lengths": [41], "q": torch.randn(41, 4, 16)}, "41 queries at the end of 40 tokens"),
        ({"q": torch.randn(1, 3, 16)}, "do not fit"),
        ({"q": torch.randn(1, 4, 17)}, "do not fit"),
        ({"ends": [30, 10]}, "2 ends"),
    ],
)
def test_what_does_not_belong_together_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        replace(ragged([1], [40]), **wrong)()
