"""pellucid families: every architecture, its heads, its parts, and how far its numbers are from the reference's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import click

from pellucid import families
from pellucid.cli._command import Command, json_option, print_json
from pellucid.cli._parts import words
from pellucid.errors import PellucidError

# The names of heads where space is short.
SHORT: dict[str, str] = {
    "causal-lm": "causal", "masked-lm": "masked", "seq2seq-lm": "seq2seq", "sequence-classification": "sequence",
    "token-classification": "token", "question-answering": "span", "table-question-answering": "table",
    "document-question-answering": "page",
    "multiple-choice": "choice",
    "next-sentence": "next", "pretraining": "pretraining", "text-encoding": "encoder", "base": "base",
}  # fmt: skip

PAGE = """# Models

Every `model_type` that loads, written by `pellucid families --markdown`. The parts are those of the config's defaults.
The error is the largest difference from the reference library's float32 logits, over all heads and variants of the
type's fixture in `tests/families`, as a share of the largest logit.

{table}

{counts}
"""


@click.command("families", cls=Command)
@click.option("--markdown", is_flag=True, help="The page docs/models.md.")
@json_option
def command(markdown: bool, as_json: bool) -> None:
    """List the model types that load: heads, parts, and the measured distance from the reference in float32.

    \b
    pellucid families | grep windows
    pellucid families --markdown > docs/models.md
    """
    found = entries()
    if as_json:
        print_json([asdict(entry) for entry in found])
    elif markdown:
        click.echo(PAGE.format(table=table(found), counts=counts(found)), nl=False)
    else:
        click.echo(text(found))


@dataclass(frozen=True)
class Entry:
    """What is said about one model type."""

    type: str
    heads: list[str]
    parts: list[str]  # empty where the default config makes no model
    parity: dict[str, float]  # by head

    @property
    def error(self) -> str:
        return f"{max(self.parity.values()):.1e}" if self.parity else ""

    @property
    def short(self) -> str:
        return " ".join(SHORT.get(head, head) for head in self.heads)


def entries() -> list[Entry]:
    """All model types, in the order of the alphabet."""
    return [entry(name) for name in families.names()]


def entry(name: str) -> Entry:
    """One of them; the spec is that of a config that states nothing."""
    family = families.find(name)
    spelt, parity = measured().get(family.name.replace("-", "_"), (name, {}))
    try:
        parts = words(family.spec(family.config({"model_type": name}, name))[0])
    except PellucidError:
        parts = []
    tasks: list[str] = sorted((task or "base" for task in family.classes), key=[*SHORT].index)
    return Entry(spelt if name == family.name else name, tasks, parts, parity)


@cache
def measured() -> dict[str, tuple[str, dict[str, float]]]:
    """What `pytest --record-parity` wrote: name of the module -> model type, distances."""
    found = json.loads(Path(families.__file__).with_name("parity.json").read_text())
    return {name.replace("-", "_"): (name, tasks) for name, tasks in found.items()}


def text(found: Sequence[Entry]) -> str:
    """A line for each type."""
    wide = max(len(entry.type) for entry in found)
    heads = max(len(entry.short) for entry in found)
    lines = [
        f"{entry.type:{wide}}  {entry.error:>7}  {entry.short:{heads}}  {', '.join(entry.parts)}".rstrip()
        for entry in found
    ]
    return "\n".join([*lines, "", counts(found)])


def table(found: Sequence[Entry]) -> str:
    """The same in Markdown."""
    rows = [
        f"| `{entry.type}` | {', '.join(entry.heads)} | {', '.join(entry.parts)} | {entry.error} |" for entry in found
    ]
    return "\n".join(["| model type | heads | parts | error |", "|---|---|---|---|", *rows])


def counts(found: Sequence[Entry]) -> str:
    """How many types have each head."""
    each = Counter(head for entry in found for head in entry.heads)
    return f"{len(found)} model types: " + ", ".join(f"{each[head]} {head}" for head in SHORT if each[head])
