"""How many threads a forward uses.

Waking a second thread for a product of a few microseconds costs more than it gives, and on a busy machine a thread
that waits for its partner waits for the scheduler: with both cores loaded, a story of the default model took 0.15 s
on one thread and 5 to 10 s on two. Results do not depend on the number of threads (tests/nn/test_linear.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_SHARING = 2**20  # multiply-adds of the largest product: about 40 microseconds of one core

_lock = threading.Lock()
_inside = 0
_outside = 1


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """One thread while the block runs, if its largest product has fewer than `WORTH_SHARING` multiply-adds.

    Calls may nest and come from several threads: the number that the user set is restored by the last to leave.
    """
    global _inside, _outside
    if torch.compiler.is_compiling() or work >= WORTH_SHARING:
        yield
        return
    with _lock:
        if _inside == 0:
            _outside = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_outside)
