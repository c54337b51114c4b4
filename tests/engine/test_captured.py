"""Steps that a graph could hold, the function itself in the graph's place: the same ids, and nothing asks the host.

What needs an accelerator is the recording itself; its tests skip without one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import reference as ref
from accelerator.packers import PACKERS, SIZES, packer
from pellucid import spec
from pellucid.cache.group import PAGE
from pellucid.cache.pages import Pages
from pellucid.engine import captured
from pellucid.engine.captured import LEAST, Captured, fixed_pages, page_bytes, refusal
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Request
from pellucid.engine.rules.warpers import Temperature
from pellucid.engine.runner import Runner
from pellucid.errors import ArgumentError, InputError
from pellucid.models.loading import load
from pellucid.ops.packed import PackedTensor
from suffixes import checked

needs_accelerator = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
CASES = {f"{c.family} causal-lm": c for c in ref.cases(variants=False, tasks=False) if c.task == "causal-lm"}
SHOWN = ["llama causal-lm", "gpt2 causal-lm", "gemma2 causal-lm", "gpt_oss causal-lm", "bloom causal-lm"]
LENGTHS, NEW = (45, 1, 17, 70, 9, 38, 3), 9


def model_of(name: str, checkpoints: Path) -> Any:
    return ref.ours(CASES[name], ref.checkpoint(CASES[name], checkpoints))


def engine_of(model: Any, pages: int = 200, **options: Any) -> tuple[Engine, Captured]:
    """An engine whose decode steps are as they would be on an accelerator, but for the recording."""
    engine = Engine(model, pages)
    steps = engine.main.captured = Captured(engine.main, **options)
    return engine, steps


def prompts(case: ref.Case) -> list[list[int]]:
    given = ref.inputs(case, batch=len(LENGTHS), time=max(LENGTHS))["input_ids"].tolist()
    most = case.config.get("n_positions", 99) - NEW - 3 * len(LENGTHS)
    return [row[: min(n, most)] for row, n in zip(given, LENGTHS)]


def ids_of(jobs: Sequence[Job]) -> list[list[int]]:
    return [output.ids for job in jobs for output in job.result()]


@pytest.fixture
def story() -> Any:
    from pellucid import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained()


# ------------------------------------------------------------------------------ the same ids


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("name", SHOWN)
def test_ids_are_those_of_the_plain_way(name: str, ahead: bool, checkpoints: Path) -> None:
    """Prompts of mixed lengths, more than a window; all tokens but the first from steps; then the same once more."""
    model = model_of(name, checkpoints)
    requests = [
        Request(ids=ids, max_new=NEW + 3 * i, keep=frozenset({"logits"}))
        for i, ids in enumerate(prompts(CASES[name]))
    ]  # fmt: skip
    plain = Engine(model).generate(requests)
    engine, steps = engine_of(model, ahead=ahead)
    found = engine.generate(requests)
    assert ids_of(found) == ids_of(plain)
    for ours, theirs in zip(found, plain):
        logits, wanted = (torch.stack(job.outputs[0].logits) for job in (ours, theirs))
        assert (logits - wanted).abs().max() < 1e-4 * wanted.abs().max()
    longest = max(len(r.ids) + r.max_new for r in requests)
    rows = {1, 2, 4, 8}  # 7 rows at first, then fewer and fewer
    assert steps.captures <= len(rows) and longest < LEAST * PAGE
    assert (steps.hits > 40) == ahead
    before = steps.captures, steps.replays
    again = engine.generate(requests[::-1])
    assert ids_of(again) == ids_of(plain[::-1])
    assert steps.captures == before[0] and steps.replays > before[1]  # nothing is recorded twice
    engine.check()


def test_longer_tables_are_other_sizes(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "LEAST", 2)
    requests = [Request(ids=[n + 3] * n, max_new=30) for n in (20, 100, 250)]
    engine, steps = engine_of(story)
    assert ids_of(engine.generate(requests)) == ids_of(Engine(story).generate(requests))
    assert {width for _, width in steps._steps} == {8, 16}
    assert {rows for rows, _ in steps._steps} == {4}


def test_recording_in_the_middle_of_a_text(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recording runs on its own leaves no trace: not in pages that count, not in the tokens just chosen."""
    monkeypatch.setattr(captured, "LEAST", 1)

    def recorded(run: Any) -> Any:
        run()
        return run

    requests = [Request(ids=[5, 6, 7], max_new=150), Request(ids=[9], max_new=60)]
    engine, steps = engine_of(story, graphs=recorded)
    assert ids_of(engine.generate(requests)) == ids_of(Engine(story).generate(requests))
    assert steps.hits > 140 and steps.captures == 6


