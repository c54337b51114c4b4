"""Executes a placement: modules on several devices, and the residual moved where a token crosses a border.

    placement   canonical module or file name -> device; the longest name that fits counts, "" is everything else
    disk        the processor, with the parameters left in the mapped file: read again when the system needs the memory

A block's parameters and its pages of the cache are on one device. Before a module runs, a hook takes what it is given
to its device; what the stack and the head say comes back to that of the inputs. A model on one device has no hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.errors import ArgumentError, Unsupported, nearest
from pellucid.models.model import Model
from pellucid.models.plan import DISK, Plan, device_name, indivisible
from pellucid.nn.linear import Linear
from pellucid.ops.packed import PackedTensor

NEVER = 2**62  # forwards to wait before a matrix is laid out anew: its pages stay the file's


@torch.inference_mode(False)
def place(model: Model, placement: Mapping[str, Any] | Plan) -> Model:
    """Moves each module to its device, and hangs hooks where they differ. The model knows it as `model.placement`.

    Raises:
        ArgumentError: a name that is no module, a module without a device, a device that is not here.
        Unsupported: blocks that must stay together on several devices.
    """
    asked = placement.placement if isinstance(placement, Plan) else placement
    units = list(_units(model))
    where = resolve(model, asked, units)
    devices = {unit: torch.device("cpu" if name == DISK else name) for unit, name in where.items()}
    why = indivisible(model.spec)
    if why is not None and len(set(devices.values())) > 1:
        spread = ", ".join(dict.fromkeys(where.values()))
        raise Unsupported(
            f"a {model.spec.family} model over {spread}: {why}", where="placement", next="name one device"
        )
    done: dict[int, nn.Parameter] = {}
    for unit in units:
        module = model.get_submodule(unit)
        if where[unit] == DISK:
            _stay(unit, module)
        move(module, devices[unit], done)
    model.tie_weights()
    if len(set(devices.values())) > 1:
        home = devices[next(unit for unit in units if unit.split(".")[-1] == "embed")]
        for unit in units:
            _border(model.get_submodule(unit), devices[unit], home if _last(model, unit) else None)
    model.placement = where
    return model


def resolve(model: Model, asked: Mapping[str, Any], units: Iterable[str]) -> dict[str, str]:
    """The device of every module that goes as a whole.

    Raises:
        ArgumentError: see `place`.
    """
    files: dict[str, list[str]] = {}  # canonical module -> what it is called in the file
    for file, path in model.file_paths().items():
        files.setdefault(path, []).append(file)
    known = {name for name, _ in model.named_modules()} | set(model.file_paths())
    for name in asked:
        if name and not any(_under(one, str(name)) for one in known):
            hint = nearest(str(name), known) or "give modules as `model.named_modules()` has them, or as the file has"
            raise ArgumentError(f"the placement names {name!r}, which is no module", where="placement", next=hint)
    found, homeless = {}, []
    for unit in units:
        inside = [[path, *files.get(path, ())] for path in known if path in files and _under(path, unit)]
        inside = inside or [[unit]]
        covers = [name for name in asked if all(any(_under(one, str(name)) for one in names) for names in inside)]
        touches = {device_name(asked[name]) for name in asked if any(_under(o, str(name)) for ns in inside for o in ns)}
        if covers:
            found[unit] = device_name(asked[max(covers, key=lambda name: len(str(name)))])
        elif len(touches) == 1:  # all that is named of it is in one place
            found[unit] = touches.pop()
        elif touches:
            what = f"parts of {unit} on {', '.join(sorted(touches))}"
            raise ArgumentError(what, where="placement", next=f"give {unit} one device")
        else:
            homeless.append(unit)
    if homeless:
        listed = ", ".join(homeless[:5]) + (f" and {len(homeless) - 5} more" if homeless[5:] else "")
        raise ArgumentError(f"no device for {listed}", where="placement", next='name them, or all the rest as ""')
    for tied, stored in model.ties().items():
        pair = [next((unit for unit in found if name.startswith(f"{unit}.")), "") for name in (tied, stored)]
        if all(pair) and found[pair[0]] != found[pair[1]]:
            what = f"{pair[0]} on {found[pair[0]]} and {pair[1]} on {found[pair[1]]} are one matrix"
            raise ArgumentError(what, where="placement", next="give both the same device")
    return found


def _under(path: str, name: str) -> bool:
    """Whether a module is the named one, or a part of it; "" names the whole model."""
    return name in ("", path) or path.startswith(f"{name}.")


def _units(model: Model) -> Iterable[str]:
    """Modules that go as a whole, in the order in which a token meets them."""
    for side, tower in (("encoder.", model.encoder), ("", model)):
        if tower is None:
            continue
        for name, child in tower.named_children():
            if child is tower.blocks:
                yield from (f"{side}blocks.{i}" for i in range(len(tower.blocks)))
            elif child is not model.encoder:
                yield side + name


def _last(model: Model, unit: str) -> bool:
    """Whether what a module gives leaves its stack, or the model."""
    side = "encoder." if unit.startswith("encoder.") else ""
    tower = model.encoder if side else model
    assert tower is not None
    blocks = f"{side}blocks.{len(tower.blocks) - 1}"
    ends = [f"{side}{name}" for name in ("out", "norm") if getattr(tower, name) is not None]
    stages = ("embed", "blocks", "relative_bias", "norm", "out")
    return unit == (ends[0] if ends else blocks) or unit.removeprefix(side).split(".")[0] not in stages


# ------------------------------------------------------------------------------------------------ parameters


def move(module: nn.Module, device: torch.device, done: dict[int, nn.Parameter]) -> None:
    """A module's parameters and buffers, those shared with an earlier one once. Packed matrices are made anew."""
    for part in module.modules():
        for name, old in dict.items(part._parameters):
            if old is None or old.device == device:
                continue
            if id(old) not in done:
                done[id(old)] = _moved(old, device)
            part._parameters[name] = done[id(old)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)


