"""From one container to another, one tensor at a time: safetensors folders and GGUF files.

Nothing is loaded as a whole. A model's outline has no memory for its parameters; the table of the source says which
file tensor fills which of them, the table of the target where each goes, and a tensor is read when it is written.
GGUF is written by `gguf_target.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid import families, hub, quant
from pellucid.errors import ArgumentError, Unsupported, WeightsError
from pellucid.families import Family
from pellucid.models.describing import write_converted_card
from pellucid.models.loading import HEADS, as_packed, load, unfilled
from pellucid.models.model import Model
from pellucid.models.sides import table_for
from pellucid.models.targets import Options, Progress, Report
from pellucid.ops.packed import PackedTensor, exactly
from pellucid.quant._encode import encode
from pellucid.spec import Spec, Task
from pellucid.text.tokenizer import Tokenizer
from pellucid.weights.gguf import GgufFile
from pellucid.weights.save import replace_file, save_tensors
from pellucid.weights.source import open_weights
from pellucid.weights.table import Place, Table

PLAIN = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
REST = 2**24  # numbers looked at a time for what no format holds


class Source:
    """The parameters of a model, by slot, as its files hold them.

    held: slot -> shape, of every parameter that the files fill.
    left: file tensors that belong to other heads, or that nothing reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.family = families.read_config(path)
        self.spec, _ = self.family.spec(self.config)
        self.task = _task(self.family, self.spec)
        self.weights = quant.opened(open_weights(path), self.config.given().get("quantization_config"))
        only = self.weights.only_file
        self.container = only if isinstance(only, GgufFile) else None
        tables = self.family.gguf_table if self.container else self.family.table
        self.table = table_for(self.task, tables(self.config, self.task), self.spec)
        self.outline = unfilled(Model, self.spec, self.config, self.table, self.task)
        self.left: list[str] = []
        self._fill(dict(nn.Module.named_parameters(self.outline, remove_duplicate=False)))
        self._last: tuple[str, list[Tensor]] = ("", [])

    def _fill(self, slots: Mapping[str, Tensor]) -> None:
        """Finds each parameter's file tensor, or the tensors of its rows or shares."""
        self._from: dict[str, list[tuple[str, Place]]] = {}
        for name in self.weights.names:
            place = self.table.find(name)
            if place is not None and self.weights.packed(name):
                place = as_packed(place, {slot: tuple(p.shape) for slot, p in slots.items()}, self.weights)
            if place is None or (place.slots and not all(slot in slots for slot in place.slots)):
                self._leave(name, place)
                continue
            if not place.slots:
                continue  # follows from the config, or nothing reads it
            wanted = place.shape({slot: slots[slot].shape for slot in place.slots})
            if (found := tuple(self.weights.entry(name).shape)) != wanted:
                what = f"{name} is {list(found)}, the model wants {list(wanted)}"
                raise WeightsError(what, where=self.weights.file_of(name), next="correct config.json")
            for slot in place.slots:
                if place.row is not None or place.share is not None or slot not in self._from:
                    self._from.setdefault(slot, []).append((name, place))
        for tied, stored in self.outline.ties().items():
            if tied in self._from and stored in self._from:
                pair = [self.weights.tensor(self._from[slot][0][0]) for slot in (tied, stored)]
                if not torch.equal(*pair):
                    self.outline.untie()
            elif tied in self._from:
                self._from[stored] = self._from.pop(tied)
        ties = self.outline.ties()
        self.held = {slot: tuple(p.shape) for slot, p in slots.items() if slot in self._from and slot not in ties}
        lost = [
            slot for slot in slots if slot not in self._from and slot not in ties and not slot.startswith("pooler.")
        ]
        if lost:
            what = f"{len(lost)} parameter(s) are not in the file: {', '.join(lost[:5])}"
            raise WeightsError(what, where=self.path, next="download it again, or correct config.json")

    def _leave(self, name: str, place: Place | None) -> None:
        """A tensor without a place: of another head, or of another model."""
        head = place is not None and (not place.slots or place.slots[0].split(".")[0] in HEADS)
        if not head:
            what = f"{name} has no place in a {self.spec.family} model with this config"
            raise WeightsError(what, where=self.weights.file_of(name), next="correct config.json")
        self.left.append(name)

    def untie(self) -> None:
        """Gives the head a matrix of its own, equal to the embedding that it is tied to."""
        for tied, stored in self.outline.ties().items():
            if tied.startswith("lm_head.") and stored in self._from:
                shape, found = self.held[stored], self._from[stored]
                self._from[tied] = [(name, replace(place, slots=(tied,))) for name, place in found]
                self.held[tied] = shape

    def numbers(self, slot: str) -> Tensor:
        """A parameter, unpacked; in the file's dtype where that is one of floats."""
        found = self._from[slot]
        if found[0][1].row is not None:
            rows = sorted(found, key=lambda each: each[1].row or 0)
            return torch.stack([self.weights.tensor(name) for name, _ in rows])
        if found[0][1].share is not None:
            shares = sorted(found, key=lambda each: each[1].share.first if each[1].share else 0)
            parts = [place.split(dense(self.weights.tensor(name)), [])[0] for name, place in shares]
            return torch.cat(parts, dim=1).flatten(0, 1)
        name, place = found[0]
        if self._last[0] != name:  # a fused tensor is cut once for all its parts
            self._last = ("", [])
            tensor = dense(self.weights.tensor(name))
            self._last = (name, place.split(tensor, [self.rows(each) for each in place.slots]))
        return self._last[1][place.slots.index(slot)]

    def rows(self, slot: str) -> int:
        shape = self.held[slot]
        return shape[0] if shape else 1

    def places(self, table: Table) -> tuple[list[Place], list[str]]:
        """Each tensor of another container, in the order of the layers; and slots of heads that it has no name for.

        Raises:
            Unsupported: another parameter that has no name there.
        """
        places: list[Place] = []
        left: list[str] = []
        covered: set[str] = set()
        for slot in self.held:
            if slot in covered:
                continue
            found = table.default_places(slot, self.rows(slot), headless=self.task is None)
            if not found and slot.split(".")[0] in HEADS and not slot.startswith("lm_head"):
                left.append(slot)
                continue
            if not found:
                what = f"{slot} of a {self.spec.family} has no name there"
                raise Unsupported(what, where=self.path, next="keep the checkpoint as it is")
            for place in found:
                covered.update(place.slots)
                places.append(place)
        return places, left

    def joined(self, place: Place) -> Tensor:
        """A tensor of the other container."""
        return place.join([self.numbers(slot) for slot in place.slots])

    def nbytes(self, place: Place) -> int:
        """Of what is read for a tensor."""
        return sum(self.weights.entry(name).nbytes for slot in place.slots for name, _ in self._from[slot][:1]) // max(
            len(place.slots), 1
        )

    def release(self, place: Place) -> None:
        """Gives the pages of what was read back to the system."""
        for slot in place.slots:
            for name, _ in self._from[slot]:
                self.weights.release(name)

    @property
    def dtype(self) -> str:
        """The kind of most numbers."""
        size: Counter[str] = Counter()
        for name in self.weights.names:
            entry = self.weights.entry(name)
            size[entry.dtype] += entry.nbytes
        return next((kind for kind, _ in size.most_common() if kind in PLAIN), "BF16")


