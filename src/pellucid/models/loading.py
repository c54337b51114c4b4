"""From a folder to a model: every tensor of the file has a place, every parameter is filled exactly once."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pellucid import families, hub, quant
from pellucid.config import Config
from pellucid.errors import ArgumentError, ConfigError, Unsupported, WeightsError, nearest
from pellucid.models.model import Model, Report
from pellucid.models.quantizing import Quantize, QuantizedWeights, upright
from pellucid.models.sides import table_for
from pellucid.models.sizes import keeps_half
from pellucid.models.trained import another_head, trained_for
from pellucid.nn.linear import stagger
from pellucid.nn.parts import Layer, Rms
from pellucid.nn.watched import reach
from pellucid.ops.packed import PackedTensor, unpacked
from pellucid.ops.positions import sinusoids
from pellucid.ops.rope import inverse_frequencies
from pellucid.spec import Attention, Block, Rope, Sinusoidal, Spec, Task
from pellucid.weights.gguf import GgufFile
from pellucid.weights.source import Weights, open_weights
from pellucid.weights.table import OTHER_HEAD, Place, Table, Viewed

if TYPE_CHECKING:
    from pellucid.models.plan import Plan

log = logging.getLogger("pellucid")

Pack = Callable[[str, Tensor], Tensor]  # slot and numbers -> a PackedTensor, or the same numbers

# Modules that belong to a task rather than to the network: absent as a whole, they are new; in part, they are broken.
HEADS = ("lm_head", "classifier", "span", "next_sentence", "pooler", "head")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass
class Source:
    """Where a parameter's pages come from."""

    weights: Weights
    name: str
    address: int  # of the parameter, as it was loaded
    tensors: int = 1  # that lie in the same memory: the parts of a fused matrix

    def release(self) -> None:
        """Gives clean pages back to the operating system; they are read again when touched."""
        self.weights.release(self.name)

    def dirty(self) -> bool | None:
        """Whether the mapped pages were written to; None where that cannot be known."""
        return self.weights.dirty(self.name)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()  # a pickled parameter holds its own values


@torch.inference_mode(False)  # parameters are ordinary tensors, wherever they are made
def load(
    name: str | os.PathLike[str] | None = None,
    *,
    task: Task | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    config: Config | None = None,
    overrides: Mapping[str, Any] | None = None,
    ignore_tensors: Sequence[str] = (),
    ignore_mismatched_sizes: bool = False,
    seed: int = 0,
    model_class: type[Model] = Model,
    folder: Path | None = None,
    pack: Pack | None = None,
    quantize: Quantize | None = None,
    placement: Mapping[str, Any] | Plan | None = None,
) -> Model:
    """A model with the weights of a folder, of a hub id, or of the default model (None).

    Args:
        task: which head; None for the hidden states alone.
        dtype: None or "auto" for the file's; float16 computes in float32 on a CPU. Asked for by name, and in GGUF
            files, matrices that are float16 in the file stay so in memory, and are not trained.
        overrides: config keys of the family (`num_labels=3`).
        ignore_tensors: names or patterns of file tensors that nothing needs to read.
        ignore_mismatched_sizes: a head of another shape counts as absent.
        seed: for the parameters of a head that the file does not have.
        folder: the resolved folder or GGUF file, where the caller has it.
        pack: what to make of the numbers of a parameter: packed ones, or the same.
        quantize: how to pack the matrices of linear layers, as a packed checkpoint would have them.
        placement: a device for each module (`placing.py`), in the place of `device`.

    Raises:
        NotAModel, ConfigError, WeightsError, ArgumentError: see `errors.py`; the message names what to do.
    """
    ignore_tensors = ignore_tensors or ()
    if not isinstance(ignore_tensors, (list, tuple, set)) or not all(isinstance(each, str) for each in ignore_tensors):
        what = f"ignore_tensors={ignore_tensors!r} is no list of names"
        raise ArgumentError(what, where="ignore_tensors", next="give a list of names or patterns")
    folder = folder or hub.resolve(name)
    if config is None:
        config, family = families.read_config(folder, overrides)
    else:
        family = families.find(config.model_type, config.where)
        config.update(overrides or {})
    spec, unknown = family.spec(config)
    task = family.task(task)
    model = unfilled(model_class, spec, config, family.table(config, task), task)
    weights = quant.opened(open_weights(folder), config.given().get("quantization_config"))
    if isinstance(weights.only_file, GgufFile):
        model.container = weights.only_file
        model.file_table = table_for(task, family.gguf_table(config, task), spec)
    target = torch.device(device or "cpu")
    report = Report(files=[str(path) for path in weights.files], unknown_keys=unknown)
    model.report = report
    wanted = choose_dtype(dtype, weights, target, report)
    if quantize is not None:
        weights = _quantized(model, weights, wanted, quantize)
    half = keeps_half(weights, dtype, cpu=target.type == "cpu")
    if half and pack is None and quantize is None:
        from pellucid.quant._half import staying

        pack = staying(dict(model.named_modules()))
    filled = _fill(model, weights, wanted, ignore_tensors, ignore_mismatched_sizes, pack)
    _complete(model, filled, wanted, seed)
    if another_head(task, has := trained_for(model)) and "classifier.out.weight" not in report.initialised:
        report.notes.append(
            f"the checkpoint has a head for {', '.join(map(str, has))}, whose parameters are only called like those of "
            f"{task}: train this one before it is used"
        )
    for parameter in nn.Module.parameters(model):
        if isinstance(source := getattr(parameter, "source", None), Source):
            source.tensors = reach({"weight": parameter})[1]
    for key, value in unknown.items():
        if value not in (None, False, 0, "", [], {}):
            report.notes.append(f"config key {key}={value!r} is unknown and has no effect")
    for note in report.notes:
        log.warning("%s: %s", folder.name, note)
    stagger(model)
    model.eval()
    if placement is not None:
        from pellucid.models.placing import place

        return place(model, placement)
    return model if target.type == "cpu" else model.to(target)


