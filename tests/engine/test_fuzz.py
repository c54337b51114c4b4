"""Anything at any time: requests that come, go, fork, stop and run out of pages, beside one plain loop for each.

10,000 steps over ten seeds for each kind of model; `PELLUCID_FUZZ=100` runs the seeds 0 to 99.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import lru_cache
from typing import Any

import pytest
import torch

from models import tiny
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Request
from pellucid.engine.sampling import draw
from pellucid.errors import InputError

STEPS = 1000
SEEDS = range(int(os.environ.get("PELLUCID_FUZZ", "10")))
MODELS = {
    "llama": 0.5,
    "gemma2": 0.3,
    "jamba": 0.2,
}  # pages, a window, states
PAGES, VOCAB = 9, 100
BEGINNINGS = [tiny.ids(n, seed=n).tolist() for n in (33, 64, 70, 97)]


@lru_cache(maxsize=1)
def model_of(family: str) -> Any:
    return tiny.make(family, max_position_embeddings=512)


def check(model: Any, job: Job, at: int) -> None:
    """Each token is what a plain loop chooses: the whole text through the model, without cache and engine.

    One pass gives the logits behind every token. Sampling draws once for each, from the seed.
    """
    request, output = job.request, job.outputs[at]
    chance = torch.Generator().manual_seed(request.seed + at) if request.sample else None
    if output.ids:
        with torch.inference_mode():
            whole = model(torch.tensor([[*request.ids, *output.ids[:-1]]]), use_cache=False).logits[0]
        for place, (token, logits) in enumerate(zip(output.ids, whole[len(request.ids) - 1 :])):
            if chance is None:
                assert logits.max() - logits[token] < 1e-4, f"token {place} of {output.ids}"
            else:
                drawn = draw(logits.softmax(-1), chance)
                assert drawn == token, f"token {place} of {output.ids}, and {drawn} by a plain loop"
    if output.finish == "stop":
        assert output.ids[-1] in request.eos
    if output.finish == "length":
        assert len(output.ids) == job.most
    assert not set(output.ids[:-1]) & request.eos


class Chaos:
    """Draws what happens next."""

    def __init__(self, family: str, seed: int) -> None:
        self.dice = random.Random(f"{family} {seed}")
        self.model = model_of(family)
        self.engine = Engine(
            self.model, pages=PAGES, budget=self.dice.choice((24, 60, 200)), rows=self.dice.choice((5, 9))
        )
        self.live: list[Job] = []
        self.done = dict.fromkeys(("stop", "length", "cancelled", "error"), 0)
        self.preempted = self.forks = 0

    def prompt(self) -> list[int]:
        if self.dice.random() < 0.5:
            beginning = self.dice.choice(BEGINNINGS)
            return [*beginning[: self.dice.randint(1, len(beginning))], *self.some(self.dice.randint(0, 5))]
        return self.some(self.dice.choice((1, 2, 31, 32, 33, 60)))

    def some(self, count: int) -> list[int]:
        return [self.dice.randrange(3, VOCAB) for _ in range(count)]

    def add(self) -> None:
        dice = self.dice
        sample = dice.random() < 0.3
        request = Request(
            ids=self.prompt(), max_new=dice.choice((1, 5, 30, 90)), eos=frozenset(self.some(dice.choice((0, 0, 9)))),
            sample=sample, seed=dice.randrange(10**6) if sample else None, n=dice.randint(1, 3) if sample else 1,
            priority=dice.choice((0, 0, 1)),
        )  # fmt: skip
        self.live.append(self.engine.add(request))

    def wrong(self) -> None:
        """A request that the model cannot take is done at once, and nobody else notices."""
        ids = self.dice.choice(([], [VOCAB * 50], [-1], self.some(33 * PAGES * 2)))
        job = self.engine.add(Request(ids=ids, max_new=3))
        if job.state == "done":
            assert isinstance(job.error, InputError)
        else:  # too long for the pages: known when it is its turn
            self.live.append(job)

    def fork(self) -> None:
        able = [j for j in self.live if j.state == "running" and j.request.n == 1 and not j.request.sample]
        able = [job for job in able if job.outputs[0].ids]
        if able:
            self.live.append(self.engine.fork(self.dice.choice(able)))
            self.forks += 1

    def settle(self) -> None:
        for job in [job for job in self.live if job.state == "done"]:
            self.live.remove(job)
            self.preempted += job.preempted
            for at, output in enumerate(job.outputs):
                check(self.model, job, at)
                self.done[output.finish] += 1
            if job.error is not None:
                assert isinstance(job.error, InputError) and "pages" in str(job.error), job.error
                most = -(-(len(job.request.ids) + job.request.max_new) // 32) * job.request.n
                assert most > PAGES, f"{job.error}, and all pages hold it"
            assert not job.seqs

    def step(self) -> None:
        dice = self.dice.random()
        if dice < 0.16 and len(self.live) < 12:
            self.add()
        elif dice < 0.19 and self.live:
            self.engine.cancel(self.dice.choice(self.live))
        elif dice < 0.23:
            self.fork()
        elif dice < 0.24:
            self.wrong()
        self.engine.step()
        self.engine.check()
        self.settle()


@pytest.mark.parametrize("family", MODELS)
def test_chaos(family: str) -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        chaos = Chaos(family, seed)
        for _ in range(int(STEPS * MODELS[family])):
            chaos.step()
        while chaos.engine.busy:
            chaos.engine.step()
            chaos.engine.check()
        chaos.settle()
        assert not chaos.live
        counts = chaos.engine.main.pages.counts()
        assert counts["held"] == 0, counts
        seen.update(chaos.done)
        seen.update(preempted=chaos.preempted, forks=chaos.forks)
    print(family, dict(seen))
    assert all(seen[what] for what in ("stop", "length", "cancelled", "error", "preempted", "forks")), seen
