"""Host pages: where an accelerator's cached pages go when others need their room, to come back at a hit.

The same books as for any group; the tensors lie in the host's memory, pinned where the pages are on an accelerator, so
that a copy does not wait for the processor. On a CPU the two memories are one, and everything else is as it is there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.cache.group import PAGE, Group, Pool, made


class HostGroup(Group):
    """Pages that only prefixes name."""

    def pool(self, layer: int, k: Tensor, v: Tensor) -> Pool:
        if layer not in self.pools:
            with torch.inference_mode(False), torch.no_grad():
                like = (torch.empty(0, *x.shape[1:], dtype=x.dtype) for x in (k, v))
                pool = [made(None, x, self.capacity + 1, PAGE) for x in like]
                if k.device.type == "cuda":
                    pool = [x.pin_memory() for x in pool]
            self.pools[layer] = pool[0], pool[1]
        return self.pools[layer]

    def fill(self, page: int, source: Group, from_: int) -> None:
        """Copies a page of another group into this one."""
        for layer, (k_PSJK, v_PSJU) in source.pools.items():
            self.pool(layer, k_PSJK[0], v_PSJU[0])
        self.write(page, source.contents(from_))
