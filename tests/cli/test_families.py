"""pellucid families: the list of what loads, in three forms."""

from __future__ import annotations

import json
from pathlib import Path

from pellucid import families
from pellucid.cli._parts import words
from pellucid.spec import Custom

ROOT = Path(__file__).parents[2]


def test_every_type_has_a_line_with_its_heads_and_its_distance(call):
    lines = call("families").stdout.splitlines()
    types = {line.split()[0] for line in lines if line}
    assert types >= {"llama", "gemma2", "gpt2", "bert", "t5", "gpt-sw3"}
    bert = next(line for line in lines if line.startswith("bert "))
    for part in ("masked", "sequence", "token", "span", "base", "post-norm", "learned positions", "layer norms"):
        assert part in bert
    assert lines[-1].startswith(f"{len(families.names())} model types: ") and "causal-lm" in lines[-1]


def test_json_says_the_same_in_full(call):
    found = {entry["type"]: entry for entry in json.loads(call("families", "--json").stdout)}
    assert len(found) == len(families.names())
    assert {"causal-lm", "sequence-classification", "base"} <= {*found["gemma2"]["heads"]}
    assert {"windows", "capped scores", "sandwich norms", "grouped queries"} <= {*found["gemma2"]["parts"]}
    assert 0 < found["llama"]["parity"]["causal-lm"] < 1e-4


def test_the_page_of_models_is_current(call):
    """After a change of families: `pellucid families --markdown > docs/models.md`."""
    assert call("families", "--markdown").stdout == (ROOT / "docs" / "models.md").read_text("utf-8")


def test_words_of_parts():
    config, family = families.find("t5").config({"model_type": "t5"}, "t5"), families.find("t5")
    said = words(family.spec(config)[0])
    assert said[0] == "encoder-decoder" and "bias by distance" in said and len(said) == len({*said})
    from pellucid.cli._parts import custom

    assert custom(Custom(path="pellucid.families.xlnet.relative:RelativeAttention")) == ["relative attention"]
