"""Perplexity and KL divergence against their definitions written out, over windows that overlap."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from models import tiny
from pellucid.models import quality
from pellucid.models.quality import compared, perplexity, windows


def changed(model: torch.nn.Module, share: float) -> torch.nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(noise * parameter.std(correction=0) * share)
    return other


def test_windows_count_every_token_once() -> None:
    for total in (2, 7, 8, 9, 20, 33):
        found = list(windows(range(total), 8))
        counted = [token for window in found for token in window.ids[max(window.first, 1) :]]
        assert counted == list(range(1, total)), total
        assert all(len(window.ids) <= 8 for window in found)
        assert all(window.first >= 4 for window in found[1:])  # half a window is before what counts
    assert list(windows([5], 8)) == []


@pytest.mark.parametrize("few", [False, True])
def test_both_are_their_definitions(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the logits of one token are in memory at a time."""
    if few:
        monkeypatch.setattr(quality, "NUMBERS", 1)
    model = tiny.make("llama")
    other = changed(model, 0.1)
    ids = tiny.ids(1, 19)[0]
    with torch.no_grad():
        one, two = (each(ids[None]).logits[0, :-1].double().log_softmax(-1) for each in (model, other))
    nats = (one.exp() * (one - two)).sum(-1)
    found = compared(model, other, list(windows(ids.tolist(), 32)))
    nll = [-float(each.gather(1, ids[1:, None]).mean()) for each in (one, two)]
    assert found.tokens == 18
    assert found.perplexity_before == pytest.approx(math.exp(nll[0]), rel=1e-4)
    assert found.perplexity_after == pytest.approx(math.exp(nll[1]), rel=1e-4)
    assert found.kl_mean == pytest.approx(float(nats.mean()), rel=1e-3) and found.kl_mean > 1e-4
    assert found.kl_99 == pytest.approx(float(nats.sort().values[16]), rel=1e-3)
    assert found.same_top == pytest.approx(float((one.argmax(-1) == two.argmax(-1)).double().mean()))
    assert perplexity(model, list(windows(ids.tolist(), 32))) == pytest.approx(found.perplexity_before, rel=1e-6)


def test_a_model_is_as_good_as_itself_and_worse_when_it_is_worse() -> None:
    model = tiny.make("gpt2")
    text = list(windows(tiny.ids(1, 60)[0].tolist(), 16))
    same, little, much = (compared(model, changed(model, share), text) for share in (0.0, 0.02, 0.3))
    assert same.kl_mean == 0 and same.same_top == 1 and same.perplexity_before == same.perplexity_after
    assert little.kl_mean is not None and much.kl_mean is not None and 0 < little.kl_mean < much.kl_mean / 10
    assert set(same.facts()) == {
        "tokens", "perplexity_before", "perplexity_after", "kl_mean", "kl_99", "same_top"
    }  # fmt: skip


@pytest.mark.parametrize(("family", "task"), [("bert", "lm"), ("t5", "lm"), ("bert", None)])
def test_models_that_continue_no_text(family: str, task: str | None) -> None:
    model = tiny.make(family, task)
    text = list(windows(tiny.ids(1, 20)[0].tolist(), 16))
    same, other = (compared(model, changed(model, share), text).facts() for share in (0.0, 0.1))
    assert "perplexity_after" not in other
    name = "drift" if task is None else "kl_mean"
    assert same[name] == 0 and other[name] > 1e-4