@torch.inference_mode(False)
def create(
    config: Config, *, task: Task | None, dtype: torch.dtype | None = None, model_class: type[Model] = Model
) -> Model:
    """A model with random weights, drawn from torch's global generator."""
    family = families.find(config.model_type, config.where)
    spec, unknown = family.spec(config)
    task = family.task(task)
    model = unfilled(model_class, spec, config, family.table(config, task), task)
    model.report.unknown_keys = unknown
    if dtype is not None:
        model.to(dtype)
    _afford(nn.Module.parameters(model), config)
    model.to_empty(device="cpu")
    model.tie_weights()
    initialise(model, None)
    return model.eval()


def unfilled(model_class: type[Model], spec: Spec, config: Config, table: Table, task: Task | None) -> Model:
    """The model without memory for its parameters."""
    try:
        with torch.device("meta"):
            return model_class(spec.of(task), config, table_for(task, table, spec), task)
    except RuntimeError as error:  # a product of sizes beyond 63 bits
        raise ConfigError(
            f"no tensor has the sizes that the config asks for: {str(error).splitlines()[0]}",
            where=config.where,
            next="correct config.json",
        ) from None


def _afford(parameters: Iterable[Tensor], config: Config) -> None:
    """Refuses to make random numbers for what no memory here holds."""
    wanted = sum(p.numel() * p.element_size() for p in parameters)
    here = _free_memory()
    if here is not None and wanted > here:
        raise ConfigError(
            f"new parameters of {wanted / 1e9:.1f} GB, and this machine has {here / 1e9:.1f} GB of memory left",
            where=config.where,
            next="make the model smaller, or use a larger machine",
        )


def _free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


# ------------------------------------------------------------------------------------------------ dtype


def choose_dtype(
    asked: torch.dtype | str | None, weights: Weights, device: torch.device, report: Report
) -> torch.dtype:
    """The dtype to compute in: what was asked, or the file's, with float16 widened on a CPU."""
    if asked is None or asked == "auto":
        size: dict[str, int] = {}
        for name in weights.names:
            entry = weights.entry(name)
            size[entry.dtype] = size.get(entry.dtype, 0) + entry.nbytes
        floats = {kind: n for kind, n in size.items() if kind in DTYPES}
        if not floats and any(weights.packed(name) for name in weights.names):
            floats = {"F32": 1}
        if not floats:
            if not size:
                raise WeightsError("holds no tensor", where=weights.files[0], next="download it again")
            raise Unsupported(
                f"weights of dtype {', '.join(size)}",
                where=weights.files[0],
                next="convert them to BF16 or F32",
            )
        dtype = DTYPES[max(floats, key=lambda kind: floats[kind])]
        if len(floats) > 1 and not isinstance(weights.only_file, GgufFile):  # there, vectors are in F32 always
            report.notes.append(f"the file mixes {', '.join(sorted(floats))}; computing in {dtype}")
    else:
        dtype = parse_dtype(asked)
    if dtype == torch.float16 and device.type == "cpu":
        kept = "matrices stay float16 in memory and are not trained; pass dtype='float32' for that, or 'bfloat16'"
        both = "pass dtype='bfloat16' to compute in 16 bits, 'float16' to keep them in memory"
        half = keeps_half(weights, asked, cpu=True)
        report.notes.append(f"float16 computes in float32 on a CPU; {kept if half else both}")
        return torch.float32
    return dtype


