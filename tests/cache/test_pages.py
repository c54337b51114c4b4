"""Pages under random use, against plain lists: what a row reads is what was written for it, whoever shares it.

The value of a token depends on all tokens up to it, as keys do in a model, so that a page of another text is noticed.
"""

from __future__ import annotations

import zlib

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pellucid.cache.batch import Batch
from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE
from pellucid.cache.pages import Pages
from pellucid.cache.row import Row
from pellucid.errors import ArgumentError

FULL, SLIDING, STATE = 0, 1, 2  # layers


def values(ids: list[int]) -> list[float]:
    """One number for each token, of all ids up to it."""
    found, sum = [], 0
    for token in ids:
        sum = zlib.crc32(bytes([token]), sum)
        found.append(float(sum % 2**20))
    return found


def run(pages: Pages, rows: list[tuple[Row, list[int]]], new: list[list[int]], window: int, stateful: bool) -> None:
    """A forward of two layers, and perhaps a recurrence; the ids join the lists."""
    cache = Cache(0, pages)
    cache.rows = [row for row, _ in rows]
    starts = [row.length for row, _ in rows]
    ends = [start + len(ids) for start, ids in zip(starts, new)]
    batch = Batch([len(ids) for ids in new], torch.zeros(sum(map(len, new))), ends, cache)
    expected = [values(ids + more) for (_, ids), more in zip(rows, new)]
    x_NJK = torch.tensor([x for all_, start in zip(expected, starts) for x in all_[start:]])[:, None, None]
    for layer, kind in ((FULL, None), (SLIDING, window)):
        places = batch.places(kind)
        places.write(layer, x_NJK, -x_NJK)
        for i, all_ in enumerate(expected):
            k_SJK, v_SJU = places.read(layer, i)
            seen = k_SJK[:, 0, 0].tolist()
            needed = len(all_) if kind is None else min(len(all_), window + len(new[i]) - 1)
            loss = 2**20 / 250 if pages.bits else 0
            assert seen[-needed:] == pytest.approx(all_[-needed:], abs=loss), f"layer {layer}, row {i}"
            assert torch.allclose(v_SJU, -k_SJK, rtol=0, atol=loss)
            table = places.table_tensor[i]
            for at in range(len(all_) - needed, len(all_) if places.in_place else 0):
                page = places.home.group(kind).pools[layer][0][int(table[at // PAGE])]
                assert page[at % PAGE, 0, 0] == all_[at]
    for i, (row, ids) in enumerate(rows):
        if stateful:
            before = row.state(STATE)
            assert (before is None) == (not ids)
            assert before is None or before[0].item() == values(ids)[-1]
            row.keep(STATE, (torch.tensor(expected[i][-1]),))
        ids += new[i]
    batch.finish()


class Use(RuleBasedStateMachine):
    """Rows that grow together, fork, are cut, dropped, published, and begin with what others have published."""

    @initialize(
        total=st.sampled_from([None, 12, 40]),
        window=st.sampled_from([1, 7, 70, 300]),
        stateful=st.booleans(),
        quantized=st.sampled_from([None, None, "int8"]),
        host=st.sampled_from([0, 3, 10]),
    )
    def begin(self, total: int | None, window: int, stateful: bool, quantized: str | None, host: int) -> None:
        host = host if total else 0
        self.pages = Pages(total, windows=(None, window), snapshots=3, quantized=quantized, host=host)
        self.window, self.stateful = window, stateful
        self.rows: list[tuple[Row, list[int]]] = []

    @rule(
        count=st.integers(1, 3), lengths=st.lists(st.integers(1, 150), min_size=3, max_size=3), token=st.integers(0, 1)
    )
    def grow(self, count: int, lengths: list[int], token: int) -> None:
        """Some rows at once; texts of few ids, so that prefixes agree."""
        while len(self.rows) < 2:
            self.rows.append((Row(self.pages), []))
        chosen, new = [], []
        for (row, ids), n in list(zip(self.rows, lengths))[:count]:
            before = {kind: self.pages.counts(kind) for kind in self.pages.groups}
            if self.pages.reserve(row, n):
                chosen.append((row, ids))
                new.append([token] * n)
            else:
                assert {kind: self.pages.counts(kind) for kind in self.pages.groups} == before or row.tables
        if chosen:
            run(self.pages, chosen, new, self.window, self.stateful)

    @precondition(lambda self: self.rows)
    @rule(at=st.integers(0, 9))
    def fork(self, at: int) -> None:
        row, ids = self.rows[at % len(self.rows)]
        self.rows.append((row.copy(), list(ids)))

    @precondition(lambda self: self.rows)
    @rule(at=st.integers(0, 9), back=st.integers(0, 200), all_=st.booleans())
    def trim(self, at: int, back: int, all_: bool) -> None:
        row, ids = self.rows[at % len(self.rows)]
        tokens = 0 if all_ else max(0, row.length - back)
        try:
            row.trim(tokens)
        except ArgumentError as error:
            assert ("recurrent" in str(error)) == self.stateful or "are free" in str(error)
        else:
            del ids[tokens:]
            assert row.length == row.position == tokens

    @precondition(lambda self: self.rows)
    @rule(at=st.integers(0, 9), explicit=st.booleans())
    def drop(self, at: int, explicit: bool) -> None:
        row, _ = self.rows.pop(at % len(self.rows))
        if explicit:
            row.drop()
        del row

    @precondition(lambda self: self.rows)
    @rule(at=st.integers(0, 9))
    def publish(self, at: int) -> None:
        row, ids = self.rows[at % len(self.rows)]
        row.publish(ids)

    @precondition(lambda self: self.rows)
    @rule(at=st.integers(0, 9), cut=st.integers(0, 100), more=st.integers(1, 40))
    def attach(self, at: int, cut: int, more: int) -> None:
        """A row with the beginning of another's text."""
        _, ids = self.rows[at % len(self.rows)]
        text = [*ids[: max(0, len(ids) - cut)], *[7] * more]
        row = Row(self.pages)
        found = row.attach(text)
        assert found % PAGE == 0 and found < len(text)
        self.rows.append((row, text[:found]))
        if self.pages.reserve(row, len(text) - found):
            run(self.pages, [self.rows[-1]], [text[found:]], self.window, self.stateful)

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "pages"):
            self.pages.check()

    def teardown(self) -> None:
        if not hasattr(self, "pages"):
            return
        self.rows.clear()
        self.pages.check()
        assert all(self.pages.counts(kind)["held"] == 0 for kind in self.pages.groups)


TestUse = Use.TestCase
TestUse.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def text(pages: Pages, ids: list[int], window: int = 70) -> Row:
    row = Row(pages)
    run(pages, [(row, [])], [ids], window, stateful=False)
    return row


def test_a_prefix_is_found_again_and_only_where_every_id_is_the_same() -> None:
    pages = Pages(windows=(None, 70))
    ids = [i % 200 for i in range(5 * PAGE + 3)]
    text(pages, ids).publish(ids)
    assert Row(pages).attach(ids) == 5 * PAGE
    assert Row(pages).attach(ids[: 5 * PAGE]) == 4 * PAGE  # one token is left to run
    assert Row(pages).attach([*ids[: 2 * PAGE], 201, *ids[2 * PAGE + 1 :]]) == 2 * PAGE
    assert Row(pages).attach([201, *ids[1:]]) == 0
    assert Row(pages).attach(ids, salt="an adapter") == 0
    pages.check()


def test_the_longest_unused_prefix_gives_way() -> None:
    pages = Pages(8, windows=(None, 70))
    first, second, third = ([token] * (2 * PAGE + 1) for token in (1, 2, 3))
    for ids in (first, second):
        text(pages, ids).publish(ids)
    assert pages.counts() == {"free": 4, "held": 0, "cached": 4, "total": 8}
    row = Row(pages)
    assert row.attach(first) == 2 * PAGE  # used again
    row.drop()
    text(pages, [token for ids in (third, third) for token in ids])  # needs five
    assert Row(pages).attach(first) == 2 * PAGE
    assert Row(pages).attach(second) < 2 * PAGE
    pages.check()


def test_what_gives_way_to_the_host_comes_back() -> None:
    """Two texts of two pages where there is room for one and a half; then more than the host holds."""
    pages = Pages(3, windows=(None, 70), host=3)
    first, second, third = ([token] * (2 * PAGE) for token in (1, 2, 3))
    for ids in (first, second):
        text(pages, ids).publish(ids)
        pages.check()
    assert pages.counts(("host", None))["cached"] == 1
    for ids in (first, second, first):
        row, own = Row(pages), ids[:]
        assert row.attach([*ids, 9]) == 2 * PAGE
        run(pages, [(row, own)], [[9]], 70, stateful=False)  # reads what it began with
        pages.check()
        del row
    text(pages, third).publish(third)
    assert Row(pages).attach([*third, 9]) == 2 * PAGE
    pages.check()
    assert sum(Row(pages).attach([*ids, 9]) for ids in (first, second, third)) > 2 * 2 * PAGE


def test_what_is_on_the_host_and_finds_no_room_is_computed() -> None:
    pages = Pages(2, host=2)
    row, ids = Row(pages), [1] * (2 * PAGE + 1)
    x = torch.zeros(2 * PAGE, 1, 1)
    row.write(0, x, x)
    row.length = 2 * PAGE
    row.publish(ids)
    row.drop()
    other = Row(pages)
    other.room(None, PAGE)
    assert row.attach(ids) == 0
    other.drop()
    assert row.attach(ids) == 2 * PAGE
    pages.check()


def test_the_host_helps_only_where_there_is_a_limit() -> None:
    with pytest.raises(ArgumentError, match="without limit"):
        Pages(host=3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory beside an accelerator's needs one")
def test_an_accelerators_pages_come_back_from_pinned_memory() -> None:
    pages = Pages(2, host=2)
    row, ids = Row(pages), [1] * (2 * PAGE)
    x = torch.randn(2 * PAGE, 2, 8, device="cuda")
    row.write(0, x, -x)
    row.length = 2 * PAGE
    row.publish(ids)
    row.drop()
    Row(pages).room(None, 2 * PAGE)
    assert pages.hosted(None).pools[0][0].is_pinned()
    assert row.attach([*ids, 2]) == 2 * PAGE
    assert torch.equal(row.read(0, None, 2 * PAGE)[0], x)


def test_no_room_is_said_before_anything_is_taken() -> None:
    pages = Pages(4)
    row, other = Row(pages), Row(pages)
    assert pages.reserve(row, 3 * PAGE)
    assert not pages.reserve(other, 2 * PAGE)
    assert not other.tables
    assert pages.reserve(other, PAGE)
    with pytest.raises(ArgumentError, match="0 of 4 are free"):
        other.room(None, 2 * PAGE)
    pages.check()


def test_states_are_shared_where_a_page_ends() -> None:
    """A recurrent row begins only where a state is known; the oldest states give way."""
    pages = Pages(snapshots=2)
    ids = list(range(4 * PAGE))
    row, text = Row(pages), []
    for piece in (ids[: 2 * PAGE], ids[2 * PAGE : 3 * PAGE], ids[3 * PAGE : 3 * PAGE + 5]):
        run(pages, [(row, text)], [piece], 70, stateful=True)
        row.publish(text)
    again = Row(pages)
    assert again.attach(ids) == 3 * PAGE
    assert again.states.keys() == {STATE}
    assert Row(pages).attach(ids[: 3 * PAGE]) == 2 * PAGE
    for token in (100, 101):
        other = Row(pages)
        run(pages, [(other, [])], [[token] * PAGE], 70, stateful=True)
        other.publish([token] * PAGE)
    assert Row(pages).attach(ids) == 0
    pages.check()


def test_rows_of_two_caches_do_not_share_a_batch() -> None:
    one, two = Row(Pages()), Row(Pages())
    for row in (one, two):
        run(row.home, [(row, [])], [[1, 2]], 7, stateful=False)
    with pytest.raises(ArgumentError, match="rows of two caches"):
        run(one.home, [(one, [1, 2]), (two, [1, 2])], [[3], [3]], 7, stateful=False)


def test_a_published_page_is_not_written_again() -> None:
    """A row that is cut within a page that others may begin with, and goes on otherwise."""
    pages = Pages(windows=(None, 70))
    ids = [5] * (PAGE + 1)
    row, own = Row(pages), []
    run(pages, [(row, own)], [ids], 70, stateful=False)
    row.publish(ids)
    row.trim(PAGE - 3)
    del own[PAGE - 3 :]
    run(pages, [(row, own)], [[6] * 9], 70, stateful=False)
    other, text = Row(pages), ids[:PAGE]
    assert other.attach(ids) == PAGE
    run(pages, [(other, text)], [[5]], 70, stateful=False)
    pages.check()


def test_a_prefix_that_is_forgotten_leaves_no_pages_behind() -> None:
    pages = Pages(4, windows=(None, 70))
    ids = [5] * (2 * PAGE)
    text(pages, ids).publish(ids)
    assert pages.counts(70)["cached"] == 2
    Row(pages).room(None, 3 * PAGE)
    assert pages.counts(70)["cached"] == pages.counts(None)["cached"] == 1
