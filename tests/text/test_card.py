"""Model cards: read from what strangers wrote, written from what is known, and licences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import pellucid
from models import tiny
from pellucid import gguf, hub
from pellucid.cli import main
from pellucid.errors import ConfigError
from pellucid.models.describing import MARK
from pellucid.text.card import Card, card_in, gguf_entries, parse_card, read_card, split, write_card
from pellucid.text.licenses import LICENSES, Level, for_commercial_use

CARD = """---
license: other
license_name: model-licence
license_link: https://example.org
language: [en, no]
datasets:
- one/two
- three
base_model: org/base
pipeline_tag: text-classification
library_name: transformers
date: 2026-01-02
model-index:
- name: x
  results:
  - task: {type: text-classification, name: Text Classification}
    dataset: {name: glue, type: glue, config: sst2, split: validation}
    metrics:
    - {type: accuracy, value: 0.91, name: Accuracy, verified: true}
    - {type: f1, value: 0.9}
---
# A model

## Limitations and bias
It is small.

```python
# Risks
```

### Languages
English.

## Uses
Any.

## Out-of-scope use
War.
"""


def test_what_a_card_says() -> None:
    card = parse_card(CARD)
    assert (card.license, card.license_name, card.license_link) == ("other", "model-licence", "https://example.org")
    assert card.languages == ("en", "no")  # Norwegian is no boolean
    assert card.datasets == ("one/two", "three") and card.base_models == ("org/base",)
    assert card.pipeline_tag == "text-classification" and card.library == "transformers"
    first, second = card.results
    assert (first.task, first.dataset, first.metric, first.value, first.verified) == (
        "Text Classification", "glue (sst2 validation)", "Accuracy", "0.91", True,
    )  # fmt: skip
    assert (second.metric, second.value, second.verified) == ("f1", "0.9", False)
    (limits, text), (scope, war) = card.limitations
    assert limits == "Limitations and bias" and "It is small." in text and "Languages: English." in text
    assert (scope, war) == ("Out-of-scope use", "War.") and card.text.startswith("# A model")


@pytest.mark.parametrize(
    "text", ["", "# no head", "---\n", "---\nlicense: mit", "--- \nlicense: mit\n", "a\n---\nb: c\n---\n"]
)
def test_a_card_without_a_head(text: str) -> None:
    assert parse_card(text) == Card(text=text, limitations=())


@pytest.mark.parametrize(
    "head",
    ["[1, 2]", "license: {a: b}", "language: [[en]]", "model-index: x", "model-index: [{results: [1, {metrics: 3}]}]",
     "datasets: [{a: 1}]", "3", "null", "license: [null]"],
)  # fmt: skip
def test_values_of_other_kinds_are_left_out(head: str) -> None:
    card = parse_card(f"---\n{head}\n---\nbody")
    assert card == Card(text="body")


@pytest.mark.parametrize(
    "head",
    ["a: [", "a: b: c", "a: &x 1\nb: *x", "\t- a", "a: !!python/object/apply:os.system [ls]", "[" * 3000, "a: \x00",
     "!!timestamp 'x'", "a: 'open"],
)  # fmt: skip
def test_a_head_that_is_no_yaml(head: str) -> None:
    with pytest.raises(ConfigError, match="head is not YAML"):
        parse_card(f"---\n{head}\n---\n")


def test_files_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_card(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_card(tmp_path)
    (tmp_path / "README.md").write_bytes(b" " * (2**22 + 1))
    with pytest.raises(ConfigError, match="bytes"):
        read_card(tmp_path)
    (tmp_path / "README.md").write_bytes("\ufeff---\r\nlicense: mit\r\n---\r\nétude".encode())
    card = read_card(tmp_path)
    assert card is not None and card.license == "mit" and card.text == "étude"


def test_a_written_card_is_read_again() -> None:
    text = write_card({"license": "mit", "language": ("no", "en"), "tags": (), "base_model": "org/x: y"}, "body\n\n")
    values, body = split(text)
    assert values == {"license": "mit", "language": ["no", "en"], "base_model": "org/x: y"} and body == "body\n"
    assert parse_card(text).languages == ("no", "en")


# ------------------------------------------------------------------------------------------------------- licences


def test_the_table_is_of_verdicts() -> None:
    assert {verdict.level for verdict in LICENSES.values()} == set(get_args(Level)) - {"unknown"}
    assert all(name == name.lower() and verdict.why for name, verdict in LICENSES.items())


@pytest.mark.parametrize(
    "license, level",
    [("apache-2.0", "allowed"), ("MIT", "allowed"), ("cc-by-nc-4.0", "forbidden"), ("agpl-3.0", "conditions"),
     ("llama3.1", "conditions"), ("other", "unknown"), ("", "unknown"), ("my-licence", "unknown")],
)  # fmt: skip
def test_commercial_use(license: str, level: str) -> None:
    assert for_commercial_use(Card(license=license)).level == level
    assert for_commercial_use(None).level == "unknown"


# ------------------------------------------------------------------------------------------------------- written


def test_a_saved_model_has_a_card(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    made = tiny.make("llama")
    made.save_pretrained(tmp_path / "a")
    assert "Made from a config, with weights drawn at random;" in (tmp_path / "a" / "README.md").read_text()
    (tmp_path / "a" / "README.md").write_text(CARD)
    model = pellucid.AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "a")
    assert (tmp_path / "a" / "README.md").read_text() == CARD  # what a person wrote stays
    for folder in ("b", "c"):
        model.save_pretrained(tmp_path / folder)
        card = read_card(tmp_path / folder)
        assert card is not None and MARK in card.text
        assert card.license_name == "model-licence" and card.languages == ("en", "no")
        assert card.base_models == ("org/base",) and card.datasets == ("one/two", "three")
        assert f"{sum(p.numel() for p in model.parameters()):,}" in card.text and "| f1 | 0.9 |" in card.text
        assert dict(card.limitations)["Limitations and bias"].count("Of the original:") == 1
        assert str(tmp_path) not in card.text  # paths of this machine are nobody's business
        model = pellucid.AutoModelForCausalLM.from_pretrained(tmp_path / folder)
    before = (tmp_path / "c" / "README.md").read_text()
    model.save_pretrained(tmp_path / "c")
    assert (tmp_path / "c" / "README.md").read_text() == before


def test_a_model_of_the_hub_is_the_parent(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--story" / "snapshots" / ("a" * 40)
    tiny.make("llama").save_pretrained(folder)
    pellucid.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "out")
    card = read_card(tmp_path / "out")
    assert card is not None and card.base_models == ("org/story",)
    assert f"https://huggingface.co/org/story/tree/{'a' * 40}" in card.text


def test_the_tokenizer_is_named(tmp_path: Path) -> None:
    pellucid.AutoModelForCausalLM.from_pretrained().save_pretrained(tmp_path)
    card = read_card(tmp_path)
    said = json.loads((tmp_path / hub.FINGERPRINT).read_text())
    assert card is not None and "## Fingerprint" in card.text and said


# ------------------------------------------------------------------------------------------------------- commands


def test_a_quantized_model_has_a_card(call: Callable[..., Any], tmp_path: Path) -> None:
    """The original and its licence, the format, what was measured, the fingerprint; a person's card is left alone."""
    folder = tmp_path / "models--org--story" / "snapshots" / ("b" * 40)
    pellucid.AutoModelForCausalLM.from_pretrained().save_pretrained(folder)
    pellucid.AutoTokenizer.from_pretrained().save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    facts = json.loads(call("quantize", folder, tmp_path / "out", "--to", "nf4", "--measure", "--json").stdout)
    card = read_card(tmp_path / "out")
    assert card is not None and card.base_models == ("org/story",) and card.license_name == "model-licence"
    assert f"Quantized by Pellucid from [org/story](https://huggingface.co/org/story/tree/{'b' * 40})" in card.text
    assert "| format | nf4: " in card.text and "NF4, double (" in card.text and str(tmp_path) not in card.text
    quality = facts["quality"]
    for said in (f"perplexity {quality['perplexity_before']:.4g} -> ", f"KL {quality['kl_mean']:.3g} nats"):
        assert said in card.text
    head, _ = split((tmp_path / "out" / "README.md").read_text())
    assert head["base_model_relation"] == "quantized" and "## Fingerprint" in card.text
    call("quantize", hub.default_model(), tmp_path / "bare", "--to", "hqq-4", "--no-measure")
    bare = read_card(tmp_path / "bare")
    assert bare is not None and "Quantized by Pellucid from a folder." in bare.text and "Not measured" in bare.text
    (tmp_path / "bare" / "README.md").write_text("Mine.")
    call("quantize", hub.default_model(), tmp_path / "bare", "--to", "hqq-4", "--no-measure", "--force")
    assert (tmp_path / "bare" / "README.md").read_text() == "Mine."