def test_more_rows_than_a_step_has(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Request(ids=[i + 3, i + 4], max_new=5) for i in range(11)]
    wanted = ids_of(Engine(story).generate(requests))
    monkeypatch.setattr(captured, "ROWS", 4)
    engine, steps = engine_of(story)
    assert ids_of(engine.generate(requests)) == wanted
    assert {rows for rows, _ in steps._steps} == {4}


# ------------------------------------------------------------------------------ ahead of the host


def test_the_host_is_a_step_behind(story: Any) -> None:
    """Of a text of n tokens the prompt gives the first; all others but one were launched before they were asked for."""
    engine, steps = engine_of(story)
    (job,) = engine.generate([Request(ids=[1, 5], max_new=20)])
    assert steps.hits == 18
    assert steps.replays == 20  # one more than was needed: the host heard of the end late
    assert ids_of([job]) == ids_of(Engine(story).generate([job.request]))


def test_what_was_launched_in_vain_is_forgotten(story: Any) -> None:
    """A row ends at its end token while its next step is under way; others go on; a new one comes."""
    (free,) = ids_of(Engine(story).generate([Request(ids=[1], max_new=30)]))
    requests = [
        Request(ids=[1], max_new=30, eos=frozenset({free[6]})),
        Request(ids=[1, 5], max_new=25),
        Request(ids=[7] * 40, max_new=4),
    ]
    engine, steps = engine_of(story)
    jobs = [engine.add(request) for request in requests]
    while engine.busy:
        engine.step()
        engine.check()
        if len(jobs) == 3 and jobs[2].state == "done":
            jobs.append(engine.add(Request(ids=[9, 9], max_new=8)))
    plain = Engine(story).generate([job.request for job in jobs])
    assert ids_of(jobs) == ids_of(plain)
    assert jobs[0].outputs[0].finish == "stop"
    assert steps.hits > 20
    assert engine.main.pages.counts()["held"] == 0


def test_rows_that_need_the_host_are_not_launched_ahead(story: Any) -> None:
    drawn = Request(ids=[1, 5], max_new=12, sample=True, seed=3)
    ruled = Request(ids=[1, 5], max_new=12, rules=(Temperature(0.7),))
    for request in (drawn, ruled):
        engine, steps = engine_of(story)
        assert ids_of(engine.generate([request])) == ids_of(Engine(story).generate([request]))
        assert (steps.hits, steps.replays) == (0, 11)
    engine, steps = engine_of(story)
    both = [drawn, Request(ids=[2], max_new=20)]
    assert ids_of(engine.generate(both)) == ids_of(Engine(story).generate(both))
    assert 0 < steps.hits < 9  # once the drawn one is through