def parse_dtype(asked: torch.dtype | str) -> torch.dtype:
    """`torch.bfloat16`, `"bfloat16"` or `"torch.bfloat16"`."""
    dtype = asked if isinstance(asked, torch.dtype) else getattr(torch, str(asked).removeprefix("torch."), None)
    if dtype not in DTYPES.values():
        raise ArgumentError(
            f"dtype={asked!r} is none that a model computes in",
            where="dtype",
            next="use 'auto', 'float32', 'bfloat16', 'float16' or 'float64'",
        )
    assert isinstance(dtype, torch.dtype)
    return dtype


# ------------------------------------------------------------------------------------------------ filling


def _fill(
    model: Model,
    weights: Weights,
    dtype: torch.dtype,
    ignore_tensors: Sequence[str],
    ignore_mismatched: bool,
    pack: Pack | None,
) -> set[str]:
    """Gives every file tensor its place; returns the parameters that were filled."""
    report = model.report
    for pattern in ignore_tensors:
        if not any(fnmatch(name, pattern) for name in weights.names):
            raise ArgumentError(
                f"ignore_tensors: the file has no {pattern!r}",
                where="ignore_tensors",
                next=nearest(pattern, weights.names) or "leave it out",
            )
    slots = dict(nn.Module.named_parameters(model, remove_duplicate=False))
    homeless: list[str] = []
    sources: dict[str, list[tuple[str, Place]]] = {}  # slot, or row of one -> the file tensors that fill it
    shapes = {slot: tuple(parameter.shape) for slot, parameter in slots.items()}
    parts = dict(model.named_children())
    for name in weights.names:
        place = model.file_table.find(name)
        if place is not None and weights.packed(name):
            place = as_packed(place, shapes, weights)
        if place is not None and model.container is not None:
            place = as_viewed(place, shapes, weights)
        ignored = any(fnmatch(name, pattern) for pattern in ignore_tensors)
        if ignored:
            report.unused[name] = "named in ignore_tensors"
        elif place is None:
            homeless.append(name)
        elif place.recomputed:
            _compare_buffer(model, place.recomputed, name, weights)
            report.recomputed[name] = place.recomputed
        elif place.unused == OTHER_HEAD:
            report.other_heads.append(name)
        elif place.unused:
            report.unused[name] = place.unused
        elif all(slot in slots for slot in place.slots) and _has_row(place, slots):
            if _shape_fits(place, slots, weights, ignore_mismatched, report):
                for piece in place.pieces:
                    sources.setdefault(piece, []).append((name, place))
        elif place.slots[0].split(".")[0] in HEADS and place.slots[0].split(".")[0] not in parts:
            report.other_heads.append(name)
        else:
            homeless.append(name)
        if place is not None and place.keep and not ignored:
            model.places.append(replace(place, kept=weights.tensor(name)))
    if homeless:
        _refuse_homeless(homeless, model, weights)
    _settle_ties(model, sources, weights)
    return _assign(model, sources, weights, dtype, pack)


def _quantized(model: Model, weights: Weights, dtype: torch.dtype, how: Quantize) -> Weights:
    """The same weights, packed when they are asked for; config.json says so from now on."""
    if any(weights.packed(name) for name in weights.names):
        said = model.config.given().get("quantization_config")
        if isinstance(said, Mapping) and said.get("quant_method", "") == how.says.get("quant_method"):
            model.report.notes.append("the file is packed already: it is read as it is")
            return weights
        what = f"the weights are packed already, and {how.kind} is asked for"
        raise Unsupported(what, where=weights.files[0], next="leave it out, or load the unpacked checkpoint")
    model.config._given["quantization_config"] = dict(how.says)
    return QuantizedWeights(weights, model, dtype, how, HEADS)


