"""A request that continues a sequence reads what is new, and gives what it gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import reference as ref
from models import tiny
from pellucid.engine import runner
from pellucid.engine.engine import Engine, generate
from pellucid.engine.request import Request
from pellucid.engine.sequence import Seq

FAMILIES = ["llama", "gemma2", "gpt2", "mamba", "lfm2", "qwen3_next"]
TALK = tiny.ids(60).tolist()


def alone(model: Any, ids: list[int]) -> list[int]:
    ((output,),) = generate(model, [Request(ids=ids, max_new=7)])
    return output.ids


def go_on(engine: Engine, seq: Seq, ids: list[int], new: int) -> list[int]:
    """Continues a kept sequence, which holds a beginning of these ids."""
    return [token for _, _, token in engine.stream(Request(ids=ids, max_new=new), seq)]


@pytest.mark.parametrize("family", FAMILIES)
def test_turn_by_turn_is_at_once(family: str) -> None:
    """Three turns with 5, 1 and 31 new tokens, past a sliding window; each answer is part of the next prompt."""
    engine, ids = Engine(tiny.make(family)), TALK[:9]
    seq = engine.sequence()
    for more in (5, 1, 31):
        answer = go_on(engine, seq, ids, 7)
        assert answer == alone(engine.model, ids)
        assert seq.row.length == len(ids) + 6  # all but the last token
        ids = [*ids, *answer, *TALK[len(ids) : len(ids) + more]]


def test_rows_with_different_beginnings() -> None:
    """Sequences of one engine that hold different amounts, continued together."""
    engine = Engine(tiny.make("llama"))
    prompts = (TALK[:9], TALK[9:12], TALK[20:41])
    seqs = [engine.sequence() for _ in prompts]
    longer = []
    for seq, ids, new in zip(seqs, prompts, (1, 5, 3)):
        answer = go_on(engine, seq, ids, new)
        longer.append([*ids, *answer[:-1], 5, 6])
    jobs = [engine.add(Request(ids=ids, max_new=7), seq) for seq, ids in zip(seqs, longer)]
    while engine.busy:
        engine.step()
    assert [job.result()[0].ids for job in jobs] == [alone(engine.model, ids) for ids in longer]


def test_only_what_is_new_is_read() -> None:
    engine = Engine(tiny.make("llama"))
    seq, read = engine.sequence(), counted(engine)
    answer = go_on(engine, seq, TALK[:20], 3)
    go_on(engine, seq, [*TALK[:20], *answer, *TALK[:4]], 2)
    assert read == [20, 1, 1, 5, 1]


def counted(engine: Engine) -> list[int]:
    """A list that the number of tokens of each coming forward joins."""
    read: list[int] = []
    forward = engine.main.forward

    def watched(parts: list[runner.Part]) -> None:
        before = engine.main.computed
        forward(parts)
        read.append(engine.main.computed - before)

    engine.main.forward = watched  # type: ignore[method-assign, assignment]
    return read


def test_a_talk_that_is_left_goes_on() -> None:
    engine = Engine(tiny.make("llama"))
    seq = engine.sequence()
    taken: list[int] = []
    for _, _, token in engine.stream(Request(ids=TALK[:9], max_new=50), seq):
        taken.append(token)
        if len(taken) == 4:
            break
    assert seq.row.length == 9 + 3
    more = [*TALK[:9], *taken[:3], 11, 12]
    seq.trim(12)
    assert go_on(engine, seq, more, 7) == alone(engine.model, more)


@pytest.mark.parametrize("held", [10, 17, 20])
@pytest.mark.parametrize("longer", [16, 18, 30])
def test_a_talk_that_outgrows_its_factors_is_read_again(held: int, longer: int, checkpoints: Path) -> None:
    """LongRoPE with 17 positions: keys turned for a short row are of no use to a longer one."""
    if held >= longer:
        pytest.skip("the cache has to be shorter than the prompt")
    case = ref.case("phi3", "longrope, crossing while it writes", "causal-lm")
    engine = Engine(ref.ours(case, ref.checkpoint(case, checkpoints)))
    seq = engine.sequence()
    ids = ref.inputs(case, batch=1, time=longer)["input_ids"].tolist()[0]
    go_on(engine, seq, ids[:held], 1)
    assert go_on(engine, seq, ids, 7) == alone(engine.model, ids)
