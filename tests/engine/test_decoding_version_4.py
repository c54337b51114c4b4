"""Diverse and constrained beams, contrastive search and DoLa: the ids of version 4 of the reference, which has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.decoding import contains, pair, run
from engine.record_version_4 import DATA
from pellucid.engine.decoding.choice import decodings, reading
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Output
from pellucid.engine.rules.penalties import RepetitionPenalty

ROWS = json.loads(DATA.read_text())["rows"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("way", ["diverse", "constrained", "contrastive", "dola"])
def test_ids_are_those_of_version_4(family: str, way: str, checkpoints: Path) -> None:
    if (family, way) == ("t5", "dola"):
        pytest.skip("DoLa is for models without an encoder")
    model, _ = pair(family, checkpoints)
    rows = [row for row in ROWS if (row["family"], row["way"]) == (family, way)]
    same = [compare(model, row) for row in rows]
    assert sum(same) >= 0.6 * len(rows) > 0


def compare(model: Any, row: dict[str, Any]) -> bool:
    """False where version 4 loses a constraint, and we do not."""
    options = GenerationConfig(**row["options"], pad_token_id=1)
    [job] = run(
        model, [row["prompt"]], eos=frozenset(options.eos), n=options.num_return_sequences,
        decoding=decodings(options), reading=reading(options),
        rules=[RepetitionPenalty(options.repetition_penalty)] if options.repetition_penalty != 1 else [],
    )  # fmt: skip
    words = options.force_words_ids or []
    assert all(contains(output.ids, word) for output in job.result() for word in words)
    if not all(contains(ids, word) for ids in row["ids"] for word in words):
        return False
    for i, (output, ids) in enumerate(zip(job.result(), row["ids"], strict=True)):
        same(output, ids, row["scores"] and row["scores"][i], options.eos_token_id[0])
    return True


def same(output: Output, ids: list[int], score: float | None, end: int) -> None:
    """Where there are several ends, version 4 writes the first of them behind every beam that ended."""
    found = output.ids
    if score is not None:
        assert output.score == pytest.approx(score, abs=2e-4)
        found = [*found[:-1], end] if output.finish == "stop" else found
    assert ids[: len(found)] == found
    assert set(ids[len(found) :]) <= {1}