def as_packed(place: Place, shapes: Mapping[str, tuple[int, ...]], weights: Weights) -> Place:
    """Formats of linear layers have [out, in], also where an unpacked file has [in, out]."""
    turned = upright(place)
    if turned is place or not all(slot in shapes for slot in place.slots):
        return place
    return turned if turned.shape(shapes) == tuple(weights.entry(place.name).shape) else place


def as_viewed(place: Place, shapes: Mapping[str, tuple[int, ...]], weights: Weights) -> Place:
    """GGUF knows no dimensions of one in front: a file may have any number of them."""
    if not place.slots or place.row is not None or not all(slot in shapes for slot in place.slots):
        return place
    wanted, found = place.shape(shapes), tuple(weights.entry(place.name).shape)
    same = wanted != found and math.prod(wanted) == math.prod(found)
    bare = [tuple(dropwhile(lambda n: n == 1, shape)) for shape in (wanted, found)]
    return replace(place, layout=Viewed(place.layout, wanted, found)) if same and bare[0] == bare[1] else place


def _has_row(place: Place, slots: Mapping[str, Tensor]) -> bool:
    return place.row is None or place.row < len(slots[place.slots[0]])


def _shape_fits(
    place: Place, slots: Mapping[str, Tensor], weights: Weights, ignore_mismatched: bool, report: Report
) -> bool:
    """Whether a file tensor has the shape that its slots add up to."""
    expected = place.shape({slot: slots[slot].shape for slot in place.slots})
    found, kind = tuple(weights.entry(place.name).shape), weights.entry(place.name).dtype
    if found == expected and whole(kind):
        what = f"{place.name} holds whole numbers ({kind}), and a parameter none"
        raise WeightsError(what, where=weights.file_of(place.name), next="load the unquantized checkpoint")
    if found == expected:
        return True
    if ignore_mismatched and place.slots[0].split(".")[0] in HEADS:
        report.unused[place.name] = f"is {list(found)}, the new head wants {list(expected)}"
        return False
    raise WeightsError(
        f"{place.name} is {list(found)}, the model wants {list(expected)}",
        where=weights.file_of(place.name),
        next="correct config.json; for a new head of another size pass ignore_mismatched_sizes=True",
    )


def whole(kind: str) -> bool:
    """Whether a file's dtype is one of whole numbers: parts of a quantized matrix, but no parameter."""
    return kind in ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")


def _refuse_homeless(names: list[str], model: Model, weights: Weights) -> None:
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise WeightsError(
        f"{len(names)} tensor(s) have no place in a {model.spec.family} model with this config: {listed}",
        where=weights.file_of(names[0]),
        next=f"correct config.json, or pass ignore_tensors={names[:5]!r} if nothing needs them",
    )


def _settle_ties(model: Model, sources: dict[str, list[tuple[str, Place]]], weights: Weights) -> None:
    """One file tensor for each parameter: copies must be equal, and a head that differs is not tied."""
    for tied, stored in model.ties().items():
        if tied not in sources:
            continue
        if stored not in sources:  # the file keeps the shared matrix under its other name
            sources[stored] = sources.pop(tied)
            continue
        own = sources[tied][0][0]
        equal = torch.equal(weights.tensor(own), weights.tensor(sources[stored][0][0]))
        if equal or not tied.startswith("lm_head"):
            sources[stored] += sources.pop(tied)
        else:
            model.untie()
            model.report.notes.append(f"{own} differs from the embedding it should be tied to; kept as it is")
    for slot, found in sources.items():
        for name, _ in found[1:]:
            if not torch.equal(weights.tensor(name), weights.tensor(found[0][0])):
                raise WeightsError(
                    f"{found[0][0]} and {name} are the same parameter, {slot}, and differ",
                    where=weights.file_of(name),
                    next=f"pass ignore_tensors=[{name!r}] to take the first",
                )


