"""`pellucid quantize` to safetensors: a checkpoint in a published packed layout, written one matrix at a time.

    report = quantize(Path("llama"), Path("llama-nf4"), Options(), to="nf4")

Packed parts go to a scratch file beside OUT as they are made, and from there, mapped, into the shards: memory is that
of one matrix, or of one block where a form is fitted to a text. What is not packed has the bits of the source.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pellucid import families, hub, quant
from pellucid.config import Config, read_json
from pellucid.errors import ArgumentError, Unsupported
from pellucid.models.calibration import default_text, length_of, parted, texts_of
from pellucid.models.fitting import Notes, fit
from pellucid.models.forms import FORMS, Form
from pellucid.models.loading import HEADS, load, unfilled
from pellucid.models.model import Model
from pellucid.models.quality import Quality, compared, windows
from pellucid.models.quantizing import matrices, upright
from pellucid.models.targets import Options, Progress, Report
from pellucid.nn.linear import Linear
from pellucid.nn.moe import Router
from pellucid.ops.packed import PackedTensor, RowsPacked
from pellucid.spec import Task
from pellucid.text.tokenizer import Tokenizer
from pellucid.weights.gguf import GgufFile
from pellucid.weights.save import replace_file, save_tensors
from pellucid.weights.source import Weights, open_weights
from pellucid.weights.table import Place, Stacked

SHARD = "5GB"
BESIDE = (".json", ".txt", ".model", ".jinja", ".md", ".spm", ".bpe")  # of files that go with a model
LARGE = 2**28  # bytes of one such file
REPORTED = 8192  # tokens of a text over which a report compares


def quantize(source: Path, out: Path, options: Options, *, to: str) -> Report:
    """Writes a folder.

    Raises:
        ArgumentError: a setting that the form has not, or under which no matrix has it.
        Unsupported: the source is packed, or a GGUF file.
    """
    form = FORMS[to](options.settings)
    outline = outlined(source)
    weights, choice, notes = outline.weights, choose(outline, form), Notes()
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch,
        (Path(scratch) / "parts").open("xb") as file,
    ):
        shelf = Shelf(weights, file)
        made = _fitted(outline, choice, form, options.text, notes) if form.fitted else _packed(outline, choice, form)
        read = written = 0
        for done, (name, tensor) in enumerate(made, 1):
            shelf.put(name, tensor)
            read, written = read + weights.entry(name).nbytes, written + shelf.nbytes(name)
            options.progress(Progress(name, min(done, len(choice.packed)), len(weights.names), read, written))
        files = save_tensors(shelf, out, max_shard_size=SHARD)
        said = {**read_json(source / "config.json"), "quantization_config": form.says(choice.left)}
        replace_file(out / "config.json", json.dumps(said, indent=2, ensure_ascii=False) + "\n")
        kinds = shelf.kinds()
        after = sum(size for _, size in kinds.values())
        options.progress(Progress("done", len(weights.names), len(weights.names), weights.nbytes, after))
        files = [out / "config.json", *files, *copied(source, out)]
        return Report(files, kinds, weights.nbytes, after, [*choice.notes, *notes.lines(form)])


# ------------------------------------------------------------------------------------------------ what is packed


@dataclass
class Outline:
    """A model without memory for its parameters, and the files that would fill it."""

    folder: Path
    model: Model
    weights: Weights
    config: Config
    task: Task | None


def outlined(source: Path) -> Outline:
    """The model of a folder, with the head that its file was written with.

    Raises:
        Unsupported: its weights are packed already, or in a GGUF file.
    """
    config, family = families.read_config(source)
    said = config.given().get("quantization_config")
    weights = quant.opened(open_weights(source), said)
    if isinstance(weights.only_file, GgufFile):
        what = "a GGUF file is no source of this format"
        raise Unsupported(what, where=source, next="write it as safetensors first: pellucid convert IN OUT")
    if any(weights.packed(name) for name in weights.names):
        raise Unsupported("the weights are packed already", where=source, next="start from the unpacked checkpoint")
    spec, _ = family.spec(config)
    task = task_of(config, family, next(iter(spec.heads), None))
    model = unfilled(Model, spec, config, family.table(config, task), task)
    return Outline(source, model, weights, config, task)


def task_of(config: Config, family: families.Family, usual: Task | None) -> Task | None:
    """The task of the class that wrote a file; where it says none, the usual one."""
    named = (config.get("architectures") or [""])[0]
    return next((task for task, name in family.classes.items() if name == named), usual)


@dataclass
class Choice:
    """File tensors that are packed, and why others are not.

    left: names in files of the linear layers that stay as they are.
    notes: for the report.
    """

    packed: dict[str, Place]
    left: list[str]
    notes: list[str]


def choose(outline: Outline, form: Form) -> Choice:
    """Heads and routers stay as they are, as every format has it; a fitted form is one of blocks alone.

    Raises:
        ArgumentError: no matrix has the form.
    """
    model, weights = outline.model, outline.weights
    layers = {f"{path}.weight": module for path, module in model.named_modules() if isinstance(module, Linear)}
    packed: dict[str, Place] = {}
    misfits: list[str] = []
    for name, place in matrices(weights, model).items():
        first = place.slots[0].removeprefix("encoder.").split(".")[0]
        routing = any(isinstance(layers[slot], Router) for slot in place.slots)
        if routing or first in HEADS or (form.fitted and first not in ("blocks", "body")):
            continue
        rows, inputs = upright(place).shape({slot: tuple(layers[slot].weight.shape) for slot in place.slots})
        if form.fits((rows, inputs)):
            packed[name] = place
        else:
            misfits.append(f"{name} [{rows}, {inputs}]")
    sizes = f"multiples of {form.multiple[0]} outputs and {form.multiple[1]} inputs"
    if not packed:
        what = f"{form.kind} wants {sizes}, and this model has no such matrix" + (f": {misfits[0]}" if misfits else "")
        raise ArgumentError(what, where=str(outline.config.where), next="try a smaller group: --set group_size=32")
    places = {name: model.file_table.find(name) for name in weights.names if name not in packed}
    others = {name: each for name, each in places.items() if each is not None}
    unpacked = [name for name, place in others.items() if any(slot in layers for slot in place.slots)]
    tied = [each.name for slot in model.ties() if slot in layers and (each := model.table.default_place(slot))]
    left = [name.removesuffix(".weight") for name in [*unpacked, *tied] if name.endswith(".weight")]
    notes = []
    if misfits:
        notes.append(f"{len(misfits)} matrices stay as they are, such as {misfits[0]}: {form.kind} wants {sizes}")
    if stacked := [name for name in unpacked if isinstance(others[name].layout, Stacked)]:
        notes.append(f"{len(stacked)} tensors of all experts stay as they are, such as {stacked[0]}")
    return Choice(packed, list(dict.fromkeys(left)), notes)


# ------------------------------------------------------------------------------------------------ making


def _packed(outline: Outline, choice: Choice, form: Form) -> Iterator[tuple[str, PackedTensor]]:
    """Each matrix by itself."""
    assert form.pack is not None
    for name, place in choice.packed.items():
        tensor = outline.weights.tensor(name)
        numbers = tensor if upright(place) == place else tensor.t().contiguous()
        yield name, form.pack(numbers)
        outline.weights.release(name)


def _fitted(
    outline: Outline, choice: Choice, form: Form, text: str | None, notes: Notes
) -> Iterator[tuple[str, Tensor]]:
    """Block after block, fitted to a text."""
    model = load(folder=outline.folder, task=outline.task, pack=held)
    tokenizer = Tokenizer.from_folder(outline.folder)
    texts = texts_of(tokenizer, parted(text or default_text())[0], length=length_of(model))
    yield from fit(model, texts, choice.packed, form, notes)


class Held(RowsPacked):
    """A matrix in float16 as its file has it, for a model that computes in float32: its rows are widened when read."""

    KIND = "float16"

    def unpack(self, rows: slice) -> Tensor:
        return self.parts["numbers"][rows].float()


def held(slot: str, numbers: Tensor) -> Tensor:
    """What `load` makes of a parameter: a float16 matrix stays in the file."""
    if numbers.dtype == torch.float16 and numbers.dim() == 2:
        return Held({"numbers": numbers}, None, numbers.shape)
    return numbers


# ------------------------------------------------------------------------------------------------ writing


@dataclass
class Stored:
    """Where a tensor lies in the scratch file."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Shelf(Mapping[str, Tensor]):
    """The tensors of the new checkpoint: what was put, from the scratch file; the others as the source has them."""

    def __init__(self, weights: Weights, file: IO[bytes]) -> None:
        self.weights, self.file = weights, file
        self.put_for: dict[str, dict[str, Stored]] = {}  # tensor of the source -> what stands for it
        self.kind_of: dict[str, str] = {}
        self._names: dict[str, tuple[str, Stored | None]] | None = None

    def put(self, name: str, tensor: Tensor) -> None:
        """A tensor, packed or not, in the place of one of the source's."""
        if isinstance(tensor, PackedTensor):
            self.kind_of[name] = tensor.kind
            parts = tensor.parts
            found = {file_name: parts[part] for part, file_name in tensor.file_names(name).items()}
        else:
            found = {name: tensor.to(self.weights.tensor(name).dtype)}
        self.put_for[name] = {file_name: self._written(part) for file_name, part in found.items()}
        self.file.flush()

    def _written(self, tensor: Tensor) -> Stored:
        at = self.file.tell()
        flat = tensor.detach().contiguous().reshape(-1)
        self.file.write(flat.view(torch.uint8).numpy().data)
        return Stored(at, tuple(tensor.shape), tensor.dtype)

    def _read(self, at: Stored) -> Tensor:
        count = math.prod(at.shape) * at.dtype.itemsize
        if not count:
            return torch.empty(at.shape, dtype=at.dtype)
        data = np.memmap(self.file.name, np.uint8, "c", at.start, (count,))
        return torch.from_numpy(np.asarray(data)).view(at.dtype).view(at.shape)

    @property
    def names(self) -> dict[str, tuple[str, Stored | None]]:
        """Name in the new checkpoint -> tensor of the source, and where it was put."""
        if self._names is None:
            self._names = {}
            for name in self.weights.names:
                put = self.put_for.get(name)
                self._names |= {name: (name, None)} if put is None else {file: (name, at) for file, at in put.items()}
        return self._names

    def __getitem__(self, name: str) -> Tensor:
        source, at = self.names[name]
        return self.weights.tensor(source) if at is None else self._read(at)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def kinds(self) -> dict[str, tuple[int, int]]:
        """Kind -> how many tensors of the source became it, and their bytes."""
        found: dict[str, tuple[int, int]] = {}
        for name in self.weights.names:
            kind = self.kind_of.get(name, self.weights.entry(name).dtype)
            count, size = found.get(kind, (0, 0))
            found[kind] = count + 1, size + self.nbytes(name)
        return found

    def nbytes(self, name: str) -> int:
        """Bytes of what stands for a tensor of the source."""
        put = self.put_for.get(name)
        if put is None:
            return self.weights.entry(name).nbytes
        return sum(math.prod(at.shape) * at.dtype.itemsize for at in put.values())


