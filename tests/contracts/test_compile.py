"""`torch.compile` draws every family in one graph, and the graph's numbers are the model's own.

Dynamo draws; "eager" runs what it has drawn, so that families are checked in seconds. A few go through `aot_eager` too,
which traces gradients and what writes where; and inductor's own code is checked in the full contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import pellucid
import reference as ref
from models import tiny
from pellucid.errors import Unsupported
from pellucid.models.model import Model

ALL = ref.cases(variants=False, tasks=False)
PICKED = ("t5",)  # the others take minutes: make contract
CASES = ALL if ref.full() else [case for case in ALL if case.family in PICKED]
WRITERS = [case for case in CASES if case.task in ("causal-lm", "seq2seq-lm")]
DEEP = [case for case in ALL if case.family in ("llama", "bert", "gpt2", "t5", "mixtral", "mamba")]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Dynamo keeps what it has drawn for a function, and models share functions."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model_of(case: ref.Case, root: Path) -> Any:
    """Made by us where the config says all; else from a file that the reference wrote, which is slower."""
    values = dict(case.config)
    try:
        config = pellucid.AutoConfig.for_model(values.pop("model_type"), **values)
    except pellucid.errors.ArgumentError:  # keys that the family reads under another name
        return ref.ours(case, ref.checkpoint(case, root))
    model = ref.our_class(case.task).from_config(config).eval()
    ref.make_loud(model, case.fixture.get("norm_offset", 0.0), case.fixture.get("quiet"))
    return model


def compiled(model: Any, backend: str = "eager") -> tuple[Any, CompileCounterWithBackend]:
    counter = CompileCounterWithBackend(backend)
    return torch.compile(model, backend=counter, fullgraph=True), counter


def inputs(case: ref.Case, time: int = 11) -> dict[str, Any]:
    given = ref.inputs(case, time=time) | ref.options(case)
    given.pop("use_cache", None)
    return given


def padded(given: dict[str, Any], *, left: bool) -> dict[str, Any]:
    """The same under a mask that takes four tokens from the first row."""
    mask = torch.ones(given["input_ids"].shape, dtype=torch.long)
    mask[0, slice(4) if left else slice(-4, None)] = 0
    return given | {"attention_mask": mask}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_of_one_graph(case: ref.Case, checkpoints: Path) -> None:
    """Texts of one length, and under a mask with pads on the left; all gradients too."""
    model = model_of(case, checkpoints)
    one, counter = compiled(model)
    given = inputs(case)
    for asked in (given, padded(given, left=True)):
        found = backward(model, one, asked)
        wanted = backward(model, model, asked)
        assert ref.distance(found[0], wanted[0]) < 1e-5
        scale = max(float(grad.abs().max()) for grad in wanted[1:])
        for mine, right in zip(found[1:], wanted[1:]):
            assert float((mine - right).abs().max()) < 1e-4 * max(float(right.abs().max()), 1e-3 * scale)
    assert counter.frame_count == 2
    with torch.no_grad():
        asked = padded(given, left=False)
        assert ref.distance(ref.first(one(**asked, use_cache=False)), ref.first(model(**asked))) < 1e-5
    assert ref.distance(found[0], backward(model, model, given)[0]) > 1e-5  # the mask means something


def backward(model: Any, call: Any, given: dict[str, Any]) -> list[Tensor]:
    """The output, and the gradient of each parameter."""
    model.zero_grad()
    out = ref.first(call(**given, use_cache=False))
    out.square().mean().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    return [out.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained)]


@pytest.mark.parametrize("case", WRITERS, ids=str)
def test_steps_over_a_cache(case: ref.Case, checkpoints: Path) -> None:
    """A padded prompt and four tokens, one by one: two graphs, however long the rows become."""
    model = model_of(case, checkpoints)
    one, counter = compiled(model)
    with torch.no_grad():
        assert ref.distance(said(one, case), said(model, case)) < 1e-5
    assert counter.frame_count == 2


def said(call: Any, case: ref.Case) -> Tensor:
    """The logits of a prompt and of the tokens behind it."""
    ids = inputs(case)["input_ids"]
    pads = torch.ones_like(ids)
    pads[0, :2] = 0
    if case.task == "seq2seq-lm":
        output = call(ids, pads, decoder_input_ids=ids[:, :4], use_cache=True)
    else:
        output = call(ids[:, :4], pads[:, :4], use_cache=True)
    logits = [output.logits]
    for at in range(4, 8):
        token, cache = ids[:, at : at + 1], output.past_key_values
        if case.task == "seq2seq-lm":
            output = call(decoder_input_ids=token, encoder_outputs=None, past_key_values=cache)
        else:
            output = call(token, pads[:, : at + 1], past_key_values=cache)
        logits.append(output.logits)
    assert output.past_key_values.get_seq_length() == 8
    return torch.cat(logits, 1)


def test_lengths_do_not_draw_graphs() -> None:
    """The second length draws a graph that holds for all. (Each number of rows has graphs of its own.)"""
    model = tiny.make("llama", num_hidden_layers=1)
    one, counter = compiled(model)
    with torch.no_grad():
        for length in (9, 12, 17, 33):
            ids = tiny.ids(2, length)
            assert torch.allclose(one(ids, use_cache=False).logits, model(ids).logits, atol=1e-5)
    assert counter.frame_count == 2


@pytest.mark.parametrize("way", ["forward", "compile"] if ref.full() else ["compile"])
def test_generation_after_compiling(way: str) -> None:
    """What scripts for the reference do. The engine's own steps are as they were."""
    model = tiny.make("llama", num_hidden_layers=1)
    prompt = tiny.ids(2, 7)
    wanted = model.generate(prompt, max_new_tokens=5, do_sample=False)
    if way == "forward":
        model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
    else:
        model.compile(backend="eager", fullgraph=True)
    assert torch.equal(model.generate(prompt, max_new_tokens=5, do_sample=False), wanted)
    with torch.no_grad():
        assert torch.equal(model(prompt, use_cache=False).logits[:, -1].argmax(-1), wanted[:, 7])


def test_what_a_graph_cannot_do_is_refused() -> None:
    model: Model = tiny.make("llama", num_hidden_layers=1)
    one, _ = compiled(model)
    with pytest.raises(Exception, match=r"call it under torch\.no_grad"):  # torch's own, with our line in it
        one(tiny.ids(1, 3), use_cache=True)
    with tiny.refused(Unsupported, "gradients"):
        torch.compile(model, backend="eager")(tiny.ids(1, 3), use_cache=True)


def test_a_copy_of_a_model_runs_its_own_experts() -> None:
    import copy

    model = tiny.make("mixtral", num_hidden_layers=1)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for expert in other.blocks[0].mlp.experts:
            expert.down.weight.zero_()
        one, _ = compiled(other)
        ids = tiny.ids(1, 6)
        found = one(ids, use_cache=False).logits
        assert torch.allclose(found, other(ids).logits, atol=1e-5) and not torch.allclose(found, model(ids).logits)


@pytest.mark.skipif(not ref.full(), reason="takes minutes: make contract")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("case", DEEP, ids=str)
def test_compilers(case: ref.Case, backend: str, checkpoints: Path) -> None:
    model = model_of(case, checkpoints)
    given = padded(inputs(case), left=True)
    one, _ = compiled(model, backend)
    found, wanted = backward(model, one, given), backward(model, model, given)
    for mine, right in zip(found, wanted):
        assert ref.distance(mine, right) < 1e-3 or float((mine - right).abs().max()) < 1e-6
    if case in WRITERS:
        with torch.no_grad():
            assert ref.distance(said(one, case), said(model, case)) < 1e-4
