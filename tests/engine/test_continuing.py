"""A request that continues a cache reads what is new, and gives what it gives alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import reference as ref
from models import tiny
from pellucid.cache.extents import Cache
from pellucid.engine import runner
from pellucid.engine.runner import Request, generate, run

FAMILIES = ["llama", "gemma2", "gpt2", "mamba", "lfm2", "qwen3_next"]
TALK = tiny.ids(60).tolist()


def alone(model, ids: list[int]) -> list[int]:
    request = Request(ids=ids, max_new=7)
    generate(model, [request])
    return request.output


@pytest.mark.parametrize("family", FAMILIES)
def test_turn_by_turn_is_at_once(family: str) -> None:
    """Three turns with 5, 1 and 31 new tokens, past a sliding window; each answer is part of the next prompt."""
    model, cache, ids = tiny.make(family), Cache(1), TALK[:9]
    for more in (5, 1, 31):
        request = Request(ids=ids, max_new=7)
        list(run(model, [request], cache))
        assert request.output == alone(model, ids)
        assert cache.rows[0].length == len(ids) + 6  # all but the last token
        ids = [*ids, *request.output, *TALK[len(ids) : len(ids) + more]]


def test_rows_with_different_beginnings() -> None:
    model, cache, most = tiny.make("llama"), Cache(3), (1, 5, 3)
    first = [Request(ids=ids, max_new=n) for ids, n in zip((TALK[:9], TALK[9:12], TALK[20:41]), most)]
    for _ in run(model, first, cache):
        pass
    longer = [Request(ids=[*each.ids, *each.output[:-1], 5, 6], max_new=7) for each in first]
    for _ in run(model, longer, cache):
        pass
    assert [request.output for request in longer] == [alone(model, list(request.ids)) for request in longer]


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache, step = tiny.make("llama"), Cache(1), runner.step
    read: list[int] = []

    def counted(model, cache, rows, pieces, *rest):  # type: ignore[no-untyped-def]  # as step
        read.append(len(pieces[0]))
        return step(model, cache, rows, pieces, *rest)

    monkeypatch.setattr(runner, "step", counted)
    first = Request(ids=TALK[:20], max_new=3)
    list(run(model, [first], cache))
    list(run(model, [Request(ids=[*TALK[:20], *first.output, *TALK[:4]], max_new=2)], cache))
    assert read == [20, 1, 1, 5, 1]


def test_a_talk_that_is_left_goes_on() -> None:
    model, cache = tiny.make("llama"), Cache(1)
    request = Request(ids=TALK[:9], max_new=50)
    for _, _ in run(model, [request], cache):
        if len(request.output) == 4:
            break
    assert cache.rows[0].length == 9 + 3
    more = Request(ids=[*TALK[:9], *request.output[:3], 11, 12], max_new=7)
    list(run(model, [more], cache))
    assert more.output == alone(model, list(more.ids))


@pytest.mark.parametrize("held", [10, 17, 20])
@pytest.mark.parametrize("longer", [16, 18, 30])
def test_a_talk_that_outgrows_its_factors_is_read_again(held: int, longer: int, checkpoints: Path) -> None:
    """LongRoPE with 17 positions: keys turned for a short row are of no use to a longer one."""
    if held >= longer:
        pytest.skip("the cache has to be shorter than the prompt")
    case = ref.case("phi3", "longrope, crossing while it writes", "causal-lm")
    model, cache = ref.ours(case, ref.checkpoint(case, checkpoints)), Cache(1)
    ids = ref.inputs(case, batch=1, time=longer)["input_ids"].tolist()[0]
    list(run(model, [Request(ids=ids[:held], max_new=1)], cache))
    request = Request(ids=ids, max_new=7)
    list(run(model, [request], cache))
    assert request.output == alone(model, ids)
