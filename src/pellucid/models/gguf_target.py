"""GGUF files of as many bits as asked, from safetensors or from another GGUF file, one tensor at a time."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid import families, gguf, hub
from pellucid.config import Config
from pellucid.errors import ConfigError, PellucidError, Unsupported
from pellucid.families import _gguf_write
from pellucid.families._gguf import DECODER, Gguf
from pellucid.families._text import text_config
from pellucid.models import calibration
from pellucid.models.conversion import Source, dense, stored
from pellucid.models.describing import gguf_card
from pellucid.models.loading import load
from pellucid.models.packing_to_disk import held
from pellucid.models.targets import Options, Progress, Report
from pellucid.quant._encode import ENCODE
from pellucid.quant._mixture import BASE, mixture
from pellucid.quant._mixture import Model as Shape
from pellucid.spec import Moe, Spec
from pellucid.text import fingerprint
from pellucid.text.formats import gguf_write
from pellucid.text.tokenizer import Tokenizer
from pellucid.weights.gguf import KEPT_IN_METADATA, GgufFile, Planned, metadata_bytes, write_planned
from pellucid.weights.table import Place, Table

NO_WORDS = {"tokenizer.ggml.model": "none"}
TYPES = "tokenizer.ggml.token_type_count"  # which llama.cpp asks encoders for, also where there are none
VERSION, FILE_TYPE = "general.quantization_version", "general.file_type"


def quantize(source: Path, out: Path, options: Options, *, to: str) -> Report:
    """A GGUF file of a target of `quant/_mixture.py`.

    Raises:
        Unsupported: the family has no table of GGUF names, or the file could not say all that the config says.
        WeightsError: a number that is not finite, or larger than the kind has.
    """
    model = Source(source)
    importance = _importance(model, options)
    if model.container is not None:
        return _again(model, model.container, out, options, to, importance)
    if model.spec.family in _gguf_write.UNTIED:
        model.untie()
    table, config = gguf_table(model.spec, source), text_of(model, source)
    entries, usual = Table(table.entries(config.copy())).entries, Table(DECODER).entries
    own_first = sorted(entries.items(), key=lambda item: usual.get(item[0]) == item[1])  # where it can read both
    places, left = model.places(Table(dict(own_first)))
    numbers = {place.name: place for place in places if place.name in KEPT_IN_METADATA}
    places = [place for place in places if place.name not in numbers]
    shapes = {place.name: place.shape(model.held) for place in places}
    extra = _gguf_write.vectors(model.spec)
    shapes |= {name: (len(numbers),) for name, numbers in extra.items()}
    values = _metadata(model, table, shapes, source)
    values |= {f"{values['general.architecture']}.{key}": value for key, value in options.says.items()}
    values |= {key: array("f", model.joined(place).tolist()) for key, place in numbers.items()}
    values |= gguf_card(source)
    words, notes = vocabulary(source, model.spec.stack.embed.vocab)
    values |= words | {VERSION: 2, FILE_TYPE: BASE[to][1]}
    kinds = mixture(shapes, to, _shape(model.spec), importance=importance is not None)
    planned = [_planned(model, place, kinds[place.name], importance) for place in places]
    planned += [
        Planned(name, "F32", shapes[name], lambda n=numbers: torch.tensor(n, dtype=torch.float32))  # type: ignore[misc]
        for name, numbers in extra.items()
    ]
    if left or model.left:
        notes.append(f"left out, as GGUF has no such head: {', '.join([*left, *model.left][:5])}")
    return _written(model, out, metadata_bytes(values), len(values), planned, options, notes)


def gguf_table(spec: Spec, source: Path) -> Gguf:
    """A family's table of llama.cpp's names.

    Raises:
        Unsupported: it has none; names the families that have.
    """
    family = families.find(spec.family, source)
    if getattr(family.module, "GGUF", None) is None:
        family = families.find(_gguf_write.FAMILY.get(spec.family, spec.family), source)
    if getattr(family.module, "GGUF", None) is None:
        known = [name for name in families.names() if hasattr(families.find(name, "").module, "GGUF")]
        what = f"{spec.family} has no table of llama.cpp's names"
        raise Unsupported(what, where=source, next=f"families that have one: {', '.join(known)}")
    return family.gguf


def text_of(model: Source, source: Path) -> Config:
    """The config, or its section for the text part where that is a family's own."""
    family = families.find(_gguf_write.FAMILY.get(model.spec.family, model.spec.family), source)
    section = model.config.section("text_config")
    if family.name == model.spec.family or section is None or family.gguf.inside:
        return model.config
    inner = section.get("model_type")
    own = families.find(inner, source) if families.knows(inner) else family
    return text_config(model.config.copy(), own.module)


