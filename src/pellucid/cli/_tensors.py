"""Whether tensors and spec fit: a model is built without memory, and compared with the files' headers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from pellucid.cli._folder import Known, parameters, size_text
from pellucid.models.loading import DTYPES, HEADS, choose_dtype
from pellucid.models.model import Model, Report
from pellucid.spec import Attention, Task
from pellucid.weights.source import Weights
from pellucid.weights.table import Table

if TYPE_CHECKING:
    from pellucid.cli.check import Findings

Shape = tuple[int, ...]

AUTO: dict[Task | None, str] = {
    None: "AutoModel",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}


@dataclass
class Expected:
    """The parameters of one task's model: slot -> shape, and those that are another one."""

    shapes: dict[str, Shape]
    ties: dict[str, str]

    def heads(self) -> dict[str, list[str]]:
        """Head -> its own slots. A wholly absent head can be new, a partly absent one is broken."""
        found: dict[str, list[str]] = {}
        for slot in self.shapes:
            head = slot.split(".")[0]
            if head in HEADS and slot not in self.ties:
                found.setdefault(head, []).append(slot)
        return found

    def body(self) -> list[str]:
        return [slot for slot in self.shapes if slot.split(".")[0] not in HEADS]


def expected(known: Known) -> dict[Task | None, Expected]:
    """Each task's parameters, from modules on torch's meta device: no memory, no second list of shapes."""
    table = known.family.table(known.config)
    found: dict[Task | None, Expected] = {}
    for task in (None, *known.spec.heads):
        with torch.device("meta"):
            model = Model(known.spec, known.config, table, task)
        parameters = nn.Module.named_parameters(model, remove_duplicate=False)
        found[task] = Expected({name: tuple(p.shape) for name, p in parameters}, model.ties())
    return found


@dataclass
class Placed:
    """Where the tensors of the files went."""

    filled: set[str] = field(default_factory=set)
    aside: Counter[str] = field(default_factory=Counter)  # reason -> tensors that no parameter takes
    homeless: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)


def place_all(weights: Weights, table: Table, shapes: dict[str, Shape]) -> Placed:
    """Every tensor of the files, by the family's table."""
    placed = Placed()
    for name in weights.names:
        place = table.find(name)
        if place is None:
            placed.homeless.append(name)
        elif place.recomputed or place.unused:
            placed.aside["buffers that follow from the config" if place.recomputed else place.unused] += 1
        elif not all(slot in shapes for slot in place.slots):
            if place.slots[0].split(".")[0] in HEADS:
                placed.aside["of a head that this version does not have"] += 1
            else:
                placed.homeless.append(name)
        elif (there := weights.entry(name).shape) == (wanted := place.shape(shapes)):
            placed.filled.update(place.slots)
        else:
            placed.filled.update(place.slots)
            placed.misfits.append(f"{name} is {list(there)}, the config wants {list(wanted)}")
    return placed


def look_at_tensors(found: Findings, known: Known, weights: Weights) -> None:
    """Every tensor has a place, every parameter a tensor of its shape; which heads are there."""
    models = expected(known)
    table = known.family.table(known.config)
    shapes = {slot: shape for model in models.values() for slot, shape in model.shapes.items()}
    placed = place_all(weights, table, shapes)
    for tied, owner in (pair for model in models.values() for pair in model.ties.items()):
        if {tied, owner} & placed.filled:
            placed.filled |= {tied, owner}
    missing = [slot for slot in models[None].body() if slot not in placed.filled]
    troubles = {
        "without a place in this model": placed.homeless,
        "of another shape": placed.misfits,
        "not in the files": file_names(missing, table),
    }
    for trouble, names in troubles.items():
        if names:
            what = f"{trouble}: {some(names)}"
            found.fail("weights", what, "correct config.json, or download the weights again")
    if any(troubles.values()):
        return
    found.ok("weights", "every tensor has a place, every parameter a tensor of its shape")
    for reason, count in placed.aside.items():
        found.ok("weights", f"{count} set aside: {reason}")
    look_at_heads(found, known, models, placed.filled, table)


def look_at_heads(
    found: Findings, known: Known, models: dict[Task | None, Expected], filled: set[str], table: Table
) -> None:
    """Which Auto classes find their head in the files."""
    states = {task: _state(model, filled) for task, model in models.items()}
    held: list[Task | None] = [None, *(task for task, lost in states.items() if task and lost == {})]
    whole = {slot for task in held for slot in models[task].shapes}
    for task, lost in states.items():
        broken = {head: slots for head, slots in lost.items() if slots and task}
        known_parts = {slot for head in broken for slot in models[task].heads()[head] if slot in filled}
        if broken and not known_parts <= whole:
            names = file_names([slot for slots in broken.values() for slot in slots], table)
            what = f"the {task} head is there in part; not in the files: {some(names)}"
            found.fail("weights", what, "download the weights again")
    new = [AUTO[task] for task, lost in states.items() if task and lost and not any(lost.values())]
    found.ok("heads", f"trained: {', '.join(AUTO[task] for task in held)}")
    if new:
        found.ok("heads", f"with a new head, to be trained: {', '.join(new)}")
    if known.named in known.family.classes.values() and known.task not in held:
        what = f"architectures names {known.named}, and the files do not hold its head"
        found.warn("heads", what, "correct architectures, or train the head")
    found.facts["trained"] = [AUTO[task] for task in held]
    found.facts["new_head"] = new


def _state(model: Expected, filled: set[str]) -> dict[str, list[str]]:
    """Heads that are not wholly there: absent altogether -> [], in part -> the slots that lack."""
    states: dict[str, list[str]] = {}
    for head, slots in model.heads().items():
        lost = [slot for slot in slots if slot not in filled]
        if lost:
            states[head] = lost if len(lost) < len(slots) else []
    return states


def look_at_memory(found: Findings, known: Known, weights: Weights) -> None:
    """Dtype, and what weights and cache will take on a CPU."""
    report = Report()
    dtype = choose_dtype(None, weights, torch.device("cpu"), report)
    for note in report.notes:
        found.warn("memory", note)
    name = str(dtype).removeprefix("torch.")
    size = parameters(weights, known.family.table(known.config), known.spec) * dtype.itemsize
    if all(DTYPES.get(weights.entry(each).dtype) == dtype for each in weights.names):
        how = "mapped, then packed on a CPU when first used: one copy in memory"
    else:
        how = "converted, and a CPU packs matrices beside that: up to twice as much"
    found.ok("memory", f"weights {size_text(size)} in {name}; {how}")
    blocks = [block for block in known.spec.stack.blocks if isinstance(block.attn, Attention) and block.attn.causal]
    token = sum(2 * block.attn.kv_heads * block.attn.head_dim for block in blocks) * dtype.itemsize
    context = known.spec.context
    if token:
        whole = f", {size_text(token * context)} for the full context of {context}" if context else ""
        found.ok("memory", f"cache {size_text(token)} a token{whole}")
    found.facts |= {"dtype": name, "weight_bytes": size, "cache_bytes_per_token": token}
    found.facts["cache_bytes_full_context"] = token * context if context else None


def file_names(slots: list[str], table: Table) -> list[str]:
    """What the files call some parameters."""
    return [place.name if (place := table.default_place(slot)) else slot for slot in slots]


def some(names: list[str]) -> str:
    """How many there are, and the first."""
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return f"{len(names)} tensor{'s' if names[1:] else ''}, {'; '.join(names[:3])}{more}"
