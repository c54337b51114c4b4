"""pellucid show, with and without --code."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from pellucid import families, hub
from pellucid.cli._describe import ranges, words

FAMILIES = Path(__file__).parents[1] / "families"


def test_the_default_model_on_one_screen(call):
    text = call("show", hub.default_model()).stdout
    for part in ("llama", "260,032 parameters", "context 512", "512 tokens", "8 heads / 4 kv × 8", "silu, gated"):
        assert part in text
    assert "F32 1.04 MB in model.safetensors" in text and "causal-lm: tied to the embedding" in text
    assert len(text.splitlines()) < 25 and max(map(len, text.splitlines())) < 110


def test_json_is_the_spec_and_the_facts(call):
    found = json.loads(call("show", "--json", hub.default_model()).stdout)
    config, family = families.read_config(hub.default_model())
    spec, _ = family.spec(config)
    assert found["weights"]["parameters"] == 260_032 and found["weights"]["bytes"] == {"F32": 1_040_128}
    assert found["class"] == "LlamaForCausalLM" and found["unknown_keys"] == {}

    def without_kinds(value):
        if isinstance(value, dict):
            return {key: without_kinds(each) for key, each in value.items() if key != "kind"}
        return [without_kinds(each) for each in value] if isinstance(value, list) else value

    assert found["spec"]["stack"]["blocks"][0]["order"]["kind"] == "PreNorm"
    assert without_kinds(found["spec"]) == json.loads(json.dumps(asdict(spec)))


@pytest.mark.parametrize("family", sorted(path.stem for path in FAMILIES.glob("*.json")))
def test_every_family_can_be_shown(call, tmp_path, family):
    config = json.loads((FAMILIES / f"{family}.json").read_text())["config"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"my_own_key": 3}))
    text = call("show", tmp_path).stdout
    assert family in text and "weights not here" in text and "my_own_key = 3: no effect" in text
    assert "RmsNorm" not in text and "LayerNorm" not in text
    code = json.loads(call("show", tmp_path, "--code", "--json").stdout)
    assert all(one.keys() == {"file", "name", "line", "source"} for one in code)
    names = {one["name"] for one in code}
    assert "Tower.run" in names and any(name.endswith(".forward") for name in names)
    assert not {"Tapped.tap", "Linear.__init__", "Linear.__getattr__"} & names


def test_kinds_of_blocks_are_told_once(call, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma2"}')
    lines = call("show", tmp_path).stdout.splitlines()
    assert any(line.startswith("blocks 0, 2 … 24") for line in lines)
    assert any(line.startswith("blocks 1, 3 … 25") for line in lines)
    assert sum("window 4096" in line for line in lines) == 1
    assert sum("rotary" in line for line in lines) == 1


def test_code_is_what_this_model_runs(call, tiny):
    llama = call("show", "--code", tiny("llama", "AutoModelForCausalLM")).stdout
    bert = call("show", "--code", tiny("bert", "AutoModelForMaskedLM")).stdout
    assert "# pellucid/nn/attention.py: Attention.forward\n\ndef forward(self, x_ND" in llama
    assert llama.index(": Tower.run\n") < llama.index(": Block.forward\n") < llama.index(": rotate\n")
    assert "# pellucid/cache/places.py: Places.write" in llama
    for name in ("rotate", "rotation", "rms_norm", "Places.write"):
        assert f": {name}\n" in llama and f": {name}\n" not in bert
    assert ": Transforming.forward\n" in bert
    compile(llama, "page", "exec")  # the page is Python


@pytest.mark.parametrize(
    "family, variant", [("bros", ""), ("gemma4_unified_text", "shared keys, wide mlp"), ("opt", "350m")]
)
def test_code_of_models_with_needs_of_their_own(call, tmp_path, family, variant):
    """Boxes beside the ids; keys of an earlier layer; a vocabulary narrower than the stack."""
    data = json.loads((FAMILIES / f"{family}.json").read_text())
    changes = data["variants"][variant] if variant else {}
    (tmp_path / "config.json").write_text(json.dumps(data["config"] | changes))
    result = call("show", "--code", tmp_path)
    assert result.exit_code == 0 and "Tower.run" in result.stdout


def test_code_follows_the_class_that_wrote_the_file(call, tiny):
    assert ": Pooler.forward\n" in call("show", "--code", tiny("bert", "AutoModelForSequenceClassification")).stdout
    assert ": Vocabulary.forward\n" not in call("show", "--code", tiny("bert", "AutoModel")).stdout


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ([0], "0"),
        ([0, 1], "0..1"),
        ([1, 4], "1, 4"),
        ([0, 2, 4], "0, 2 … 4"),
        ([0, 1, 2, 5, 7, 8], "0..2, 5, 7..8"),
        ([i for i in range(26) if i % 6 < 5], "0..4, 6..10, 12..16 … 24..25"),
    ],
)
def test_ranges(places, text):
    assert ranges(places) == text


def test_a_part_without_words_is_told_by_its_fields():
    @dataclass(frozen=True, kw_only=True)
    class Experts:
        count: int
        share: float = 0.5
        dropout: float = 0.0

    assert words(Experts(count=8)) == "Experts, count 8"
    assert words(Experts(count=8, share=0.25, dropout=0.1)) == "Experts, count 8, share 0.25"
