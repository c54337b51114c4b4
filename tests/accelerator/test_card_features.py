"""What a user does with a model, on the accelerator: the ids and numbers of the processor."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import pellucid
from accelerator.rehearsal import PAPER
from engine.tokenizers_at_hand import tokenizer
from models import tiny
from pellucid import AutoModelForCausalLM
from pellucid.cache.pages import Pages
from pellucid.cli import main
from pellucid.engine.engine import Engine
from pellucid.engine.request import Request
from pellucid.errors import ArgumentError

real = pytest.mark.skipif(PAPER, reason="the system is asked what accelerators there are")
PROMPTS = [[1, 9038, 4][:2], [1, 403, 407, 261, 378], [1] + list(range(300, 340))]
PROMPTS = [[min(i, 511) for i in ids] for ids in PROMPTS]


@pytest.fixture
def pair(device: str) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(), AutoModelForCausalLM.from_pretrained(device=device)


def both(pair: tuple[Any, Any], device: str, **options: Any) -> tuple[Any, Any]:
    ids = torch.tensor([PROMPTS[1]])
    options.setdefault("max_new_tokens", 40)
    return pair[0].generate(ids, **options), pair[1].generate(ids.to(device), **options)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "drawn": {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "seed": 3},
    "penalties": {"do_sample": False, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    "beams": {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
    "looked up": {"do_sample": False, "prompt_lookup_num_tokens": 4},
    "contrastive": {"do_sample": False, "penalty_alpha": 0.6, "top_k": 4},
    "packed cache": {"do_sample": False, "cache_implementation": "quantized"},
    "scores": {"do_sample": False, "output_scores": True, "return_dict_in_generate": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_generating(way: str, pair: tuple[Any, Any], device: str) -> None:
    try:
        mine, there = both(pair, device, **WAYS[way])
    except ArgumentError as error:
        if "seed" not in WAYS[way]:
            raise
        pytest.skip(str(error))
    if way == "scores":
        assert mine.sequences.tolist() == there.sequences.tolist()
        assert all((a - b.cpu()).abs().max() < 1e-3 for a, b in zip(mine.scores, there.scores))
    else:
        assert str(there.device) == device and mine.tolist() == there.tolist()


def test_drafts_of_another_model(pair: tuple[Any, Any], device: str) -> None:
    ids = torch.tensor([PROMPTS[1]], device=device)
    helper = copy.deepcopy(pair[1])
    asked: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30}
    assert pair[1].generate(ids, assistant_model=helper, **asked).tolist() == pair[1].generate(ids, **asked).tolist()


def test_grammars(pair: tuple[Any, Any], device: str) -> None:
    pytest.importorskip("llguidance")
    from pellucid.engine.grammar import Regex, grammar_rule

    tok = tokenizer("stories260K")
    texts = []
    for model in pair:
        rule = grammar_rule(Regex("[a-z]{3,9}( [a-z]{2,7}){2,4}"), tok, vocab=len(tok), eos={2}, begin=1)
        (job,) = Engine(model).generate([Request(ids=[1], max_new=40, rules=(rule,), eos=frozenset({2}))])
        texts.append(job.result()[0].ids)
    assert texts[0] == texts[1] and len(texts[0]) > 3


def test_many_requests_at_once(pair: tuple[Any, Any]) -> None:
    """They come and go; some are drawn, some cancelled; graphs serve them and pages add up."""
    mine, there = (Engine(model, pages=400) for model in pair)
    assert PAPER or there.main.captured is not None
    requests = [Request(ids=PROMPTS[i % 3] + [3 + i], max_new=5 + i % 17, sample=i % 4 == 3, seed=i) for i in range(40)]
    wanted = [job.result()[0].ids for job in mine.generate(requests)]
    jobs = [there.add(request) for request in requests[:20]]
    for _ in range(7):
        there.step()
        there.check()
    jobs += [there.add(request) for request in requests[20:]]
    while there.busy:
        there.step()
    there.check()
    assert [job.result()[0].ids for job in jobs] == wanted
    assert PAPER or there.main.captured.hits > 0 and there.main.captured.captures < 12


def test_prefixes_are_shared_and_come_back_from_the_host(pair: tuple[Any, Any]) -> None:
    engine = Engine(pair[1], Pages(12, host=20))
    long = [3 + i % 400 for i in range(200)]
    (first,) = engine.generate([Request(ids=long, max_new=3)])
    engine.generate([Request(ids=[9 + i % 300 for i in range(300)], max_new=3)])
    before = engine.main.computed
    (again,) = engine.generate([Request(ids=long, max_new=3)])
    assert again.result()[0].ids == first.result()[0].ids
    assert engine.main.computed - before < 60


def test_packed_pages(pair: tuple[Any, Any]) -> None:
    requests = [Request(ids=ids, max_new=60) for ids in PROMPTS]
    found = [
        [job.result()[0].ids for job in Engine(model, Pages(100, quantized="int8")).generate(requests)]
        for model in pair
    ]
    assert found[0] == found[1]


def test_taps_and_hooks(pair: tuple[Any, Any], device: str) -> None:
    """What is read is on the device; what is replaced counts; a hook counts in graphs' stead."""
    ids, seen = torch.tensor([PROMPTS[1]]), []
    for model in pair:
        kept: list[Tensor] = []
        with (
            torch.inference_mode(),
            model.taps({"blocks.1.attn.pattern": kept.append, "blocks.2.resid_post": kept.append}),
        ):
            model(ids.to(model.device))
        seen.append([x.cpu() for x in kept])
    assert len(seen[1]) == 2 and all((a - b).abs().max() < 1e-3 for a, b in zip(*seen))
    model = copy.deepcopy(pair[1])
    plain = model.generate(ids.to(device), do_sample=False, max_new_tokens=10).tolist()
    hook = model.blocks[2].register_forward_hook(lambda module, args, out: out * 0)
    assert model.generate(ids.to(device), do_sample=False, max_new_tokens=10).tolist() != plain
    hook.remove()
    assert model.generate(ids.to(device), do_sample=False, max_new_tokens=10).tolist() == plain


