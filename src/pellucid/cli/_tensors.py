"""Whether tensors and spec fit: a model is built without memory, and compared with the files' headers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from pellucid.cli._folder import Known, parameters, size_text
from pellucid.models.loading import DTYPES, HEADS, as_packed, choose_dtype, whole
from pellucid.models.model import Model, Report
from pellucid.models.trained import another_head
from pellucid.spec import Attention, Block, LatentAttention, Task
from pellucid.weights.source import Weights
from pellucid.weights.table import OTHER_HEAD, Table

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
    "table-question-answering": "AutoModelForTableQuestionAnswering",
    "document-question-answering": "AutoModelForDocumentQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "next-sentence": "AutoModelForNextSentencePrediction",
    "pretraining": "AutoModelForPreTraining",
    "text-encoding": "AutoModelForTextEncoding",
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
    whole = known.spec.of(known.task)  # of an encoder-decoder, the part that was saved
    found: dict[Task | None, Expected] = {}
    for task in (None, *whole.heads):
        if whole.of(task) != whole:
            continue
        with torch.device("meta"):
            model = Model(whole, known.config, known.table(task), task)
        parameters = nn.Module.named_parameters(model, remove_duplicate=False)
        found[task] = Expected({name: tuple(p.shape) for name, p in parameters}, model.ties())
    return found


@dataclass
class Placed:
    """Where the tensors of the files went, for one task."""

    filled: set[str] = field(default_factory=set)
    aside: Counter[str] = field(default_factory=Counter)  # reason -> tensors that no parameter takes
    elsewhere: set[str] = field(default_factory=set)  # tensors of other heads
    homeless: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)


def place_all(weights: Weights, table: Table, model: Expected) -> Placed:
    """Every tensor of the files, by the table of a task."""
    placed, shapes = Placed(), model.shapes
    for name in weights.names:
        place = table.find(name)
        if place is not None and weights.packed(name):
            place = as_packed(place, shapes, weights)
        if place is None:
            placed.homeless.append(name)
        elif place.unused == OTHER_HEAD or (place.slots and not all(slot in shapes for slot in place.slots)):
            head = not place.slots or place.slots[0].split(".")[0] in HEADS
            placed.elsewhere.add(name) if head else placed.homeless.append(name)
        elif place.recomputed or place.unused:
            placed.aside["buffers that follow from the config" if place.recomputed else place.unused] += 1
        else:
            placed.filled.update(place.slots)
            if (there := weights.entry(name).shape) != (wanted := place.shape(shapes)):
                placed.misfits.append(f"{name} is {list(there)}, the config wants {list(wanted)}")
            elif whole(kind := weights.entry(name).dtype):
                placed.misfits.append(f"{name} holds whole numbers ({kind})")
    for tied, owner in model.ties.items():
        if {tied, owner} & placed.filled:
            placed.filled |= {tied, owner}
    return placed


def look_at_tensors(found: Findings, known: Known, weights: Weights) -> None:
    """Every tensor has a place, every parameter a tensor of its shape; which heads are there."""
    models = expected(known)
    placed = {task: place_all(weights, known.table(task), model) for task, model in models.items()}
    own = placed[known.task if known.task in placed else None]
    table = known.table(known.task)
    troubles = {
        "without a place in this model": own.homeless,
        "of another shape or kind": own.misfits,
        "not in the files": file_names([slot for slot in models[None].body() if slot not in own.filled], table),
    }
    for trouble, names in troubles.items():
        if names:
            what = f"{trouble}: {some(names)}"
            found.fail("weights", what, "correct config.json, or download the weights again")
    if any(troubles.values()):
        return
    found.ok("weights", "every tensor has a place, every parameter a tensor of its shape")
    own.aside["of a head that this version does not have"] = len(
        set.intersection(*(each.elsewhere for each in placed.values()))
    )
    for reason, count in own.aside.items():
        if count:
            found.ok("weights", f"{count} set aside: {reason}")
    look_at_heads(found, known, models, placed)


def look_at_heads(
    found: Findings, known: Known, models: dict[Task | None, Expected], placed: dict[Task | None, Placed]
) -> None:
    """Which Auto classes find their head in the files. One of another shape is neither there nor new."""
    fits = [task for task in models if not placed[task].misfits]
    states = {task: _state(models[task], placed[task].filled) for task in fits}
    named = [task for task, name in known.family.classes.items() if name == known.named]
    mistaken = {task for task in fits if another_head(task, named)}
    held: list[Task | None] = [
        None, *(task for task, lost in states.items() if task and lost == {} and task not in mistaken)
    ]  # fmt: skip
    whole = {slot for task in held for slot in models[task].shapes}
    told: set[str] = set()
    for task, lost in states.items():
        broken = {head: slots for head, slots in lost.items() if slots and task and head not in told}
        there = {slot for head in broken for slot in models[task].heads()[head] if slot in placed[task].filled}
        if broken and not there <= whole:
            told |= broken.keys()
            names = file_names([slot for slots in broken.values() for slot in slots], known.table(task))
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
    packed = [name for name in weights.names if weights.packed(name)]
    size = parameters(weights, known.table(), known.spec) * dtype.itemsize
    if packed:
        size = weights.nbytes
        how = f"{len(packed)} matrices stay packed: the file's pages are all that they take"
    elif all(DTYPES.get(weights.entry(each).dtype) == dtype for each in weights.names):
        how = "mapped, then packed on a CPU when first used: one copy in memory"
    else:
        how = "converted, and a CPU packs matrices beside that: up to twice as much"
    found.ok("memory", f"weights {size_text(size)} in {name}; {how}")
    mixers = [block.attn for block in known.spec.stack.blocks if isinstance(block, Block)]
    token = sum(cached(mixer) for mixer in mixers) * dtype.itemsize
    context = known.spec.context
    if token:
        whole = f", {size_text(token * context)} for the full context of {context}" if context else ""
        found.ok("memory", f"cache {size_text(token)} a token{whole}")
    found.facts |= {"dtype": name, "weight_bytes": size, "cache_bytes_per_token": token}
    found.facts["cache_bytes_full_context"] = token * context if context else None


def cached(mixer: object) -> int:
    """Numbers that a layer keeps of each token."""
    match mixer:
        case Attention(causal=True, kv_heads=heads, head_dim=K, value_dim=V):
            return heads * (K + (V or K))
        case LatentAttention(causal=True):
            return mixer.kv_rank + mixer.rope_dim
    return 0


def file_names(slots: list[str], table: Table) -> list[str]:
    """What the files call some parameters."""
    return [place.name if (place := table.default_place(slot)) else slot for slot in slots]


def some(names: list[str]) -> str:
    """How many there are, and the first."""
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return f"{len(names)} tensor{'s' if names[1:] else ''}, {'; '.join(names[:3])}{more}"