def test_what_the_host_says_is_what_counts(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another token than the likeliest one, in a row that was launched ahead: as if it had not been."""
    monkeypatch.setattr(Job, "greedy", True)
    drawn = [Request(ids=[1, 5], max_new=30, sample=True, seed=seed) for seed in range(3)]
    engine, steps = engine_of(story)
    assert ids_of(engine.generate(drawn)) == ids_of(Engine(story).generate(drawn))
    assert 0 < steps.hits < 80


def test_a_row_that_lies_elsewhere_by_now(story: Any) -> None:
    """It gave its pages back, found all of them but the last again, and there a stranger lies."""
    engine, steps = engine_of(story)
    job = engine.add(Request(ids=[1, 5], max_new=60))
    while len(job.outputs[0].ids) < PAGE - 1:
        engine.step()
    (seq,) = job.seqs
    assert steps._flight is not None and seq.row.length == PAGE  # and its next token is under way
    ((_, fed),) = steps._flight.fed.values()
    engine._preempt(job)
    engine._sweep()
    stranger = engine.main.row()
    assert engine.main.pages.reserve(stranger, PAGE)
    assert stranger.tables[None].pages[0] == fed.slots[0] // PAGE
    hits = steps.hits
    engine.step()
    assert (steps.hits, seq.row.length) == (hits, PAGE + 1)
    while engine.busy:
        engine.step()
    assert ids_of([job]) == ids_of(Engine(story).generate([job.request]))


def test_rows_are_published_and_counted(story: Any) -> None:
    engine, _ = engine_of(story)
    (first,) = engine.generate([Request(ids=[1, 5], max_new=100)])
    plain = Engine(story, 200)
    plain.generate([first.request])
    assert (engine.main.steps, engine.main.computed) == (plain.main.steps, plain.main.computed) == (100, 101)
    engine.generate([Request(ids=[1, 5, *first.outputs[0].ids], max_new=1)])
    assert engine.main.computed == 101 + 102 - 96  # three pages were there


def test_no_position_beyond_the_last(story: Any, checkpoints: Path) -> None:
    """Neither asked for, nor ahead."""
    engine, steps = engine_of(story)
    (job,) = engine.generate([Request(ids=[1] * 500, max_new=50)])
    assert ids_of([job]) == ids_of(Engine(story).generate([job.request]))
    assert len(job.outputs[0].ids) == 12
    assert steps.replays == 12
    case = CASES["gpt2 causal-lm"]
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    rows = case.config["n_positions"]
    engine, steps = engine_of(model)
    job = engine.add(Request(ids=[3] * (rows - 3), max_new=10))
    job.most = 10  # the engine knows better: so it goes on until there is no vector
    while engine.busy:
        engine.step()
    with pytest.raises(InputError, match=f"{rows + 1} tokens, and the model has {rows} positions"):
        job.result()
        job.result()
    assert len(job.outputs[0].ids) == 4 and steps.replays == 3


def test_listeners_are_heard(story: Any) -> None:
    """Whoever listens to a tap sees every token: nothing that was recorded would call them."""
    engine, steps = engine_of(story)
    seen: list[Tensor] = []
    job = engine.add(Request(ids=[1], max_new=8))
    for _ in range(4):
        engine.step()
    launched = steps.replays
    with story.taps({"blocks.0.resid_post": seen.append}):
        engine.step()
        engine.step()
    assert len(seen) == 2 and steps.replays == launched
    own: list[Tensor] = []
    other = engine.add(Request(ids=[2], max_new=5, taps={"blocks.0.resid_post": own.append}))
    while engine.busy:
        engine.step()
    assert len(own) == 5
    assert ids_of([job, other]) == ids_of(Engine(story).generate([job.request, Request(ids=[2], max_new=5)]))


def test_any_use_gives_what_a_request_alone_gives(story: Any) -> None:
    """Adds, cancels, forks and page shortages at random; pages add up after every step."""
    hits = preempted = forks = 0
    for seed in range(4):
        chance = random.Random(seed)
        engine, steps = engine_of(story, pages=6)
        jobs: list[Job] = []
        while engine.busy or len(jobs) < 12:
            action = chance.random()
            if action < 0.2 and len(jobs) < 12:
                ids = [1] * chance.choice([0, 33]) + [chance.randrange(3, 500) for _ in range(chance.randint(1, 40))]
                more: dict[str, Any] = {"sample": True, "seed": seed} if chance.random() < 0.2 else {}
                jobs.append(engine.add(Request(ids=ids, max_new=chance.randint(1, 40), **more)))
            elif action < 0.23 and engine.jobs:
                engine.cancel(chance.choice(engine.jobs))
            elif action < 0.28:
                able = [job for job in engine.jobs if job.outputs[0].ids and not job.request.sample]
                jobs += [engine.fork(job) for job in able[:1]]
                forks += len(able[:1])
            engine.step()
            engine.check()
        ended = [job for job in jobs if job.outputs[0].finish in ("length", "stop")]
        plain = [Engine(story).generate([job.request])[0] for job in ended]
        assert ids_of(ended) == ids_of(plain)
        assert engine.main.pages.counts()["held"] == 0
        hits, preempted = hits + steps.hits, preempted + sum(job.preempted for job in jobs)
    assert hits > 100 and preempted and forks


# ------------------------------------------------------------------------------ what a graph may hold

ASKS = {"tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero", "unique"}
MAKES = {"tensor", "as_tensor", "from_numpy", "frombuffer", "unique_consecutive", "nonzero", "bincount", "aminmax"}


class Silence(TorchFunctionMode):
    """Refuses what waits for the device or reads the host's memory: a graph can hold neither."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        assert name not in ASKS | MAKES, f"{name} in a step"
        if name in ("__getitem__", "__setitem__"):
            at = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(x, list) or isinstance(x, Tensor) and x.dtype == torch.bool for x in at), name
        return func(*args, **(kwargs or {}))