def test_weights_that_change_are_seen(pair: tuple[Any, Any], device: str) -> None:
    """In place, as training does: graphs read them where they are."""
    model, ids = copy.deepcopy(pair[1]), torch.tensor([PROMPTS[1]], device=device)
    asked: dict[str, Any] = {"do_sample": False, "max_new_tokens": 10}
    before = model.generate(ids, **asked).tolist()
    with torch.no_grad():
        model.blocks[0].mlp.down.weight.mul_(-3)
    after = model.generate(ids, **asked).tolist()
    fresh = AutoModelForCausalLM.from_pretrained()
    fresh.load_state_dict({name: x.cpu() for name, x in model.state_dict().items()})
    assert before != after == fresh.generate(ids.cpu(), **asked).tolist()


def test_training(pair: tuple[Any, Any], device: str) -> None:
    """A few steps, and a few with bfloat16 inside autocast."""
    for cast in (False,) if PAPER else (False, True):
        model = copy.deepcopy(pair[1]).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ids = torch.tensor([PROMPTS[2], PROMPTS[2][::-1]], device=device)
        losses = []
        for _ in range(6):
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=cast):
                loss = model(ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0] - 0.5


@pytest.mark.skipif(PAPER, reason="a graph is compiled for a real device")
def test_compiled(device: str) -> None:
    model = tiny.make("llama").to(device)
    ids = tiny.ids(2, 17).to(device)
    with torch.inference_mode():
        wanted = model(ids).logits
        found = torch.compile(model, fullgraph=True)(ids).logits
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "device": lambda device: {"device": device},
    "device_map": lambda device: {"device_map": device},
    "a number": lambda device: {"device_map": 0},
    "a dict": lambda device: {"device_map": {"": device}},
    "auto": lambda device: {"device_map": "auto"},
    "some of it": lambda device: {"device_map": {"": device, "blocks.1": "cpu", "blocks.2": "cpu"}},
    "max_memory": lambda device: {"device_map": "auto", "max_memory": {0: "1GB"}},
}


NAMED = ("a number", "some of it", "auto", "max_memory")  # devices of torch's own names


@pytest.mark.parametrize("way", [pytest.param(way, marks=real) if way in NAMED else way for way in PLACES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_places(way: str, dtype: torch.dtype, pair: tuple[Any, Any], device: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(dtype=dtype, **PLACES[way](device))
    assert str(model.device) == device
    ids = torch.tensor([PROMPTS[1]], device=device)
    found = model.generate(ids, do_sample=False, max_new_tokens=20)
    if dtype == torch.float32:
        assert found.tolist() == pair[0].generate(ids.cpu(), do_sample=False, max_new_tokens=20).tolist()
    if way != "some of it":
        assert model.dtype == dtype and {p.device.type for p in model.parameters()} == {"cuda"}


@real
def test_pipelines(device: str) -> None:
    here, there = pellucid.pipeline("text-generation"), pellucid.pipeline("text-generation", device=0)
    asked: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    assert there(["Once upon", "The little dog"], **asked) == here(["Once upon", "The little dog"], **asked)


def test_mixed_calls(pair: tuple[Any, Any], device: str) -> None:
    """Ids that lie elsewhere than the model are named, or moved; a cache goes on where it is."""
    ids = torch.tensor([PROMPTS[2]], device=device)
    with torch.inference_mode():
        first = pair[1](ids[:, :20])
        rest = pair[1](ids[:, 20:], past_key_values=first.past_key_values).logits
        whole = pair[1](ids).logits
    assert (rest - whole[:, 20:]).abs().max() < 1e-3 * whole.abs().max()


def test_halves_are_kept(device: str) -> None:
    """float16 computes in float16 on an accelerator."""
    model = AutoModelForCausalLM.from_pretrained(dtype="float16", device=device)
    assert model.dtype == torch.float16


@real
@pytest.mark.parametrize("command", [["plan"], ["check"], ["check", "--json"], ["plan", "--json"]], ids=" ".join)
def test_commands(command: list[str], tmp_path: Path, device: str) -> None:
    AutoModelForCausalLM.from_pretrained().save_pretrained(tmp_path)
    given = command + ([str(tmp_path)] if command[0] == "plan" else [])
    ran = CliRunner().invoke(main, given, catch_exceptions=False)
    print(ran.output)
    assert ran.exit_code == 0
    if "--json" in command:
        json.loads(ran.stdout)
    elif command == ["plan"]:
        assert "cuda:0" in ran.output
