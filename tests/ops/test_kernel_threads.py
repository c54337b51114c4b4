"""The kernels run on torch's threads, as many as torch is told, also in the workers of a data loader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from native import needs_kernels
from pellucid.ops import cpu

pytestmark = needs_kernels(cpu.kernels() is not None and cpu.bfloat16_way() > 0)

ALONE = """
import os, torch
from pellucid.ops import cpu
torch.set_num_threads(1)
w, x = torch.ones(2048, 2048).bfloat16(), torch.ones(4, 2048).bfloat16()
def threads(): return len(os.listdir("/proc/self/task"))
cpu.product(x[:1, :8], w[:4, :8], None)
before = threads()
cpu.product(x, w, None)
assert threads() == before, (before, threads())
torch.set_num_threads(3)
for _ in range(3): cpu.product(x, w, None)
assert threads() == before + 2, (before, threads())
"""


def test_as_many_threads_as_torch_is_told() -> None:
    subprocess.run([sys.executable, "-c", ALONE], check=True, timeout=120)


class Products(torch.utils.data.Dataset):
    """Each item is a product that two threads share where they may."""

    weight = torch.ones(1024, 1024, dtype=torch.bfloat16)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, which: int) -> float:
        return float(cpu.product(torch.ones(4, 1024, dtype=torch.bfloat16), self.weight, None).float().mean())


def forked() -> None:
    torch.set_num_threads(2)
    whole = Products()[0]  # the threads are there before the workers are forked
    loader = torch.utils.data.DataLoader(Products(), num_workers=1, multiprocessing_context="fork", timeout=60)
    assert [item.item() for item in loader] == [whole, whole] == [1024.0, 1024.0]


def test_workers_of_a_data_loader() -> None:
    """In a process of its own: a fork copies what other tests have started."""
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = f"import sys; sys.path[:0] = {path}; import test_kernel_threads; test_kernel_threads.forked()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