def silent(run: Any) -> Any:
    """A graph that refuses to hold what asks the host; what is made once is made before."""
    run()

    def replay() -> Tensor:
        with Silence():
            return run()

    return replay


ABLE = (
    "arcee bloom codegen cohere cohere2 gemma gemma2 gemma3_text glm glm4 gpt2 gpt_neo gpt_neox gptj granite helium "
    "llama ministral3 mistral mpt nemotron olmo olmo2 opt persimmon phi phi3 qwen2 qwen3 seed_oss smollm3 stablelm "
    "starcoder2 xglm"
).split()


def test_which_models_are_recorded(checkpoints: Path) -> None:
    said = {}
    for name in ("mixtral", "mamba", "jamba", "deepseek_v3", "rwkv", "cpmant", "gpt_oss", "llama"):
        said[name] = refusal(model_of(f"{name} causal-lm", checkpoints))
    assert said.pop("llama") is None
    assert all(said.values()), said
    assert said["mixtral"] == "experts that the host looks up"
    stack = model_of("bloom causal-lm", checkpoints).stack
    assert any(isinstance(part, spec.Alibi) for part in captured._parts(stack))


@pytest.mark.parametrize("family", ABLE)
def test_a_step_asks_nothing_of_the_host(family: str, checkpoints: Path) -> None:
    """Of every model that is said to be recorded: no answer of the device is read, and no list becomes a tensor."""
    name = f"{family} causal-lm"
    model = model_of(name, checkpoints)
    assert refusal(model) is None

    requests = [Request(ids=ids, max_new=6) for ids in prompts(CASES[name])[:3]]
    engine, steps = engine_of(model, graphs=silent)
    assert ids_of(engine.generate(requests)) == ids_of(Engine(model).generate(requests))
    assert steps.replays >= 5


