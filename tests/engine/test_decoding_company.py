"""Strategies in company: beside each other, in pieces, and with pages for a few, they give what they give alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.decoding import EOS, begin_of, case_of, pair, prompts_of
from pellucid.engine.decoding.beam import BeamSearch
from pellucid.engine.decoding.constrained import ConstrainedBeamSearch
from pellucid.engine.decoding.constraints import Phrase
from pellucid.engine.decoding.contrastive import Contrastive
from pellucid.engine.decoding.diverse import DiverseBeamSearch
from pellucid.engine.decoding.dola import Dola
from pellucid.engine.decoding.guidance import Guidance
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Request


def requests_of(model: Any, family: str) -> list[Request]:
    ways: list[dict[str, Any]] = [
        {"decoding": BeamSearch(beams=4), "n": 2},
        {"decoding": BeamSearch(beams=3), "n": 3, "sample": True, "seed": 3},
        {"decoding": DiverseBeamSearch(beams=4, groups=2, penalty=1.0), "n": 4},
        {"decoding": ConstrainedBeamSearch(beams=3, constraints=[Phrase([40, 41])])},
        {"decoding": Contrastive(alpha=0.6, top_k=4)},
        {},
    ]
    if model.encoder is None:
        ways += [
            {"reading": Guidance(scale=2.0, negative=[7, 8])},
            {"reading": Dola(layers=[0, 1]), "decoding": BeamSearch(beams=2), "n": 2},
            {"reading": Guidance(scale=2.0), "n": 3, "sample": True, "seed": 4},
        ]
    prompts = prompts_of(case_of(family), [40, 3, 35, 11, 37, 7, 9, 33, 1][: len(ways)])
    return [
        Request(ids=prompt, begin=begin_of(model), max_new=8, eos=frozenset(EOS), **way)
        for prompt, way in zip(prompts, ways)
    ]


def found(jobs: list[Job]) -> list[list[tuple[list[int], list[int]]]]:
    return [[(output.ids, output.beams) for output in job.result()] for job in jobs]


@pytest.mark.parametrize("family", ["llama", "gemma2", "jamba", "t5"])
def test_company_does_not_matter(family: str, checkpoints: Path) -> None:
    model, _ = pair(family, checkpoints)
    requests = requests_of(model, family)
    alone = [found(Engine(model).generate([request]))[0] for request in requests]
    assert found(Engine(model).generate(requests)) == alone
    assert found(Engine(model, budget=7).generate(requests)) == alone

    engine = Engine(model, 14)  # pages of 32 tokens: all together want twice as many
    jobs = [engine.add(request) for request in requests]
    while engine.busy:
        engine.step()
        engine.check()
    assert found(jobs) == alone
    assert sum(job.preempted for job in jobs) > 0
    assert not any(job.seqs for job in jobs)