def _metadata(model: Source, table: Gguf, shapes: Mapping[str, tuple[int, ...]], source: Path) -> dict[str, Any]:
    """What the file says of the model, checked by reading it as a file."""
    name = _gguf_write.FAMILY.get(model.spec.family, model.spec.family)
    family, config, spec = families.find(name, source), text_of(model, source), model.spec
    if table.alike is not None:
        config = family.config({**table.alike(config.copy()), "model_type": name}, source)
        spec, _ = family.spec(config)
    values = _gguf_write.metadata(table, config.copy(), spec)
    try:
        said = _gguf_write.said_as(family.gguf, values, shapes, spec, source)
        again, _ = family.spec(family.config({**said, "model_type": name}, source))
        found = _gguf_write.parted(spec, again)
    except ConfigError as error:
        found = error.what
    if found:
        what = f"a GGUF file cannot say what this {model.spec.family} is: {found}"
        raise Unsupported(what, where=source, next="keep the safetensors checkpoint")
    types = {TYPES: max(spec.stack.embed.token_types, 1)} if model.task is None else {}
    return {**values, "general.name": source.resolve().name, **types, **_ends(model)}


def _ends(model: Source) -> dict[str, Any]:
    """Ids that the config names; those of the tokenizer come on top."""
    found = {}
    for role, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items():
        ids = model.config.get(f"{role}_token_id")
        ids = ids if isinstance(ids, list) else [ids]
        for name, id in zip((key, "eot", "eom"), ids):
            if type(id) is int and id >= 0:
                found[f"tokenizer.ggml.{name}_token_id"] = id
    return found


def _shape(spec: Spec) -> Shape:
    blocks = _gguf_write.blocks(spec)
    attn, mlp = next((block.attn for block in blocks if block.attn is not None), None), blocks[-1].mlp
    grouped = getattr(attn, "heads", 1) // max(getattr(attn, "kv_heads", 1), 1)
    experts = mlp.experts if isinstance(mlp, Moe) else 0
    return Shape(_gguf_write.architecture(spec), len(spec.stack.blocks), grouped, experts)


def _planned(model: Source, place: Place, kind: str, importance: Mapping[str, Tensor] | None) -> Planned:
    shape = place.shape(model.held)

    def make() -> Tensor:
        made = stored(model.joined(place), kind, place.name, weight_of(place.slots, shape, importance))
        model.release(place)
        return made

    return Planned(place.name, kind, shape, make)


def weight_of(slots: Sequence[str], shape: Sequence[int], importance: Mapping[str, Tensor] | None) -> list[Tensor]:
    """What the columns of a matrix count, or those of each matrix of a stack; nothing where nobody knows."""
    if importance is None or len(shape) < 2 or not slots or slots[0] not in importance:
        return []
    if len(shape) == 2:
        return [importance[slots[0]]]
    return [importance[slot] for slot in slots] if all(slot in importance for slot in slots) else []


