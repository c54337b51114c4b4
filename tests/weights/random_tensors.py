"""Random tensors of every dtype that safetensors knows, and their bytes."""

import torch
from hypothesis import strategies as st

from pellucid.weights.safetensors import DTYPES


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


TORCH_DTYPES = {name: getattr(torch, torch_name) for name, (_, torch_name) in DTYPES.items() if torch_name}


@st.composite
def some_tensors(draw) -> dict[str, torch.Tensor]:
    found = {}
    for name in draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), max_size=4, unique=True)):
        dtype = draw(st.sampled_from([name for name in TORCH_DTYPES if name not in ("F4", "BOOL")]))
        shape = draw(st.lists(st.integers(0, 5), max_size=3))
        count = int(torch.tensor(shape).prod()) * DTYPES[dtype][0] // 8
        raw = torch.randint(256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
        found[name] = raw.view(TORCH_DTYPES[dtype]).view(shape)
    return found