def _moved(old: Tensor, device: torch.device) -> nn.Parameter:
    new = nn.Parameter(old.detach().to(device), requires_grad=old.requires_grad and not isinstance(old, PackedTensor))
    if getattr(old, "precise", False):
        new.precise = True  # type: ignore[attr-defined]  # read by loading
    source = getattr(old, "source", None)
    if source is not None:
        source.release()
    return new


def _stay(unit: str, module: nn.Module) -> None:
    """Leaves what is mapped where it is.

    Raises:
        ArgumentError: it is in memory already, because it computes in another dtype than the file's.
    """
    for name, parameter in module.named_parameters():
        mapped = isinstance(parameter, PackedTensor) or getattr(parameter, "source", None) is not None
        if parameter.dim() > 1 and not mapped:
            what = f"{unit}.{name} cannot stay on the disk: it was converted to {parameter.dtype}"
            raise ArgumentError(what, where="placement", next="load in the file's own dtype, or place it on the cpu")
    for part in module.modules():
        if isinstance(part, Linear):
            part.wait = NEVER


# ------------------------------------------------------------------------------------------------ borders


@dataclass
class Enter:
    """Before a module's forward: its arguments where its parameters are."""

    device: torch.device

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return tuple(moved(x, self.device) for x in args), {k: moved(x, self.device) for k, x in kwargs.items()}


@dataclass
class Leave:
    """After the last module of a stack, and after a head: what they say, where the model's inputs are."""

    device: torch.device

    def __call__(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        return moved(result, self.device)


def moved(x: Any, device: torch.device) -> Any:
    """A tensor or a batch on a device; anything else as it is."""
    if isinstance(x, Tensor):
        return x.to(device)
    if isinstance(x, Batch):
        return x.on(device)
    return type(x)(moved(one, device) for one in x) if type(x) in (tuple, list) else x


def _border(module: nn.Module, device: torch.device, home: torch.device | None) -> None:
    module.register_forward_pre_hook(Enter(device), with_kwargs=True)
    if home is not None and home != device:
        module.register_forward_hook(Leave(home))
