"""A placement is executed: every module on its device, the residual moved at borders, the same numbers.

No accelerator runs here. "cpu:1" is a device of its own to a placement, and the processor to torch: so rows, caches and
what layers share cross borders with real numbers. On the meta device torch refuses every operation whose inputs are on
two devices: so nothing that a block reads was left behind.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from models import tiny
from models.tiny import refused
from pellucid.cache.batch import Batch
from pellucid.cache.cache import Cache
from pellucid.errors import ArgumentError, Unsupported
from pellucid.models import placing
from pellucid.models.placing import place

SPLIT = {"": "cpu", "blocks.1": "cpu:1", "blocks.2": "cpu:1"}


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "llama"])
def test_the_same_numbers_over_borders(family: str) -> None:
    """Windows, tied heads, rows of several lengths, a cache; what is there already is not copied."""
    whole, split = tiny.make(family), tiny.make(family)
    split.load_state_dict(whole.state_dict())
    held = [id(p) for p in split.blocks[0].parameters()]
    place(split, SPLIT)
    assert [id(p) for p in split.blocks[0].parameters()] == held
    assert split.placement["blocks.1"] == "cpu:1" and split.placement["blocks.0"] == "cpu"
    ids = tiny.ids(2, 40)
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    assert torch.equal(split(ids, mask).logits, whole(ids, mask).logits)
    options: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 30, "do_sample": False}
    assert torch.equal(split.generate(ids, **options), whole.generate(ids, **options))


def test_an_encoder_beside_a_decoder() -> None:
    whole, split = tiny.make("t5"), tiny.make("t5")
    split.load_state_dict(whole.state_dict())
    decoder = {unit: "cpu:1" for unit in placing._units(split) if unit.startswith("blocks.")}
    place(split, {"": "cpu", **decoder})
    ids = tiny.ids(2, 9)
    assert torch.equal(tiny.call(split, ids), tiny.call(whole, ids))
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(split.generate(ids, **options), whole.generate(ids, **options))


@pytest.mark.parametrize("family", ["gemma2", "lfm2", "llama"])
def test_blocks_read_nothing_of_another_device(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "device_name", str)
    monkeypatch.setattr(placing.Leave, "__call__", lambda self, module, args, result: result)  # meta has no numbers
    model = tiny.make(family)
    last = len(model.blocks) - 1
    place(model, {"": "cpu", f"blocks.{last - 1}": "meta", f"blocks.{last}": "meta", "norm": "meta"})
    cache = Cache(2)
    with torch.inference_mode():
        for lengths, ends, places in (([5, 3], [5, 3], [0, 1, 2, 3, 4, 0, 1, 2]), ([1, 1], [6, 4], [5, 3])):
            ids_N = torch.zeros(len(places), dtype=torch.int64)
            batch = Batch(lengths, torch.tensor(places), ends, cache, ids=ids_N)
            assert model.run(model.embed.tokens(ids_N), batch).device.type == "meta"
            batch.finish()
    pools = {layer: pool for group in cache.pages.groups.values() for layer, pool in group.pools.items()}
    assert all(pool[0].device.type == ("meta" if layer >= last - 1 else "cpu") for layer, pool in pools.items())
    for layer, state in cache.rows[0].states.items():
        assert all(t.device.type == ("meta" if layer >= last - 1 else "cpu") for t in state)


def test_one_device_has_no_hooks(tmp_path: Path) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    planned = pellucid.plan(tmp_path, measure=False)
    model = tiny.auto("llama").from_pretrained(tmp_path, plan=planned)
    assert set(planned.placement.values()) == {"cpu"} and model.hf_device_map == {"": "cpu"}
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_what_stays_on_the_disk_is_mapped(tmp_path: Path) -> None:
    """A plan over little memory puts blocks there; they are the file's own pages, before and after a forward."""
    made = tiny.make("llama")
    made.save_pretrained(tmp_path)
    planned = pellucid.plan(tmp_path, devices={"cpu": 100_000, "disk": None}, context=8, measure=False)
    stay = [unit for unit, device in planned.placement.items() if device == "disk"]
    assert stay and "embed" not in stay and not planned.fits
    model = tiny.auto("llama").from_pretrained(tmp_path, plan=planned)
    assert dict(model.placement) == dict(planned.placement)
    torch.testing.assert_close(tiny.call(model, tiny.ids(1, 8)), tiny.call(made, tiny.ids(1, 8)))
    for unit in stay:
        for _, parameter in model.get_submodule(unit).named_parameters():
            assert parameter.source.address == parameter.data_ptr()
    with refused(ArgumentError, "converted to torch.bfloat16"):
        tiny.auto("llama").from_pretrained(tmp_path, plan=planned, dtype="bfloat16")


def test_file_names_and_packed_weights(tmp_path: Path) -> None:
    """`device_map` as scripts write it, while matrices are packed."""
    tiny.make("llama").save_pretrained(tmp_path)
    named = {"model.embed_tokens": "cpu", "model.layers.0": "cpu:1", "": "cpu"}
    options: dict[str, Any] = {"load_in_8bit": True}
    split = tiny.auto("llama").from_pretrained(tmp_path, device_map=named, **options)
    assert split.hf_device_map["blocks.0"] == "cpu:1" and split.hf_device_map["lm_head"] == "cpu"
    whole = tiny.auto("llama").from_pretrained(tmp_path, **options)
    assert torch.equal(tiny.call(split, tiny.ids(1, 6)), tiny.call(whole, tiny.ids(1, 6)))


@pytest.mark.parametrize(
    "placement, kind, says",
    [
        ({}, ArgumentError, "no device for embed"),
        ({"blocks.0": "cpu"}, ArgumentError, "no device for embed"),
        ({"": "cpu", "blocks.7": "cpu"}, ArgumentError, "blocks.7"),
        ({"": "gpu"}, ArgumentError, "'gpu'"),
        ({"": "cpu", "blocks.0.attn": "cpu:1", "blocks.0": "cpu"}, None, ""),
        ({"embed": "cpu", "blocks": "cpu:1", "norm": "cpu", "lm_head": "cpu"}, None, ""),
        ({"embed": "cpu", "blocks.0.attn": "cpu:1", "blocks.0.mlp": "cpu", "": "cpu:2"}, None, ""),
    ],
    ids=str,
)
def test_names(placement: dict[str, str], kind: Any, says: str) -> None:
    if kind is None:
        place(tiny.make("llama"), placement)
        return
    with refused(kind, says):
        place(tiny.make("llama"), placement)


def test_what_must_stay_together() -> None:
    with refused(ArgumentError, "one matrix"):
        place(tiny.make("gpt2"), {"": "cpu", "lm_head": "cpu:1"})
    with refused(Unsupported, "keys and values of others"):
        place(_borrowing(), SPLIT)


def _borrowing() -> Any:
    """A Llama whose spec says that a layer reads another's keys."""
    model = tiny.make("llama")
    blocks = list(model.spec.stack.blocks)
    blocks[1] = replace(blocks[1], attn=replace(blocks[1].attn, kv_from=0))
    model.spec = replace(model.spec, stack=replace(model.spec.stack, blocks=tuple(blocks)))
    return model