def dense(tensor: Tensor) -> Tensor:
    return tensor.dense() if isinstance(tensor, PackedTensor) else tensor


def _task(family: Family, spec: Spec) -> Task | None:
    """What a file of another container is made for: a language model, or the encoder."""
    if spec.encoder is not None:
        return "seq2seq-lm" if "seq2seq-lm" in family.classes else None
    return "causal-lm" if "causal-lm" in family.classes and _causal(spec) else None


def _causal(spec: Spec) -> bool:
    return any(getattr(getattr(block, "attn", None), "causal", True) for block in spec.stack.blocks)


def stored(numbers: Tensor, kind: str, name: str, importance: Sequence[Tensor] = ()) -> Tensor:
    """Numbers as a kind has them: plain, or blocks [..., bytes of a row].

    Raises:
        WeightsError: some are not finite, or the kind cannot hold them.
    """
    for part in numbers.flatten().split(REST):
        if not torch.isfinite(part).all():
            raise WeightsError(f"{name} holds a number that is not finite", next="repair the checkpoint")
    if kind in PLAIN:
        made = numbers.to(PLAIN[kind])
        if kind == "F16" and torch.isinf(made).any():
            raise WeightsError(f"{name} holds a number beyond {65504:,}, float16's largest", next="--to bf16 or f32")
        return made
    rows = numbers.reshape(-1, numbers.shape[-1])
    if len(importance) > 1:
        pieces = rows.unflatten(0, (len(importance), -1))
        packed = torch.cat([encode(piece, kind, weight) for piece, weight in zip(pieces, importance)])
    else:
        packed = encode(rows, kind, *importance)
    return packed.view(*numbers.shape[:-1], packed.shape[-1])


