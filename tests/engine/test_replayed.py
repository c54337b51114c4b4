"""Steps from a recording: the bits of the plain way, for every family and form of weights that can be recorded.

What makes a recording wrong has to be noticed: hooks, taps, other weights, other modules, pages that move.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference as ref
from native import needs_kernels as native_kernels
from native import on_threads
from pellucid import AutoModelForCausalLM
from pellucid.engine import replayed
from pellucid.engine.captured import refusal
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.replayed import Replayed
from pellucid.engine.request import Request
from pellucid.ops.cpu import steps
from pellucid.ops.packed import exactly

pytestmark = native_kernels(steps.library() is not None)
CASES = {c.family: c for c in ref.cases(variants=False, tasks=False) if c.task == "causal-lm"}
LOAD = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "nf4": {"dtype": "bfloat16", "load_in_4bit": True},
}
LENGTHS, NEW = (5, 9, 3, 41), 9


def requests(rows: Sequence[Sequence[int]], new: int = NEW) -> list[Request]:
    """Rows that end one after the other."""
    return [Request(ids=list(row), max_new=new + 2 * i, keep=frozenset({"logits"})) for i, row in enumerate(rows)]


def plain(model: Any, given: Sequence[Request]) -> list[Tensor]:
    engine = Engine(model)
    engine.main.captured = None
    return logits(engine.generate(given))


def logits(jobs: Sequence[Job]) -> list[Tensor]:
    return [torch.stack(job.outputs[0].logits) for job in jobs]


def same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in zip(found, wanted))


def steps_of(engine: Engine) -> Replayed:
    found = engine.main.captured
    assert isinstance(found, Replayed)
    return found


@pytest.fixture
def story() -> Any:
    return AutoModelForCausalLM.from_pretrained()


TEXT = requests([[1, 5], [7] * 11, [9, 8, 7]], 12)


# ------------------------------------------------------------------------------ the same bits


@pytest.mark.parametrize("family", CASES)
def test_every_family_that_can_be_recorded_is_and_says_the_same(family: str, checkpoints: Path) -> None:
    case = CASES[family]
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    if refusal(model) is not None:
        assert Engine(model).main.captured is None
        return
    ids = ref.inputs(case, batch=len(LENGTHS), time=max(LENGTHS))["input_ids"].tolist()
    most = case.config.get("n_positions", 99) - NEW - 2 * len(LENGTHS)
    given = requests([row[: min(n, most)] for row, n in zip(ids, LENGTHS)])
    engine = Engine(model)
    found = logits(engine.generate(given))
    assert same(found, plain(model, given))
    made = steps_of(engine)
    assert made.refused == "" and made.recorded >= 4 and made.replays >= 8


@pytest.mark.parametrize("form", LOAD)
def test_every_form_of_weights(form: str, tmp_path: Path) -> None:
    import quantized

    case = ref.case("llama", "", "causal-lm")
    folder = ref.checkpoint(replace(case, variant=form, config=case.config | quantized.SIZES), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, **LOAD[form])
    engine = Engine(model)
    given = requests([[1, 5], [7] * 11, [9, 8, 7]], 8)
    found = logits(engine.generate(given))
    assert same(found, plain(model, given))
    assert steps_of(engine).replays >= 8, steps_of(engine).refused


@pytest.mark.parametrize("threads", [1, 2])
def test_the_time_of_each_call(story: Any, threads: int) -> None:
    """It is counted once, under its label; what is measured says the same."""
    engine = Engine(story)
    story._widest = 2**30
    (given,) = requests([[1, 5]], 12)
    job = engine.add(given)
    with on_threads(threads):
        while not steps_of(engine).replays:
            engine.step()
        block = story.blocks[0].mlp

        def labelled(*args: Any) -> Any:
            steps.recorder.current.label = "mlp"
            found = type(block).forward(block, *args)
            steps.recorder.current.label = ""
            return found

        block.__dict__["forward"] = labelled
        (step,) = steps_of(engine).again(64)
        del block.__dict__["forward"]
        step.spent = steps.Spent(step.recording)
        start = time.perf_counter()
        while engine.busy:
            engine.step()
        took = time.perf_counter() - start
    assert same(logits([job]), plain(story, [given]))
    assert steps_of(engine).recorded == 1 and step.spent.runs >= 8
    seconds = step.spent.seconds()
    assert {kernel for label, kernel in seconds if label == "mlp"} >= {"few_rows", "pointwise"}
    assert all(one > 0 for one in seconds.values()) and sum(seconds.values()) < took


def test_as_many_threads_as_there_are(story: Any) -> None:
    """One more or less while a text is written."""
    wanted = plain(story, TEXT)
    before = torch.get_num_threads()
    engine = Engine(story)
    story._widest = 2**30  # so that more threads than one are worth it
    jobs = [engine.add(request) for request in TEXT]
    try:
        for n in range(100):
            torch.set_num_threads(1 + n % 3)
            engine.step()
    finally:
        torch.set_num_threads(before)
    assert same(logits(jobs), wanted)
    assert steps_of(engine).replays >= 8


def test_rows_come_and_go(story: Any) -> None:
    """Cancelled, preempted, begun in the middle, and more than a recording has."""
    engine = Engine(story)
    texts = requests([[i + 3, i + 4] for i in range(11)], 16)
    jobs = [engine.add(request) for request in texts[:9]]
    for n in range(60):
        engine.step()
        engine.check()
        if n == 6:
            engine.cancel(jobs[1])
        if n == 7:
            engine._preempt(jobs[2])
            engine._sweep()
        if n == 9:
            jobs += [engine.add(request) for request in texts[9:]]
    whole = [job for job in jobs if job is not jobs[1]]
    assert same(logits(whole), plain(story, [job.request for job in whole]))
    assert steps_of(engine).replays > 5


def test_pages_that_grow_are_found(story: Any) -> None:
    """Rows of no known length: the pages double under them, and the tables become wider."""
    given = [Request(ids=[5, 6, 7], max_new=300, keep=frozenset({"logits"}))]
    engine = Engine(story)
    found = logits(engine.generate(given))
    assert same(found, plain(story, given))
    engine.generate(requests([[1, 2]] * 5, 20))
    assert same(logits(engine.generate(given)), found)


# ------------------------------------------------------------------------------ what a recording must hear of


def halves(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    return out / 2


def hooked(model: Any) -> Callable[[], object]:
    return model.blocks[1].mlp.register_forward_hook(halves).remove


def hooked_before(model: Any) -> Callable[[], object]:
    return model.blocks[1].register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:])).remove


def overridden(model: Any) -> Callable[[], object]:
    mlp = model.blocks[1].mlp
    before = mlp.forward
    mlp.forward = lambda x, batch=None: before(x, batch) / 2
    return lambda: mlp.__dict__.pop("forward")


def written(model: Any) -> Callable[[], object]:
    weight = model.blocks[2].attn.o.weight
    with torch.no_grad():
        weight.mul_(0.5)
    return lambda: weight.data.mul_(2)


def written_behind_torch(model: Any) -> Callable[[], object]:
    numbers = model.blocks[2].attn.o.weight.detach().numpy()
    numbers *= 0.5
    return lambda: numbers.__imul__(2)


def written_norm(model: Any) -> Callable[[], object]:
    weight = model.blocks[2].mlp_norm.weight
    weight.data.mul_(0.5)
    return lambda: weight.data.mul_(2)


def other_data(model: Any) -> Callable[[], object]:
    weight, before = model.blocks[2].attn.o.weight, model.blocks[2].attn.o.weight.data
    weight.data = before * 0.5
    return lambda: setattr(weight, "data", before)


def replaced(model: Any) -> Callable[[], object]:
    block, before = model.blocks[2], model.blocks[2].mlp

    class Less(nn.Module):
        def forward(self, x: Tensor, batch: Any = None) -> Tensor:
            out: Tensor = before(x, batch) / 2
            return out

    block.mlp = Less()
    return lambda: setattr(block, "mlp", before)


CHANGES = [
    hooked, hooked_before, overridden, written, written_behind_torch, written_norm, other_data, replaced,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_noticed(
    story: Any, change: Callable[[Any], Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayed, "PATIENCE", 4)
    engine = Engine(story)
    before = logits(engine.generate(TEXT))
    undo = change(story)
    changed = logits(engine.generate(TEXT))
    assert not same(changed, before)
    assert same(changed, plain(story, TEXT))
    undo()
    del undo  # in float32 a matrix that somebody still holds is multiplied by torch, which is not recorded
    assert same(logits(engine.generate(TEXT)), before)
    replays = steps_of(engine).replays
    assert same(logits(engine.generate(TEXT)), before)
    assert steps_of(engine).replays > replays


def test_in_the_middle_of_a_text(story: Any) -> None:
    engine = Engine(story)
    (job,) = [engine.add(request) for request in TEXT[:1]]
    seen: list[Tensor] = []
    for n in range(12):
        if n == 5:
            hook = story.blocks[3].register_forward_hook(lambda module, args, out: seen.append(out))
        if n == 8:
            hook.remove()
        engine.step()
    assert len(seen) == 3 and steps_of(engine).replays >= 3
    assert same(logits([job]), plain(story, TEXT[:1]))


def test_listeners_are_heard(story: Any) -> None:
    engine = Engine(story)
    engine.generate(TEXT)
    seen: list[Tensor] = []
    replays = steps_of(engine).replays
    with story.taps({"blocks.0.resid_post": seen.append}):
        engine.generate(TEXT)
    assert len(seen) >= 16 and steps_of(engine).replays == replays


def test_who_asks_for_exact_products_gets_them(tmp_path: Path) -> None:
    """A recording of products that round x is not that of products that do not."""
    import gguf_models
    from contracts.test_packed_weights import Kind, writer

    assert gguf_models is not None
    model = writer("llama", Kind.Q8_0, tmp_path)
    engine = Engine(model)
    rounded = logits(engine.generate(TEXT))
    with exactly():
        exact = logits(engine.generate(TEXT))
        assert same(exact, plain(model, TEXT))
    assert not same(exact, rounded)
    assert same(logits(engine.generate(TEXT)), rounded) and same(rounded, plain(model, TEXT))
    assert steps_of(engine).replays > 16


def test_keys_are_kept_as_finely_as_products_are(tmp_path: Path) -> None:
    """In float16 behind products that round to 8 bits, and then in the prompt too; in float32 where nobody rounds."""
    from contracts.test_packed_weights import Kind, writer

    model = writer("llama", Kind.Q4_K, tmp_path)
    prompt = [3 + n % 90 for n in range(70)]

    def said(engine: Engine) -> tuple[torch.dtype, Tensor]:
        (job,) = engine.generate([Request(ids=prompt, max_new=12, keep=frozenset({"logits"}))])
        (group,) = engine.main.pages.groups.values()
        return group.pools[0][0].dtype, torch.stack(job.outputs[0].logits)

    kept, whole = said(Engine(model))
    assert kept is torch.float16
    assert torch.equal(said(Engine(model, budget=32))[1], whole)
    with torch.inference_mode():
        assert torch.equal(model(torch.tensor([prompt])).logits[0, -1], whole[0])
    with exactly():
        assert said(Engine(model))[0] is torch.float32


def test_a_packed_matrix_that_is_written_over_is_noticed(tmp_path: Path) -> None:
    from contracts.test_packed_weights import Kind, writer

    model = writer("llama", Kind.Q4_K, tmp_path)
    engine = Engine(model)
    before = logits(engine.generate(TEXT))
    up, gate = model.blocks[0].mlp.up, model.blocks[0].mlp.gate
    with torch.no_grad():
        up.weight.copy_(gate.weight)
    Engine(model).generate(TEXT[:1])  # somebody else has run it since
    changed = logits(engine.generate(TEXT))
    assert not same(changed, before) and same(changed, plain(model, TEXT))


def test_what_cannot_be_recorded_takes_the_plain_way(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is tried again later."""
    monkeypatch.setattr(replayed, "PATIENCE", 6)
    inside = story.blocks[1].mlp.forward
    monkeypatch.setattr(
        type(story.blocks[1].mlp), "forward", lambda mlp, x, batch=None: inside(x * float(x.sum() * 0 + 1))
    )
    engine = Engine(story)
    found = logits(engine.generate(TEXT))
    assert same(found, plain(story, TEXT))
    assert steps_of(engine).replays == 0 and "asks for numbers" in steps_of(engine).refused
    monkeypatch.undo()
    engine.generate(TEXT)
    assert steps_of(engine).replays > 0
