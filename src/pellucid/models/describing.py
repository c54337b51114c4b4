"""The card that is written when a model is saved: where it came from, what it is, and nothing that is not known.

A card that a person wrote is never overwritten: ours has a line that says so, and whoever edits it takes that line out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
COST = "## What fewer bits cost"
BEFORE = "Of the original:\n\n"
OF_THE_CACHE = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?/snapshots/([0-9a-f]{40})(?:/|$)")


def write_card(model: Model, target: Path) -> None:
    """Writes README.md in the folder where a model was saved, unless somebody else's is there."""
    _write(target, lambda: card_of(model, target))


def write_packed_card(source: Path, target: Path, rows: Sequence[tuple[str, str]], measured: Sequence[str]) -> None:
    """The same in a folder that `pellucid quantize` wrote, in the place of the original's card that was copied there.

    Args:
        source: the folder of the original.
        rows: facts of how it was packed, a name and a value each.
        measured: what it costs, a line each; none where nobody measured.
    """
    before = source / cards.FILE
    copied = before.read_bytes() if before.is_file() else None
    _write(target, lambda: packed_card_of(source, target, rows, measured), copied)


def write_converted_card(source: Path, target: Path) -> None:
    """The same in a folder that `pellucid convert` wrote."""
    parent = parent_in(source)
    here = "a GGUF file" if source.is_file() else "a folder"
    origin = f"Converted by Pellucid from {_linked(parent) or here}."
    _write(target, lambda: _composed(parent, target, {}, [origin]))


def gguf_card(source: Path) -> dict[str, Any]:
    """What a GGUF file made of a folder or of another file says of where it came from: a file has no README.md."""
    parent = parent_in(source)
    named = replace(parent.card, base_models=(parent.name,)) if parent.name else parent.card
    return cards.gguf_entries(named) | ({"general.source.repo_url": _address(parent)} if parent.name else {})


def _write(target: Path, text: Callable[[], str], copied: bytes | None = None) -> None:
    path = target / cards.FILE
    if path.is_file() and (there := path.read_bytes()) != copied and MARK.encode() not in there:
        return
    replace_file(path, text())


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
    return parent_in(Path(model.report.files[0]).parent) if model.report.files else None


def parent_in(folder: Path) -> Parent:
    """Of a folder or a GGUF file: where it was downloaded from, and its card."""
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
    return _composed(parent, target, {}, [_origin(parent), _parts(model)])


def packed_card_of(source: Path, target: Path, rows: Sequence[tuple[str, str]], measured: Sequence[str]) -> str:
    """The text of a quantized model's card."""
    parent = parent_in(source)
    cost = [f"- {line}" for line in measured] or ["Not measured: `pellucid quantize --measure` compares predictions."]
    sections = [
        f"Quantized by Pellucid from {_linked(parent) or 'a folder'}.", _table(rows), "\n".join([COST, "", *cost])
    ]  # fmt: skip
    return _composed(parent, target, {"base_model_relation": "quantized"} if parent.name else {}, sections)


def _composed(parent: Parent | None, target: Path, said: Mapping[str, str], own: Sequence[str]) -> str:
    """A head of what the original's card says and what is said beside it; our own sections; the original's."""
    known = parent.card if parent else Card()
    head = {
        "license": known.license, "license_name": known.license_name, "license_link": known.license_link,
        "language": known.languages, "base_model": (parent and parent.name) or known.base_models,
        "datasets": known.datasets, "pipeline_tag": known.pipeline_tag, "library_name": known.library or "transformers",
        "tags": known.tags, **said,
    }  # fmt: skip
    sections = [MARK, f"# {target.resolve().name}", *own]
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
    where = _linked(parent) or "a folder"
    return f"Loaded from {where}, and saved; whether it was trained in between is not recorded here."


def _linked(parent: Parent) -> str:
    """The original with a link to its commit; "" for a folder of this machine."""
    return f"[{parent.name}]({_address(parent)})" if parent.name else ""


def _address(parent: Parent) -> str:
    """Of its commit on the hub."""
    return f"{cards.HUB}{parent.name}/tree/{parent.commit}"


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
    return _table(rows)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _fingerprint(target: Path) -> str:
    try:
        found = fingerprint.read(target)
    except PellucidError:
        found = None
    if found is None:
        return ""
    return f"## Fingerprint\n\nOf the tokenizer: `{found.digest}` ({fingerprint.FILE})."