@pytest.fixture
def call() -> Callable[..., Any]:
    from click.testing import CliRunner

    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pellucid.AutoModelForCausalLM.from_pretrained().save_pretrained(tmp_path)
    pellucid.AutoTokenizer.from_pretrained().save_pretrained(tmp_path)
    return tmp_path


def test_pellucid_card(call: Callable[..., Any], folder: Path) -> None:
    (folder / "README.md").write_text(CARD)
    shown = call("card", folder).stdout
    for words in (
        "other (model-licence)",
        "commercial use: unknown",
        "en, no",
        "org/base",
        "glue",
        "0.91 (verified)",
        "It is small.",
    ):
        assert words in shown, words
    assert call("card", folder, "--text").stdout.startswith("# A model")
    found = json.loads(call("card", folder, "--json").stdout)
    assert found["languages"] == ["en", "no"] and found["commercial_use"]["level"] == "unknown"
    missing = call("card", hub.default_model())
    assert missing.exit_code == 2 and "no model card" in missing.stderr


@pytest.mark.parametrize(
    "license, code, says",
    [("mit", 0, "ok    license    mit: commercial use is allowed"), ("cc-by-nc-4.0", 1, "FAIL  license"),
     ("llama3", 0, "warn  license    llama3"), ("other", 0, "unknown"), ("", 0, "names no licence")],
)  # fmt: skip
def test_pellucid_check_for_commercial_use(
    call: Callable[..., Any], folder: Path, license: str, code: int, says: str
) -> None:
    (folder / "README.md").write_text(f"---\nlicense: {license}\nbase_model: org/base\n---\n")
    result = call("check", folder, "--license-for", "commercial")
    assert result.exit_code == code and says in result.stdout and "made from org/base" in result.stdout
    assert "license" not in call("check", folder).stdout
    found = json.loads(call("check", folder, "--license-for", "commercial", "--json").stdout)
    assert found["license"]["name"] == (license or "none")
    assert call("check", "--license-for", "commercial").exit_code == 2


