"""A row that begins with what another has read goes on like one that reads everything; also after its fork is gone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import reference as ref
from models import tiny
from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE
from pellucid.cache.pages import Pages
from pellucid.cache.row import Row


def read(model: Any, row: Row, ids: list[int]) -> torch.Tensor:
    """The tokens that the row has not; logits after each."""
    cache = Cache(0, row.home)
    cache.rows = [row]
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids[row.length :]]), past_key_values=cache).logits[0]
    return logits


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "lfm2", "mamba", "deepseek_v3", "bloom", "llama4_text"])
def test_a_prefix_is_as_good_as_reading_it(family: str) -> None:
    longer = {"n_positions": 150} if family == "gpt2" else {}
    model, pages = tiny.make(family, **longer), Pages(40)
    ids = tiny.ids(3 * PAGE + 9).tolist()
    first = Row(pages)
    read(model, first, ids[: 2 * PAGE])
    first.publish(ids)
    read(model, first, ids[: 2 * PAGE + 5])
    first.publish(ids)
    stateful = bool(first.states)
    first.drop()
    pages.check()
    row = Row(pages)
    assert row.attach(ids) == 2 * PAGE
    found = read(model, row, ids)
    alone = read(model, Row(Pages()), ids)[2 * PAGE :]
    assert ref.distance(found, alone) < 2e-6
    assert torch.equal(found.argmax(-1), alone.argmax(-1))
    pages.check()
    other = [*ids[: 2 * PAGE - 1], ids[0] + 1, *ids[2 * PAGE :]]
    assert Row(pages).attach(other) == (0 if stateful else PAGE)


def test_text_of_a_full_cache_is_the_same(shared: Any) -> None:
    """stories260K: three texts turn by turn in so few pages that each reading makes another give way."""
    from pellucid import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(shared / "models/stories260K/hf")
    pages = Pages(6, host=2)
    texts = [[1, *tiny.ids(2 * PAGE + n, seed=n).tolist()] for n in (3, 9, 17)]
    alone = [read(model, Row(Pages()), ids)[-1] for ids in texts]
    found = 0
    for turn in range(9):
        ids, row = texts[turn % 3], Row(pages)
        found += row.attach(ids)
        logits = read(model, row, ids)[-1]
        assert ref.distance(logits, alone[turn % 3]) < 2e-6
        row.publish(ids)
        del row
        pages.check()
    assert found > 0