def _again(
    model: Source, file: GgufFile, out: Path, options: Options, to: str, importance: Mapping[str, Tensor] | None
) -> Report:
    """A GGUF file from another: its metadata byte for byte, tensors of the wanted kind as they are."""
    tensors = {name: entry for name, entry in file.entries.items() if name not in KEPT_IN_METADATA}
    matrices = {name: entry.shape for name, entry in tensors.items() if entry.dtype[0] != "I" or entry.dtype[1] == "Q"}
    kinds = mixture(matrices, to, _shape(model.spec), importance=importance is not None)
    planned = []
    for name, entry in tensors.items():
        kind = kinds.get(name, entry.dtype)
        if kind != entry.dtype and len(entry.shape) < 2:
            kind = entry.dtype  # vectors stay what they are
        place = model.table.find(name)
        slots = place.slots if place is not None else ()

        def make(name: str = name, kind: str = kind, slots: Sequence[str] = slots) -> Tensor:
            shape, same = file.entries[name].shape, kind == file.entries[name].dtype
            made = (
                file.tensor(name)
                if same
                else stored(dense(model.weights.tensor(name)), kind, name, weight_of(slots, shape, importance))
            )
            if not same:
                model.weights.release(name)
            return made

        planned.append(Planned(name, kind, entry.shape, make))
    packed = sorted({entry.dtype for entry in tensors.values()} & ENCODE.keys())
    notes = [f"made from {', '.join(packed)}, not from the whole numbers: both roundings add up"] if packed else []
    set_anew = {VERSION: 2, FILE_TYPE: BASE[to][1]}
    dropped = {*set_anew, *gguf.SPLIT}
    kept = [key for key in file.header.metadata if key not in dropped]
    entries = file.metadata_bytes(without=dropped) + metadata_bytes(set_anew)
    return _written(model, out, entries, len(kept) + len(set_anew), planned, options, notes)


def _written(
    model: Source, out: Path, entries: bytes, count: int, planned: Sequence[Planned], options: Options, notes: list[str]
) -> Report:
    """Writes the file, and tells of each tensor."""
    before, total = model.weights.nbytes, sum(tensor.nbytes for tensor in planned)
    numbers = sum(math.prod(tensor.shape) for tensor in planned)
    done, read, wrote = 0, 0, 0

    def told(tensor: Planned) -> None:
        nonlocal done, read, wrote
        done, wrote, read = done + 1, wrote + tensor.nbytes, read + math.prod(tensor.shape)
        what = f"{tensor.name} {tensor.kind}"
        options.progress(Progress(what, done, len(planned), before * read // max(numbers, 1), wrote))

    alignment = model.container.header.alignment if model.container else 32
    write_planned(out, entries, count, planned, alignment=alignment, wrote=told)
    sizes: dict[str, tuple[int, int]] = {}
    for tensor in planned:
        tensors, size = sizes.get(tensor.kind, (0, 0))
        sizes[tensor.kind] = (tensors + 1, size + tensor.nbytes)
    return Report([out], sizes, before, total, notes)


def _importance(model: Source, options: Options) -> Mapping[str, Tensor] | None:
    """What is given, or what the model's matrices see while it reads the text."""
    if options.importance is not None or not options.text:
        return options.importance
    network, tokenizer = load(folder=model.path, task=model.task, pack=held), Tokenizer.from_folder(model.path)
    text, length = calibration.parted(options.text)[0], calibration.length_of(network)
    return calibration.importance(network, calibration.texts_of(tokenizer, text, length=length))


# ------------------------------------------------------------------------------------------------ the tokenizer


def vocabulary(source: Path, rows: int) -> tuple[dict[str, Any], list[str]]:
    """The tokenizer of a folder as metadata, and what a user should know."""
    folder = source if source.is_dir() else source.parent
    if not hub.has_tokenizer(folder):
        note = "the folder has no tokenizer: the file has none either, and takes ids alone"
        return dict(NO_WORDS), [note]
    tokenizer = Tokenizer.from_folder(folder)
    try:
        found = gguf_write.metadata(tokenizer, rows, folder)
    except Unsupported as error:
        return dict(NO_WORDS), [f"the file has no tokenizer: {error.what}; give the folder's own beside it"]
    if parted := _parted(tokenizer, found):
        found[gguf_write.EMBEDDED] = tokenizer.rust.to_str()
        return found, [f"llama.cpp will cut some texts differently ({parted}); Pellucid reads the whole tokenizer"]
    return found, []


def _parted(tokenizer: Tokenizer, found: Mapping[str, Any]) -> str:
    """Where a tokenizer and what a file will say of it give different ids; "" if nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        write_planned(path, metadata_bytes(found), len(found), [])
        try:
            again = Tokenizer.from_folder(path)
        except PellucidError as error:
            return error.what
        (ours, _), (theirs, _) = fingerprint.look(tokenizer), fingerprint.look(again)
    different = [one.text for one, other in zip(ours, theirs) if one.ids != other.ids]
    return f"{len(different)} of {len(ours)} probes, such as {different[0]!r:.40}" if different else ""