def _assign(
    model: Model,
    sources: Mapping[str, list[tuple[str, Place]]],
    weights: Weights,
    dtype: torch.dtype,
    pack: Pack | None,
) -> set[str]:
    """Makes views of the mapped file the parameters; copies to change the dtype, or where rows lie scattered.

    Returns:
        the parameters that are whole.
    """
    slots = dict(nn.Module.named_parameters(model, remove_duplicate=False))
    ties = model.ties()
    places = {name: place for found in sources.values() for name, place in found}
    rows: dict[str, list[tuple[int, Tensor]]] = {}
    shares: dict[str, list[tuple[int, Tensor]]] = {}
    filled: set[str] = set()
    for name in weights.names:
        if name not in places:
            continue
        place = places[name]
        model.report.used.append(name)
        pieces = [ties.get(piece, piece) for piece in place.pieces]
        if not any(sources[piece][0][0] == name for piece in pieces):
            model.places.append(place)
            continue  # an equal copy of a tensor that is taken
        tensor = weights.tensor(name)
        sizes = [slots[slot].shape[0] if slots[slot].dim() else 1 for slot in place.slots]
        parts = place.split(tensor, sizes)
        stays = any(isinstance(part, PackedTensor) for part in parts)
        as_is = stays or isinstance(place.layout, Viewed)  # unpacked, it lies as files have it
        model.places.append(place if as_is else model.file_table.find(name) or place)
        for slot, piece, part in zip(place.slots, pieces, parts):
            if sources[piece][0][0] != name:
                continue
            if place.row is not None:
                rows.setdefault(slot, []).append((place.row, part))
                continue
            if place.share is not None:
                shares.setdefault(slot, []).append((place.share.first, unpacked(part)))
                continue
            precise = getattr(slots[slot], "precise", False)  # a router's choice is not rounded (nn/moe.py)
            if isinstance(part, PackedTensor):
                _set(model, piece, _placed(part, slots[slot], dtype), None)
                filled.add(piece)
                continue
            kept = torch.promote_types(dtype, part.dtype) if precise else dtype
            if pack is not None and isinstance(numbers := pack(piece, part), PackedTensor):
                _set(model, piece, numbers.to(kept), None)
                filled.add(piece)
                continue
            mapped = part.dtype == kept and not isinstance(tensor, PackedTensor)
            mapped = mapped and part.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
            _set(model, piece, part.to(kept), Source(weights, name, part.data_ptr()) if mapped else None)
            filled.add(piece)
    for slot, found in rows.items():
        if len(found) == len(slots[slot]):
            _set(model, slot, torch.stack([part for _, part in sorted(found, key=lambda row: row[0])]).to(dtype), None)
            filled.add(slot)
    for slot, found in shares.items():
        whole = torch.cat([part for _, part in sorted(found, key=lambda share: share[0])], dim=1).flatten(0, 1)
        if whole.shape == slots[slot].shape:
            _set(model, slot, whole.to(dtype), None)
            filled.add(slot)
    model.tie_weights()
    return filled


def _placed(part: PackedTensor, empty: Tensor, dtype: torch.dtype) -> Tensor:
    """A packed matrix that computes in `dtype`. What is no matrix, such as a norm's weight, is unpacked."""
    fits = empty.dim() == 2 and part.shape == empty.shape
    return part.like(part.parts, part.shape, dtype) if fits else part.dense().to(dtype)


def _set(model: nn.Module, slot: str, tensor: Tensor, source: Source | None) -> None:
    path, _, last = slot.rpartition(".")
    owner = model.get_submodule(path)
    empty = dict.get(owner._parameters, last)
    if isinstance(tensor, PackedTensor):
        parameter: Any = tensor.parameter()
    else:
        parameter = nn.Parameter(tensor, requires_grad=empty is None or empty.requires_grad)
    if source is not None:
        parameter.source = source  # read by nn/linear.py
    owner._parameters[last] = parameter


def _compare_buffer(model: Model, kind: str, name: str, weights: Weights) -> None:
    """A buffer that follows from the config must say what the config says."""
    found = weights.tensor(name)
    match kind:
        case "position ids":
            same = torch.equal(found.flatten(), torch.arange(found.numel(), dtype=found.dtype))
        case "causal mask":
            same = _same_mask(model, found)
        case "masked score":
            same = found.numel() == 1 and float(found) <= -1e4
        case "sinusoids":
            same = _same_waves(model, found)
        case _:
            same = _same_frequencies(model, found)
    if not same:
        raise WeightsError(
            f"the stored {kind} {name} {list(found.shape)} are not what config.json gives",
            where=weights.file_of(name),
            next=f"correct config.json, or pass ignore_tensors=[{name!r}] to trust it",
        )


def _attentions(model: Model) -> list[Attention]:
    mixers = [block.attn for block in model.stack.blocks if isinstance(block, Block)]
    return [mixer for mixer in mixers if isinstance(mixer, Attention)]


