"""Small tables of numbers on the device that reads them.

Copying one from the host at each use waits for an accelerator, and a graph can hold no such copy. So each is made once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_made: dict[tuple[tuple[float, ...], torch.dtype, torch.device], Tensor] = {}


def constant(values: Iterable[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """These numbers as a vector, to read only: the same tensor each time."""
    values = tuple(values)
    if torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    key = values, dtype, device
    found = _made.get(key)
    if found is None:
        with torch.inference_mode(False):
            found = torch.tensor(values, dtype=dtype, device=device)
        if type(found) is Tensor:  # none that a tracer made up
            _made[key] = found
    return found