def copied(source: Path, out: Path) -> list[Path]:
    """The tokenizer, the template, what makes a sentence's vector, and what else goes with a model.

    What is there already stays.
    """
    found = []
    for path in sorted(source.iterdir()):
        fits = path.suffix in BESIDE or path.name.startswith(("LICENSE", "NOTICE"))
        mine = path.name == "config.json" or path.name.endswith(".index.json")
        if fits and not mine and path.is_file() and path.stat().st_size <= LARGE and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
            found.append(out / path.name)
    for folder in sorted(source.glob(hub.MODULE)):
        if folder.is_dir() and not (out / folder.name).exists():
            shutil.copytree(folder, out / folder.name)
            found += sorted(path for path in (out / folder.name).rglob("*") if path.is_file())
    return found


# ------------------------------------------------------------------------------------------------ before and after


def quality(source: Path, out: Path, text: str | None = None) -> Quality:
    """Both models on a text: the part of it that calibration does not read."""
    config, family = families.read_config(source)
    task = task_of(config, family, next(iter(family.spec(config)[0].heads), None))
    before, after = (load(folder=folder, task=task, pack=held) for folder in (source, out))
    tokenizer = Tokenizer.from_folder(source)
    length = length_of(before)
    ids = tokenizer.encode(parted(text or default_text())[1], add_special_tokens=False)[:REPORTED]
    return compared(before, after, list(windows(ids, length)))
