"""A cache goes to a file and comes back: every kind of model goes on as before; a bad file is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import tiny
from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE
from pellucid.errors import ArgumentError, PellucidError, WeightsError
from pellucid.models.snapshot import load, save
from pellucid.weights.safetensors import SafetensorsFile
from pellucid.weights.save import save_file


def filled(family: str, quantized: str | None = None, tokens: int = 45) -> tuple[Any, Cache, torch.Tensor]:
    model = tiny.make(family)
    ids_BT, cache = tiny.ids(2, tokens), Cache(2, quantized=quantized)
    with torch.inference_mode():
        if model.encoder is not None:
            model(ids_BT, decoder_input_ids=ids_BT[:, :7], past_key_values=cache)
        else:
            model(ids_BT, past_key_values=cache)
    return model, cache, ids_BT


def on(model: Any, cache: Cache, ids_BT: torch.Tensor) -> torch.Tensor:
    given = {"decoder_input_ids" if model.encoder is not None else "input_ids": ids_BT}
    if model.encoder is not None:
        given["input_ids"] = ids_BT  # the encoder's output is in the cache
    with torch.inference_mode():
        logits: torch.Tensor = model(**given, past_key_values=cache).logits
    return logits


@pytest.mark.parametrize("quantized", [None, "int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "mamba", "lfm2", "deepseek_v3"])
def test_it_goes_on_as_if_nothing_had_happened(family: str, quantized: str | None, tmp_path: Path) -> None:
    model, cache, ids_BT = filled(family, quantized, 45 if quantized is None else 200)
    cache.fork(0)
    save(cache, tmp_path / "cache.safetensors", model, [[1], [2], [3]])
    again, ids = load(tmp_path / "cache.safetensors", model)
    assert ids == [[1], [2], [3]]
    again.pages.check()
    held = [len({page for row in each.rows for page in row.held()}) for each in (again, cache)]
    assert held[0] == held[1]  # forks share their pages again
    more = tiny.ids(3, 4, seed=2)
    assert torch.equal(on(model, again, more), on(model, cache, more))
    again.pages.check()
    again.trim(0, 0)


def test_an_encoders_output_is_in_it(tmp_path: Path) -> None:
    model, cache, _ = filled("t5")
    save(cache, tmp_path / "cache.safetensors", model)
    again, ids = load(tmp_path / "cache.safetensors", model)
    assert ids is None
    assert [row.memory for row in again.rows] == [45, 45]
    for row, kept in zip(again.rows, cache.rows):
        for layer in again.pages.group("memory").pools:
            assert torch.equal(row.read(layer, "memory", 45)[0], kept.read(layer, "memory", 45)[0])


def test_nothing_else_of_the_memory_is_in_it(tmp_path: Path) -> None:
    model, cache, _ = filled("llama")
    for k, v in cache.pages.group(None).pools.values():
        for row in cache.rows:
            k[row.tables[None].pages[-1], 45 % PAGE :] = v[row.tables[None].pages[-1], 45 % PAGE :] = float("nan")
    save(cache, tmp_path / "cache.safetensors", model)
    file = SafetensorsFile(tmp_path / "cache.safetensors")
    assert not any(file.tensor(name).isnan().any() for name in file.entries)


def test_another_models_is_refused(tmp_path: Path) -> None:
    model, cache, _ = filled("llama")
    path = tmp_path / "cache.safetensors"
    save(cache, path, model)
    other = tiny.make("llama")
    with torch.no_grad():
        next(other.parameters())[0] += 1
    for wrong in (other, tiny.make("gpt2"), tiny.make("llama").double(), tiny.make("llama", num_hidden_layers=1)):
        with tiny.refused(ArgumentError, "another model", "llama float32"):
            load(path, wrong)
    with tiny.refused(ArgumentError, "cache of 2"):
        save(cache, path, model, [[1]])


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    model, cache, _ = filled("llama")
    path = tmp_path / "cache.safetensors"
    save_file({"x": torch.zeros(1)}, path, {})
    with tiny.refused(WeightsError, "not a saved cache"):
        load(path, model)
    save(cache, path, model)
    whole = path.read_bytes()
    for length in (0, 7, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            load(path, model)


JSON = st.one_of(
    st.none(), st.integers(-2, 99), st.just(2**60), st.just("memory"), st.just([]), st.just({}), st.just([7])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_descriptions(data: st.DataObject, tmp_path: Path) -> None:
    """Any value anywhere in the description: an error of ours, or a cache whose books are right."""
    path = tmp_path / "cache.safetensors"
    model, good, tensors, metadata = _good(path)
    description = json.loads(metadata["description"])
    at: Any = description
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        inner = at[key]
        if not (isinstance(inner, dict | list) and inner) or data.draw(st.integers(0, 5)) == 0:
            break
        at = inner
    if data.draw(st.booleans()):
        at[key] = data.draw(JSON)
    else:
        del at[key]
    save_file(tensors, path, metadata | {"description": json.dumps(description)})
    try:
        cache, _ = load(path, model)
    except PellucidError:
        return
    cache.pages.check()
    if len(cache) == 2:
        on(model, cache, tiny.ids(2, 3))


def _good(path: Path) -> tuple[Any, Cache, dict[str, torch.Tensor], dict[str, str]]:
    if not KEPT:
        model, cache, _ = filled("gemma2")
        save(cache, path, model)
        file = SafetensorsFile(path)
        tensors = {name: file.tensor(name).clone() for name in file.entries}
        KEPT.append((model, cache, tensors, dict(file.metadata)))
    return KEPT[0]


KEPT: list[Any] = []