# ------------------------------------------------------------------------------------------------ to safetensors


class Unpacked(Mapping[str, Tensor]):
    """Tensors of a folder: asked for once, an outline of each; asked for again, its numbers."""

    def __init__(self, model: Source, places: Sequence[Place], kind: str, options: Options) -> None:
        self.model, self.kind, self.options = model, kind, options
        self.places = {place.name: place for place in places}
        self.seen: set[str] = set()
        self.done = self.read = self.wrote = 0

    def __getitem__(self, name: str) -> Tensor:
        place = self.places[name]
        if name not in self.seen:
            self.seen.add(name)
            return torch.zeros((), dtype=PLAIN[self.kind]).expand(place.shape(self.model.held))  # takes no memory
        made = stored(self.model.joined(place), self.kind, name)
        self.read += self.model.nbytes(place)
        self.model.release(place)
        self.done, self.wrote = self.done + 1, self.wrote + made.nbytes
        self.options.progress(Progress(name, self.done, len(self.places), self.read, self.wrote))
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def unpack(source: Path, out: Path, options: Options, *, kind: str | None = None) -> Report:
    """A folder of safetensors from any checkpoint: config, weights, tokenizer, what ends a text, and a card.

    Args:
        kind: a key of PLAIN; None for that of most numbers of the source.

    Raises:
        Unsupported, WeightsError: see `Source` and `stored`.
    """
    model = Source(source)
    kind = kind or model.dtype
    places, _ = model.places(model.family.table(model.config, model.task))
    files = save_tensors(Unpacked(model, places, kind, options), out)
    values = model.config.given()
    values.pop("quantization_config", None)
    values |= {"dtype": str(PLAIN[kind]).removeprefix("torch."), "model_type": model.spec.family}
    values["architectures"] = [model.family.classes[model.task]]
    _write_json(out / "config.json", values)
    _write_json(out / "generation_config.json", _generation(source, values))
    if hub.has_tokenizer(source):
        Tokenizer.from_folder(source).save_pretrained(out)
    write_converted_card(source, out)
    after = sum(path.stat().st_size for path in files)
    return Report([out / "config.json", *files], {kind: (len(places), after)}, model.weights.nbytes, after)


def _generation(source: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config.json of the folder, or the ids that a config names."""
    path = source / "generation_config.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {key: values[key] for key in ids if values.get(key) is not None}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    replace_file(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


# ------------------------------------------------------------------------------------------------ either way


def convert(source: Path, out: Path, options: Options, *, dtype: str | None = None) -> Report:
    """A GGUF file where `out` ends so, else a folder of safetensors.

    Args:
        dtype: "f32", "f16" or "bf16"; None for that of most numbers of the source.
    """
    if dtype is not None and dtype.upper() not in PLAIN:
        raise ArgumentError(f"dtype {dtype!r}", where="--dtype", next="f32, f16 or bf16")
    if out.suffix != ".gguf":
        return unpack(source, out, options, kind=None if dtype is None else dtype.upper())
    from pellucid.models.gguf_target import quantize

    return quantize(source, out, options, to=dtype or Source(source).dtype.lower().replace("f64", "f32"))


@torch.inference_mode()
def largest_difference(one: Path, other: Path, ids: Sequence[int]) -> tuple[float, float]:
    """The largest difference between two checkpoints' outputs for some ids, in float32; and the largest output.

    What a model says of its pad counts for nothing: RoBERTa's positions pass over it, those of a GGUF file do not.
    """
    pad, found = Source(one).config.get("pad_token_id"), []
    ids = [id for id in ids if id != pad]
    for path in (one, other):
        task = Source(path).task
        with exactly():
            model, row = load(folder=path, task=task, dtype=torch.float32), torch.tensor([list(ids)])
            answer = model(row) if model.encoder is None else model(row, decoder_input_ids=row)
        found.append(answer["logits"] if task else answer["last_hidden_state"])
    a, b = found
    return float((a - b).abs().max()), float(a.abs().max())
