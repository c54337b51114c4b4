"""From a model to a folder: the names and layouts of the file it came from, written beside and then renamed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid import families, hub
from pellucid.errors import PellucidError
from pellucid.models.describing import write_card
from pellucid.models.model import Model
from pellucid.ops.packed import PackedTensor
from pellucid.quant._blocks import GgufBlocks
from pellucid.quant.format import Group
from pellucid.quant.gguf import pack
from pellucid.text import fingerprint
from pellucid.text.tokenizer import Tokenizer
from pellucid.weights.gguf import SUFFIX, GgufFile
from pellucid.weights.gguf import write as write_gguf
from pellucid.weights.safetensors import DTYPES, describe
from pellucid.weights.save import replace_file, save_tensors
from pellucid.weights.table import rounds

log = logging.getLogger("pellucid")


def config_values(model: Model) -> dict[str, Any]:
    """What config.json will say: what it said, with the dtype and the class of this model.

    Weights that were unpacked while loading are saved so: nothing is said of how they were packed.
    """
    values = model.config.given()
    if not _holds_packed(model):
        values.pop("quantization_config", None)
    key = "torch_dtype" if "torch_dtype" in values and "dtype" not in values else "dtype"
    values[key] = str(model.dtype).removeprefix("torch.")
    name = families.find(model.config.model_type).classes.get(model.task)
    if name is not None:
        values["architectures"] = [name]
    return values


def _holds_packed(model: Model) -> bool:
    return any(isinstance(p, PackedTensor) for p in nn.Module.parameters(model))


class GgufTensors(Mapping[str, tuple[str, tuple[int, ...], Tensor]]):
    """The tensors of a model as its GGUF file has them: name -> kind, shape, bytes; each made when it is asked for."""

    def __init__(self, model: Model, file: GgufFile) -> None:
        self.tensors, self.file = FileTensors(model), file

    def __getitem__(self, name: str) -> tuple[str, tuple[int, ...], Tensor]:
        """In the file's own kind where that loses nothing; what was packed and no longer is, in the model's dtype."""
        tensor, entry = self.tensors.whole(name), self.file.entries.get(name)
        unpacked = entry is not None and entry.dtype not in DTYPES and not isinstance(tensor, PackedTensor)
        lost = unpacked or rounds(self.tensors.places[name].layout)
        if entry is not None and lost and self._untouched(name):
            return entry.dtype, entry.shape, self.file.tensor(name)
        if isinstance(tensor, GgufBlocks):
            return tensor.kind, tuple(tensor.shape), tensor.parts["blocks"]
        if isinstance(tensor, PackedTensor):
            tensor = tensor.dense()
        if entry is not None and entry.dtype in DTYPES:
            tensor = tensor.to(getattr(torch, DTYPES[entry.dtype][1] or ""))
        return describe(tensor, name)[0], tuple(tensor.shape), tensor

    def _untouched(self, name: str) -> bool:
        """Whether a parameter is still what the file's numbers were turned into; they cannot be turned back exactly."""
        place, held = self.tensors.places[name], self.tensors.held
        now = [held[slot] for slot in place.slots]
        if any(isinstance(each, PackedTensor) for each in now):
            return False
        then = place.split(self._numbers(name), [len(each) for each in now])
        return all(torch.equal(old.to(new.dtype), new) for old, new in zip(then, now))

    def _numbers(self, name: str) -> Tensor:
        entry, tensor = self.file.entries[name], self.file.tensor(name)
        if entry.dtype in DTYPES:
            return tensor
        return pack(Group(name, {"blocks": name}, entry.shape, entry.dtype), {"blocks": tensor}, {}).dense()

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors.places)

    def __len__(self) -> int:
        return len(self.tensors.places)


class FileTensors(Mapping[str, Tensor]):
    """The tensors of a model as its file has them, each made when it is asked for."""

    def __init__(self, model: Model) -> None:
        self.places = dict(model.file_places())
        self.held = dict(nn.Module.named_parameters(model, remove_duplicate=False))
        self.dtype = model.dtype
        self.parts: dict[str, tuple[str, str]] = {}  # file tensor -> the weight that it is a part of, which part
        for name in self.places:
            whole = self.whole(name) if self._may_be_packed(name) else None
            names = whole.file_names(name) if isinstance(whole, PackedTensor) else {"": name}
            self.parts |= {file_name: (name, part) for part, file_name in names.items()}

    def __getitem__(self, name: str) -> Tensor:
        name, part = self.parts[name]
        tensor = self.whole(name)
        return tensor.file_parts()[part] if isinstance(tensor, PackedTensor) else tensor

    def whole(self, name: str) -> Tensor:
        """A weight: numbers, or packed."""
        place = self.places[name]
        tensor = place.join([self.held[slot].detach() for slot in place.slots])
        return tensor if place.slots or not tensor.is_floating_point() else tensor.to(self.dtype)

    def _may_be_packed(self, name: str) -> bool:
        return any(isinstance(self.held[slot], PackedTensor) for slot in self.places[name].slots)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def save(model: Model, folder: str | os.PathLike[str], *, max_shard_size: int | str = "50GB") -> list[Path]:
    """Writes config.json, safetensors, a fingerprint and a card; an interrupted save leaves what was there.

    A model of a GGUF file becomes one again, of the same name in `folder`, or at a path that ends in .gguf.

    Saving into the folder that the model is mapped from works: the old file lives on until the model lets go of it.
    """
    target = Path(folder)
    if model.container is not None:
        path = target if target.suffix == SUFFIX else target / model.container.whole_name
        path.parent.mkdir(parents=True, exist_ok=True)
        alignment = model.container.header.alignment
        write_gguf(path, model.container, GgufTensors(model, model.container), alignment=alignment)
        return [path]
    target.mkdir(parents=True, exist_ok=True)
    files = save_tensors(FileTensors(model), target, max_shard_size=max_shard_size)
    replace_file(target / "config.json", json.dumps(config_values(model), indent=2, ensure_ascii=False) + "\n")
    remember_tokenizer(model, target)
    write_card(model, target)
    return [target / "config.json", *files]


def remember_tokenizer(model: Model, target: Path) -> None:
    """Writes the fingerprint of the tokenizer in `target`, else of the one beside the weights that were loaded.

    A tokenizer that is put beside these weights later is then compared with it. One that is written already stays.
    """
    source = Path(model.report.files[0]).parent if model.report.files else target
    folder = next((each for each in (target, source) if hub.has_tokenizer(each)), None)
    if folder is None or (target / fingerprint.FILE).exists():
        return
    try:
        tokenizer = Tokenizer.from_folder(folder)
    except PellucidError as error:
        log.warning("no fingerprint is saved, as the tokenizer beside the weights does not load: %s", error)
    else:
        fingerprint.write(fingerprint.take(tokenizer, folder), target)
