"""Rows of a cache against a list of everything that was written: growing, sliding, forked, trimmed, interrupted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE
from pellucid.cache.row import SPARE, Row
from pellucid.errors import ArgumentError


def tokens(first: int, count: int) -> torch.Tensor:
    """[T, 1, 1] numbers that say which token they are."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None, None]


def grow(row: Row, count: int, window: int | None) -> torch.Tensor:
    """One forward of a layer with a window and one without, and a recurrent layer."""
    new = tokens(row.length, count)
    seen, values = row.write(0, new, -new, window)
    assert torch.equal(seen, -values)
    whole, _ = row.write(1, new, new)
    assert whole[:, 0, 0].tolist() == list(range(row.length + count))
    row.length += count
    row.position += count
    row.commit()
    return seen[:, 0, 0].clone()


@settings(max_examples=60, deadline=None)
@given(window=st.integers(1, 40), pieces=st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_a_sliding_row_keeps_what_its_window_asks_for(window: int, pieces: list[int]) -> None:
    row = Row()
    for count in pieces:
        seen = grow(row, count, window)
        needed = min(row.length, window + count - 1)
        assert seen[-needed:].tolist() == list(range(row.length - needed, row.length))
    row.slide(window)
    assert len(row.held()) <= (window + SPARE) // PAGE + 2 + len(row.tables[None].pages)
    row.home.check()


@settings(max_examples=60, deadline=None)
@given(window=st.integers(1, 40), pieces=st.lists(st.integers(1, 90), min_size=1, max_size=12), back=st.integers(0, 80))
def test_a_trimmed_row_goes_on_or_says_why_not(window: int, pieces: list[int], back: int) -> None:
    row = Row()
    for count in pieces:
        grow(row, count, window)
    back = min(back, row.length)
    fork = row.copy()
    try:
        row.trim(row.length - back)
    except ArgumentError as error:
        assert "window" in str(error)
        assert back > 0
        return
    seen = grow(row, 3, window)
    needed = min(row.length, window + 2)
    assert seen[-needed:].tolist() == list(range(row.length - needed, row.length))
    assert fork.length == sum(pieces)
    grow(fork, 1, window)


def test_states_count_when_the_forward_has_finished() -> None:
    row = Row()
    row.keep(0, (torch.ones(2),))
    assert row.state(0) is None
    row.length = 4
    row.commit()
    row.keep(0, (torch.zeros(2),))  # of a forward that fails
    kept = row.state(0)
    assert kept is not None
    assert kept[0].tolist() == [1, 1]


def test_a_recurrent_row_cannot_go_back() -> None:
    cache = Cache(1)
    row = cache.rows[0]
    row.keep(0, (torch.ones(2),))
    row.length = 4
    row.commit()
    with pytest.raises(ArgumentError, match="recurrent state cannot go back"):
        cache.trim(0, 3)
    fork = cache.rows[cache.fork(0)]
    fork.keep(0, (torch.zeros(2),))
    fork.commit()
    kept = cache.rows[0].state(0)
    assert kept is not None and kept[0].tolist() == [1, 1]
    cache.trim(0, 0)
    assert cache.rows[0].state(0) is None
    assert cache.nbytes == fork.states[0][0].nbytes


@pytest.mark.parametrize("index", [2, -1])
def test_rows_that_there_are_not(index: int) -> None:
    cache = Cache(2)
    for ask in (cache.fork, lambda i: cache.trim(i, 0), lambda i: cache.select([0, i])):
        with pytest.raises(ArgumentError, match="of a cache of 2"):
            ask(index)
    assert len(cache) == 2


@pytest.mark.parametrize("prompt", [1, PAGE, 40 * PAGE])
def test_pools_do_not_move_before_as_much_follows_as_there_was(prompt: int) -> None:
    """A recorded step holds their addresses: steps behind a prompt of whole pages were recorded anew at once."""
    row = Row()
    grow(row, prompt, None)
    before = row.home.group(None).pools[1][0].data_ptr()
    for _ in range(prompt):
        grow(row, 1, None)
    assert row.home.group(None).pools[1][0].data_ptr() == before