@pytest.mark.parametrize("kind", PACKERS)
def test_a_step_over_packed_matrices_asks_nothing(
    kind: str, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked by torch, as on an accelerator: tables are made once, and what parts say is looked at once."""
    case = CASES["llama causal-lm"]
    case = replace(case, variant="to be packed", config={**case.config, **SIZES})
    folder = ref.checkpoint(case, checkpoints)
    monkeypatch.setattr(PackedTensor, "chosen", lambda self: None)
    model: Any = load(folder=folder, task="causal-lm", pack=packer(kind))
    assert refusal(model) is None and sum(isinstance(p, PackedTensor) for p in model.parameters()) == 14
    requests = [Request(ids=ids, max_new=4) for ids in prompts(case)[:2]]
    engine, steps = engine_of(model, graphs=silent)
    plain = Engine(model)
    plain.main.captured = None  # nothing is replayed on the processor either
    assert ids_of(engine.generate(requests)) == ids_of(plain.generate(requests))
    assert steps.replays >= 3


@pytest.mark.parametrize("family", ["bloom", "gemma2", "gpt_oss"])
def test_names_tell_the_shapes(family: str, checkpoints: Path) -> None:
    engine, _ = engine_of(model_of(f"{family} causal-lm", checkpoints))
    with checked("/pellucid/nn/", "/pellucid/ops/", "/captured.py") as lies:
        engine.generate([Request(ids=[5, 7], max_new=3), Request(ids=[9] * 40, max_new=2)])
    assert not lies


def test_a_step_that_asks_is_found(checkpoints: Path) -> None:
    model = model_of("mixtral causal-lm", checkpoints)
    _, steps = engine_of(model)
    step, _ = steps._size(2, 1)
    with torch.inference_mode():
        step()
        with pytest.raises(AssertionError, match="in a step"), Silence():
            step()


# ------------------------------------------------------------------------------ pages stay where they are


def test_pages_that_grow_are_refused(story: Any) -> None:
    with pytest.raises(ArgumentError, match="pages that grow"):
        Captured(Runner(story))
    with pytest.raises(ArgumentError, match="packed pages"):
        Captured(Runner(story, Pages(50, quantized="int8")))


def test_nothing_moves(story: Any) -> None:
    """Whatever comes, the pools of fixed pages keep their addresses."""
    engine, _ = engine_of(story, pages=20)
    engine.generate([Request(ids=[1], max_new=3)])
    pools = engine.main.pages.group(None).pools
    before = {layer: [x.data_ptr() for x in pool] for layer, pool in pools.items()}
    engine.generate([Request(ids=[i + 3] * (60 + i), max_new=40) for i in range(12)])
    assert {layer: [x.data_ptr() for x in pool] for layer, pool in pools.items()} == before


@pytest.mark.parametrize("name", ["llama causal-lm", "gemma2 causal-lm", "jamba causal-lm", "deepseek_v3 causal-lm"])
def test_as_many_pages_as_there_is_memory_for(name: str, checkpoints: Path) -> None:
    model = model_of(name, checkpoints)
    sizes = page_bytes(model)
    free = 100 * sum(sizes.values())
    pages = fixed_pages(model, free)
    assert pages.total == 80
    Engine(model, pages).generate([Request(ids=ids, max_new=3) for ids in prompts(CASES[name])])
    used = {kind: group for kind, group in pages.groups.items() if group.pools}
    assert {kind: group.page_bytes for kind, group in used.items()} == sizes
    taken = sum(x.nbytes for group in used.values() for pool in group.pools.values() for x in pool)
    assert taken <= free * 81 / 100  # and the page that nobody reads


def test_no_more_pages_than_all_rows_can_fill(story: Any, checkpoints: Path) -> None:
    assert fixed_pages(story, 10**15, rows=3).total == 3 * 512 // PAGE
    assert fixed_pages(story, 1).total == 1
    recurrent = model_of("mamba causal-lm", checkpoints)
    assert page_bytes(recurrent) == {}
    engine = Engine(recurrent, fixed_pages(recurrent, 10**6))  # it has no use for pages, and never lacks any
    assert engine.generate([Request(ids=[3] * 50, max_new=3)])[0].error is None
    both = next(c for c in ref.cases(variants=False, tasks=False) if c.family == "t5")
    t5 = ref.ours(both, ref.checkpoint(both, checkpoints))
    assert set(page_bytes(t5)) == {None, "memory"}


def test_no_graph_is_captured_on_a_cpu(story: Any) -> None:
    assert not isinstance(Engine(story, 100).main.captured, Captured)


# ------------------------------------------------------------------------------ with an accelerator


@needs_accelerator
@pytest.mark.parametrize("name", ["llama causal-lm", "gpt2 causal-lm", "gemma2 causal-lm", "bloom causal-lm"])
def test_graphs_give_the_ids_of_the_plain_way(name: str, checkpoints: Path) -> None:
    requests = [Request(ids=ids, max_new=NEW) for ids in prompts(CASES[name])]
    wanted = ids_of(Engine(model_of(name, checkpoints)).generate(requests))
    model = model_of(name, checkpoints).to("cuda")
    engine = Engine(model)
    steps = engine.main.captured
    assert steps is not None
    assert ids_of(engine.generate(requests)) == wanted
    recorded = steps.captures
    assert ids_of(engine.generate(requests[::-1])) == wanted[::-1]
    assert 0 < steps.captures == recorded and steps.hits > 0
    engine.check()
