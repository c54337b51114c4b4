"""The card that is written when a model is saved: where it came from, what it is, and nothing that is not known.

A card that a person wrote is never overwritten: ours has a line that says so, and whoever edits it takes that line out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pellucid.errors import PellucidError
from pellucid.models.model import Model
from pellucid.ops.packed import PackedTensor
from pellucid.text import card as cards
from pellucid.text import fingerprint
from pellucid.text.card import Card
from pellucid.weights.save import replace_file

MARK = "<!-- Written by Pellucid when the model was saved, and again with each save. Take this line out to keep it. -->"
METRICS = "## Metrics of the original"
BEFORE = "Of the original:\n\n"
OF_THE_CACHE = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?/snapshots/([0-9a-f]{40})(?:/|$)")


def write_card(model: Model, target: Path) -> None:
    """Writes README.md in the folder where a model was saved, unless somebody else's is there."""
    path = target / cards.FILE
    if path.is_file() and MARK not in path.read_text("utf-8", errors="replace"):
        return
    replace_file(path, card_of(model, target))


@dataclass(frozen=True)
class Parent:
    """What a model was loaded from.

    Args:
        name: its id on the hub, with a commit; or "" for a folder of this machine, whose path is nobody's business.
    """

    name: str = ""
    commit: str = ""
    card: Card = Card()


def parent_of(model: Model) -> Parent | None:
    """None for a model that was made from a config."""
    if not model.report.files:
        return None
    folder = Path(model.report.files[0]).parent
    try:
        card = cards.read_card(folder) or Card()
    except PellucidError:
        card = Card()
    found = OF_THE_CACHE.search(folder.as_posix())
    if found is None:
        return Parent(card=card)
    return Parent("/".join(filter(None, found.groups()[:2])), found[3], card)


def card_of(model: Model, target: Path) -> str:
    """The card's text."""
    parent = parent_of(model)
    known = parent.card if parent else Card()
    head = {
        "license": known.license, "license_name": known.license_name, "license_link": known.license_link,
        "language": known.languages, "base_model": (parent and parent.name) or known.base_models,
        "datasets": known.datasets, "pipeline_tag": known.pipeline_tag, "library_name": known.library or "transformers",
        "tags": known.tags,
    }  # fmt: skip
    sections = [MARK, f"# {target.resolve().name}", _origin(parent), _parts(model)]
    if known.datasets:
        sections.append(f"## Data\n\nAs the card of the original has it: {', '.join(known.datasets)}.")
    sections.append(_metrics(known))
    for heading, text in known.limitations:
        sections.append(f"## {heading}\n\n{BEFORE}{text.removeprefix(BEFORE)}")
    sections.append(_fingerprint(target))
    return cards.write_card(head, "\n\n".join(filter(None, sections)))


def _metrics(known: Card) -> str:
    """The results of the original, or what an earlier card of ours told of them: of this model nothing is measured."""
    if not known.results:
        told = re.search(rf"^{METRICS}\n.*?(?=^## |\Z)", known.text, re.S | re.M)
        return told[0].strip() if told else ""
    rows = [f"| {one.task} | {one.dataset} | {one.metric} | {one.value} |" for one in known.results]
    return "\n".join([METRICS, "", "| task | data | metric | value |", "|---|---|---|---|", *rows])


def _origin(parent: Parent | None) -> str:
    if parent is None:
        return "Made from a config, with weights drawn at random; whether it was trained since is not recorded here."
    if parent.name:
        at = f"https://huggingface.co/{parent.name}/tree/{parent.commit}"
        return f"Loaded from [{parent.name}]({at}), and saved; whether it was trained in between is not recorded here."
    return "Loaded from a folder, and saved; whether it was trained in between is not recorded here."


def _parts(model: Model) -> str:
    parameters = list(nn.Module.parameters(model))
    kinds = Counter(p.kind if isinstance(p, PackedTensor) else str(p.dtype).removeprefix("torch.") for p in parameters)
    rows = [
        ("family", model.spec.family),
        ("task", model.task or "hidden states"),
        ("blocks, width", f"{len(model.spec.stack.blocks)}, {model.spec.width}"),
        ("context", f"{model.spec.context} tokens" if model.spec.context else "no limit"),
        ("parameters", f"{sum(p.numel() for p in parameters):,}"),
        ("tensors", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _fingerprint(target: Path) -> str:
    try:
        found = fingerprint.read(target)
    except PellucidError:
        found = None
    if found is None:
        return ""
    return f"## Fingerprint\n\nOf the tokenizer: `{found.digest}` ({fingerprint.FILE})."