# ------------------------------------------------------------------------------------------- inside a GGUF file

SAID = Card(
    license="other", license_name="model-licence", license_link="https://example.org", languages=("en", "no"),
    datasets=("one/two", "three"), base_models=("org/base",), tags=("small", "text-classification"),
)  # fmt: skip


def test_a_gguf_file_says_the_same() -> None:
    entries = gguf_entries(parse_card(CARD.replace("library_name", "tags: [small]\nlibrary_name")))
    assert card_in(entries) == SAID
    assert entries["general.base_model.0.repo_url"] == "https://huggingface.co/org/base"
    assert entries["general.dataset.1.repo_url"] == "https://huggingface.co/datasets/three"
    assert gguf_entries(Card()) == {} and card_in({}) is None


def test_keys_that_other_programs_write() -> None:
    """Names for people, without an address; data sets in a list, as in older files; kinds that make no sense."""
    found = card_in({
        "general.license": "mit", "general.datasets": ["a", "b"], "general.languages": 3, "general.tags": [True, "x"],
        "general.base_model.count": 2**40, "general.base_model.0.name": "Base 7B",
        "general.base_model.0.organization": "Org", "general.base_model.2.name": "behind a gap",
    })  # fmt: skip
    assert found == Card(license="mit", datasets=("a", "b"), languages=("3",), base_models=("Org/Base 7B",),
                         tags=("True", "x"))  # fmt: skip


def test_a_file_that_is_written_has_a_card_inside(call: Callable[..., Any], tmp_path: Path) -> None:
    """From a folder, through files, to a folder: the licence is never lost. Of the hub's cache, the commit is told."""
    tiny.make("llama").save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text(CARD)
    assert call("convert", tmp_path / "m", tmp_path / "m.gguf").exit_code == 0
    assert read_card(tmp_path / "m.gguf") == card_in(gguf_entries(parse_card(CARD)))
    assert "license    other (model-licence)" in call("card", tmp_path / "m.gguf").stdout
    checked = call("check", tmp_path / "m.gguf", "--license-for", "commercial").stdout
    assert "other" in checked and "made from org/base" in checked
    assert call("quantize", tmp_path / "m.gguf", tmp_path / "q.gguf", "--to", "f16").exit_code == 0
    assert read_card(tmp_path / "q.gguf") == read_card(tmp_path / "m.gguf")
    assert call("convert", tmp_path / "q.gguf", tmp_path / "back").exit_code == 0
    back = read_card(tmp_path / "back")
    assert back is not None and MARK in back.text and "Converted by Pellucid from a GGUF file." in back.text
    assert (back.license, back.datasets, back.base_models) == ("other", ("one/two", "three"), ("org/base",))
    cached = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    shutil.copytree(tmp_path / "m", cached)
    assert call("convert", cached, tmp_path / "c.gguf").exit_code == 0
    made = read_card(tmp_path / "c.gguf")
    assert made is not None and made.base_models == ("org/name",)
    address = gguf.read(tmp_path / "c.gguf").metadata["general.source.repo_url"]
    assert address == f"https://huggingface.co/org/name/tree/{'a' * 40}"