def _same_mask(model: Model, found: Tensor) -> bool:
    n = found.shape[-1]
    if found.numel() != n * n:
        return False
    seen = torch.ones(n, n).tril() != 0
    windows = {attn.window for attn in _attentions(model)} | {None}
    return any(torch.equal(found.reshape(n, n) != 0, seen & (seen.triu(1 - w) if w else seen)) for w in windows)


def _same_waves(model: Model, found: Tensor) -> bool:
    """Sines and cosines of the positions, added to the input or turning the heads; rows before the first are free."""
    spec = model.stack.embed.positions
    waves = spec if isinstance(spec, Sinusoidal) else Sinusoidal(short=False)
    expected = sinusoids(torch.arange(len(found)), found.shape[-1], layout=waves.layout, short=waves.short)
    first = waves.offset
    return torch.allclose(found[first:].float(), expected[first:], rtol=1e-2, atol=1e-2)


def _same_frequencies(model: Model, found: Tensor) -> bool:
    ropes = {attn.rope for attn in _attentions(model) if isinstance(attn.rope, Rope)}
    candidates = [inverse_frequencies(r) for rope in ropes for r in (rope, replace(rope, scaling=None))]
    return any(c.shape == found.shape and torch.allclose(found.float(), c, rtol=1e-2, atol=1e-6) for c in candidates)


# ------------------------------------------------------------------------------------------------ completing


def _complete(model: Model, filled: set[str], dtype: torch.dtype, seed: int) -> None:
    """What the file does not hold: a whole head may be new, anything else is missing."""
    ties = model.ties()
    filled = filled | {tied for tied, stored in ties.items() if stored in filled}
    slots = [name for name, _ in nn.Module.named_parameters(model, remove_duplicate=False)]
    lost = [slot for slot in slots if slot not in filled]
    for head in HEADS:
        parts = [slot for slot in slots if slot.startswith(f"{head}.") and slot not in ties]
        if not parts or any(slot in filled for slot in parts):
            continue
        lost = [slot for slot in lost if slot not in parts]
        if head == "pooler" and model.task is None:
            model.pooler = None
            model.report.notes.append("the file has no pooler: pooler_output is None")
            continue
        _new_head(model, parts, dtype, seed)
    if lost:
        names = [name for slot in lost for name in _file_names(model, slot)]
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise WeightsError(
            f"{len(names)} parameter(s) are not in the file: {listed}",
            where=model.report.files[0],
            next="download it again; if config.json asks for more layers than there are, correct it",
        )


def _file_names(model: Model, slot: str) -> list[str]:
    """The file tensors that a parameter lacks."""
    rows = dict(nn.Module.named_parameters(model, remove_duplicate=False))[slot].shape[:1]
    names = [place.name for place in model.file_table.default_places(slot, *rows or (1,))]
    return [name for name in names if name not in model.report.used] or [slot]


def _new_head(model: Model, parts: list[str], dtype: torch.dtype, seed: int) -> None:
    current = dict(nn.Module.named_parameters(model))
    _afford([current[slot] for slot in parts], model.config)
    for slot in parts:
        _set(model, slot, torch.empty(current[slot].shape, dtype=dtype), None)
    initialise(model, torch.Generator().manual_seed(seed), only=set(parts))
    model.report.initialised += parts
    model.report.notes.append(
        f"the file has no {parts[0].split('.')[0]}: {len(parts)} parameters are new (seed {seed}); train before use"
    )


@torch.no_grad()
def initialise(model: Model, generator: torch.Generator | None, *, only: set[str] | None = None) -> None:
    """What training starts from: matrices from a normal distribution, norms and biases neutral.

    A module may say otherwise of its parameters, by name, in its START.

    Args:
        generator: None for torch's global one.
        only: canonical names; None for all parameters.
    """
    spread = float(model.config.get("initializer_range") or 0.02)
    done: set[int] = set()
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in done or (only and f"{path}.{name}" not in only):
                continue
            done.add(id(parameter))
            match module:
                case _ if name in (start := getattr(type(module), "START", {})):
                    parameter.fill_(start[name])
                case Rms(spec=spec):
                    parameter.fill_(1.0 - spec.offset)
                case Layer(spec=spec):
                    parameter.fill_(1.0 - spec.offset if name == "weight" else 0.0)
                case _ if name == "bias":
                    parameter.zero_()
                case _:
                    parameter.copy_(torch.normal(0.0, spread, parameter.shape, generator=generator))
