"""Every packed format on the accelerator: the processor's numbers, in a model and by itself."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import reference as ref
from accelerator.packers import BLOCKS, PACKERS, SIZES, packer
from pellucid import AutoModelForCausalLM
from pellucid.models.loading import load
from pellucid.ops.packed import PackedTensor, exactly
from pellucid.quant._blocks import GgufBlocks


@pytest.fixture
def folder(checkpoints: Path) -> Path:
    case = ref.case("llama", "", "causal-lm")
    return ref.checkpoint(replace(case, variant="to be packed", config={**case.config, **SIZES}), checkpoints)


def model_of(folder: Path, kind: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """`pack` is for the tests of formats; a user's model comes from a file that is packed already."""
    auto: Any = AutoModelForCausalLM
    return load(folder=folder, task=auto.TASK, model_class=auto, dtype=dtype, pack=packer(kind, tables=True), **options)


IDS = torch.randint(3, 100, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_model_says_what_it_says_on_the_processor(kind: str, folder: Path, device: str) -> None:
    """In float32, where nothing is rounded; many rows and few; then greedy ids, whose steps a graph holds."""
    mine = model_of(folder, kind)
    there = copy.deepcopy(mine).to(device)
    left = [name for name, p in there.named_parameters() if isinstance(p, PackedTensor)]
    assert len(left) >= 14 and all(str(p.device) == device for p in there.parameters())
    with torch.inference_mode(), exactly():
        wanted, few = mine(IDS).logits, mine(IDS[:1, :3]).logits
        assert ref.distance(there(IDS.to(device)).logits.cpu(), wanted) < 1e-4
        assert ref.distance(there(IDS[:1, :3].to(device)).logits.cpu(), few) < 1e-4
        asked: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12}
        assert there.generate(IDS.to(device), **asked).tolist() == mine.generate(IDS, **asked).tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["q8_0", "q4_k", "q6_k", "nf4, double", "LLM.int8", "gptq 4", "awq", "fp8", "hqq"])
def test_in_16_bits(kind: str, dtype: torch.dtype, folder: Path, device: str) -> None:
    exact, there = model_of(folder, kind), model_of(folder, kind, dtype, device=device)
    with torch.inference_mode(), exactly():
        wanted, found = exact(IDS).logits, there(IDS.to(device)).logits
    assert found.dtype == dtype and ref.distance(found.float().cpu(), wanted) < 8 * torch.finfo(dtype).eps
    assert there.generate(IDS.to(device), do_sample=False, max_new_tokens=8).shape == (3, 19)


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_of_any_bytes(kind: str, device: str) -> None:
    """All kinds of GGUF, also those that nobody here packs."""
    block, size = BLOCKS[kind].block, BLOCKS[kind].nbytes
    chance = torch.Generator().manual_seed(0)
    bytes_RB = torch.randint(0, 256, (4, 4 * size), generator=chance, dtype=torch.uint8)
    mine = GgufBlocks({"blocks": bytes_RB}, kind, (4, 4 * block))
    there = mine.to(device)
    assert isinstance(there, PackedTensor) and str(there.device) == device
    found, wanted = there.dense().cpu(), mine.dense()
    real = wanted.isfinite()
    assert torch.equal(found.isfinite(), real)
    assert torch.allclose(found[real], wanted[real], rtol=1e-6)


def test_moved_in_inference_mode(folder: Path, device: str) -> None:
    with torch.inference_mode():
        there = model_of(folder, "q8_0").to(device)
    assert sum(isinstance(p, PackedTensor) for p in there.parameters()) >= 14


def test_packed_while_it_is_loaded(folder: Path, device: str) -> None:
    mine = AutoModelForCausalLM.from_pretrained(folder, load_in_4bit=True)
    there = AutoModelForCausalLM.from_pretrained(folder, load_in_4bit=True, device=device)
    with torch.inference_mode():
        assert ref.distance(there(IDS.to(device)).logits.float().cpu(), mine(IDS).logits.float()) < 1e-4
    eight = AutoModelForCausalLM.from_pretrained(folder, load_in_8bit=True, device_map=device)
    assert eight.generate(IDS.to(device), do_sample=False, max_new_tokens=4).shape == (3, 15)


def test_an_adapter_beside_packed_matrices_is_trained(folder: Path, device: str) -> None:
    model = model_of(folder, "nf4", torch.bfloat16, device=device)
    down = torch.nn.Parameter(torch.randn(4, 256, device=device, dtype=torch.bfloat16) / 16)
    up = torch.nn.Parameter(torch.zeros(256, 4, device=device, dtype=torch.bfloat16))
    model.blocks[0].attn.q.register_forward_hook(lambda module, args, out: out + args[0] @ down.t() @ up.t())
    optimizer = torch.optim.Adam([down, up], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = model(IDS.to(device), labels=IDS.to(device)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] and up.grad is not None


def test_saved_from_the_accelerator(folder: Path, device: str, tmp_path: Path) -> None:
    there = AutoModelForCausalLM.from_pretrained(folder, load_in_4bit=True, device=device)
    there.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for (name, mine), (_, other) in zip(there.state_dict().items(), again.state_dict().items()):
        assert torch.equal(mine.dense().cpu() if isinstance(mine, PackedTensor) else mine.cpu(), other + 0), name
