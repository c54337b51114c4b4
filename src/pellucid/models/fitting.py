"""GPTQ and AWQ over a whole model: block after block, each fitted to what it sees of a text behind the packed ones.

AWQ folds the scales of a group of layers into what is before them: a norm whose value they alone read, or a layer whose
outputs they read channel by channel. Which those are is looked up in a block, and then tried: scaled by powers of two,
which only move the point of a number, the block must say the same. Where it does not, or where there is nothing before
to fold into, a matrix is rounded with its ranges cut, and not scaled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.models.calibration import Passed, Seen, gather, linears, passing
from pellucid.models.forms import Form
from pellucid.models.model import Model
from pellucid.models.quantizing import upright
from pellucid.nn.attention import Attention
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.moe import Moe
from pellucid.nn.parts import Layer, Rms
from pellucid.ops.packed import PackedTensor
from pellucid.quant import _awq_scaling as scaling
from pellucid.quant import _gptq_rounding as rounding
from pellucid.weights.table import Place

SAME, NEARLY = 1e-3, 0.02  # of what a module says: how far apart it may be behind a fold, in 32 and in 16 bits
EXPONENTS = 5  # different powers of two that a fold is tried with


@dataclass
class Notes:
    """What a run did, for its report."""

    unseen: int = 0  # matrices that no token of the text went through
    folded: Counter[str] = field(default_factory=Counter)  # what scales were folded into -> how often
    unfolded: int = 0  # matrices that were not scaled
    tried: dict[str, bool] = field(default_factory=dict)  # kind of a fold -> whether it is right

    def lines(self, form: Form) -> list[str]:
        found = []
        if self.unseen:
            found.append(f"{self.unseen} matrices saw no token of the text, and are rounded to the nearest numbers")
        if form.fitted == "awq":
            parts = ", ".join(f"{count} {what}" for what, count in sorted(self.folded.items())) or "nothing"
            found.append(f"scales folded into {parts}; {self.unfolded} matrices have none")
        return found


def fit(
    model: Model, texts: Sequence[Sequence[int]], chosen: Mapping[str, Place], form: Form, notes: Notes
) -> Iterator[tuple[str, Tensor]]:
    """Each file tensor that changes, packed or not, as soon as its block is done. The model is afterwards as it was."""
    shared = _shared(model)
    done: set[str] = set()
    for passed in passing(model, texts):
        before = _parameters(passed)
        own = {
            name: place
            for name, place in chosen.items()
            if name not in done and all(slot.startswith(passed.prefix) and slot in before for slot in place.slots)
        }
        done |= set(own)
        seen = gather(passed, hessians=True)
        if form.fitted == "awq" and own:
            slots = {slot for place in own.values() for slot in place.slots}
            _fold_all(passed, seen, slots, form, shared, notes)
        packed = {name: _packed(model, place, seen, form, notes) for name, place in own.items()}
        changed = {slot for slot, old in before.items() if _held(model, slot) is not old}
        for place in model.places:
            if place.name not in own and any(slot in changed for slot in place.slots):
                yield place.name, place.join([_held(model, slot).detach() for slot in place.slots])
        for name, place in own.items():
            sizes = [before[slot].shape[0] for slot in place.slots]
            for slot, piece in zip(place.slots, upright(place).split(packed[name], sizes)):
                _put(model, slot, piece)
            yield name, packed[name]
        passed.finish()
        for slot, old in before.items():
            _put(model, slot, old)
        for _, layer in linears(passed.module):
            layer._packed = None  # oneDNN's copy
        for old in before.values():
            if (source := getattr(old, "source", None)) is not None:
                source.release()


def _packed(model: Model, place: Place, seen: Mapping[str, Seen], form: Form, notes: Notes) -> PackedTensor:
    """One file tensor, packed."""
    parts = [_held(model, slot).detach() for slot in place.slots]
    weight_OI = upright(place).join(parts)
    found = list({id(each): each for slot in place.slots if (each := seen.get(_layer(slot))) is not None}.values())
    how, finish = form.rounding, form.finish
    assert finish is not None
    if not found or not any(each.tokens for each in found):
        notes.unseen += 1
        return finish(rounding.nearest(weight_OI, how), weight_OI.dtype)
    hessian_II = torch.stack([each.hessian() for each in found]).sum(0) if found[1:] else found[0].hessian()
    if form.fitted == "gptq":
        return finish(rounding.fitted(weight_OI, hessian_II, how), weight_OI.dtype)
    return finish(scaling.clipped(weight_OI, scaling.blocks(hessian_II, how.group)), weight_OI.dtype)


# ------------------------------------------------------------------------------------------------ folding


@dataclass
class Fold:
    """Scales that can go from the columns of some layers to what is before them.

    Args:
        what: what is before, for a report.
        layers: names of all layers that read the value.
        before: the module whose outputs are divided: a norm, or a linear layer.
        within: the module that has both sides in it.
        row_I: which output of `before` each input is; None for its own.
        alike: folds of which one has been tried stand for each other.
    """

    what: str
    layers: list[str]
    before: nn.Module
    within: str
    row_I: Tensor | None = None
    alike: str = ""


def _fold_all(
    passed: Passed, seen: dict[str, Seen], slots: set[str], form: Form, shared: set[int], notes: Notes
) -> None:
    """Searches the scales of every group of layers of a block, and folds them."""
    scaled: set[str] = set()
    for fold in [*_behind_norms(passed), *_behind_layers(passed)]:
        modules = [passed.model.get_submodule(path) for path in fold.layers]
        wanted = [path for path in fold.layers if f"{path}.weight" in slots and path in seen]
        if not wanted or any(id(module) in shared for module in [*modules, fold.before]):
            continue
        if not _right(passed, fold, notes.tried):
            continue
        scale_I = _scale(passed.model, fold, wanted, seen, form)
        _apply(passed.model, fold, scale_I)
        for each in {id(seen[path]): seen[path] for path in fold.layers if path in seen}.values():
            _rescale(each, scale_I)
        notes.folded[fold.what] += 1
        scaled |= {f"{path}.weight" for path in wanted}
    notes.unfolded += len(slots - scaled)


def _scale(model: Model, fold: Fold, wanted: Sequence[str], seen: Mapping[str, Seen], form: Form) -> Tensor:
    """The scale of each input; of inputs that are the same output before, one."""
    sums = list({id(seen[path]): seen[path] for path in wanted}.values())
    mean_I = sum((each.size_I for each in sums[1:]), sums[0].size_I) / max(sum(each.tokens for each in sums), 1)
    if fold.row_I is not None:
        count = int(fold.row_I.max()) + 1
        total = mean_I.new_zeros(count).index_add_(0, fold.row_I, mean_I)
        mean_I = (total / fold.row_I.bincount(minlength=count).clamp(min=1))[fold.row_I]
    pairs = []
    for path in wanted:
        blocks_GCC = scaling.blocks(seen[path].hessian(), form.rounding.group)
        pairs.append((_held(model, f"{path}.weight").detach(), blocks_GCC))
    return scaling.searched(pairs, mean_I, bits=form.rounding.bits)


def _apply(model: Model, fold: Fold, scale_I: Tensor) -> None:
    """The layers read x / s, and their columns are times s."""
    for path in fold.layers:
        old = _held(model, f"{path}.weight")
        _put(model, f"{path}.weight", (old.detach().float() * scale_I).to(old.dtype))
    scale_R = scale_I
    if fold.row_I is not None:
        scale_R = scale_I.new_ones(int(fold.row_I.max()) + 1)
        scale_R[fold.row_I] = scale_I
    offset = getattr(getattr(fold.before, "spec", None), "offset", 0.0) if not isinstance(fold.before, Linear) else 0.0
    for name, parameter in dict(fold.before._parameters).items():
        if parameter is None:
            continue
        numbers, by = parameter.detach().float(), offset if name == "weight" else 0.0
        divided = (numbers + by) / (scale_R[:, None] if numbers.dim() == 2 else scale_R) - by
        fold.before._parameters[name] = nn.Parameter(divided.to(parameter.dtype), requires_grad=False)
    if isinstance(fold.before, Linear):
        fold.before._packed = None


def _rescale(seen: Seen, scale_I: Tensor) -> None:
    """Sums of what is read from now on."""
    if seen.hessian_II is not None:
        seen.hessian_II /= scale_I[:, None]
        seen.hessian_II /= scale_I
    seen.size_I, seen.square_I = seen.size_I / scale_I, seen.square_I / scale_I.square()


def _right(passed: Passed, fold: Fold, tried: dict[str, bool]) -> bool:
    """Whether what has both sides in it says the same when they are scaled by powers of two: for most tokens."""
    if fold.alike not in tried:
        before = _parameters(passed)
        inputs = _held(passed.model, f"{fold.layers[0]}.weight").shape[1]
        exponent_R = torch.arange(inputs if fold.row_I is None else int(fold.row_I.max()) + 1) % EXPONENTS
        scale_R = 2.0 ** (exponent_R - EXPONENTS // 2)
        own = passed.model.get_submodule(fold.within)
        try:
            wanted_ND, size_N = _said(passed, own)
            _apply(passed.model, fold, scale_R if fold.row_I is None else scale_R[fold.row_I])
            apart_N = (_said(passed, own)[0] - wanted_ND).norm(dim=-1) / size_N.clamp(min=1e-12)
            tried[fold.alike] = float(apart_N.median()) <= (SAME if passed.model.dtype == torch.float32 else NEARLY)
        except RuntimeError:  # sizes that do not go together
            tried[fold.alike] = False
        for slot, old in before.items():
            _put(passed.model, slot, old)
    return tried[fold.alike]


def _said(passed: Passed, module: nn.Module) -> tuple[Tensor, Tensor]:
    """What a module makes of the first text, [N, D], and the size of what it adds to each token, [N]."""
    found: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        added = out.float() - given[0].float() if given[0].shape == out.shape else out.float()
        found.append((out.float(), added.norm(dim=-1)))

    hook = module.register_forward_hook(keep)
    try:
        passed.said(1)
    finally:
        hook.remove()
    return found[0]


def _behind_norms(passed: Passed) -> list[Fold]:
    """A norm with a weight, and the layers that read its value; of a mixture, all layers that read what it reads."""
    said: dict[str, Tensor] = {}
    readers: dict[str, list[str]] = {}

    def says(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                said[path] = out

        return hook

    def reads(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any) -> None:
            source = next((norm for norm, value in said.items() if given and given[0] is value), None)
            if source is not None:
                found = _of_mixture(path, module) if isinstance(module, Moe) else [path]
                readers.setdefault(source, []).extend(each for each in found if each not in readers.get(source, ()))

        return hook

    norms = {}
    with ExitStack() as stack:
        for path, module in passed.module.named_modules(prefix=passed.prefix.rstrip(".")):
            if isinstance(module, (Rms, Layer)) and module.weight is not None and module.weight.dim() == 1:
                norms[path] = module
                stack.callback(module.register_forward_hook(says(path)).remove)
            elif isinstance(module, (Linear, Moe)):
                stack.callback(module.register_forward_pre_hook(reads(path)).remove)
        passed.said(1)
    kind = getattr(passed.module, "spec", None)
    return [
        Fold(
            "norms", found, norms[path], path.rpartition(".")[0], alike=f"{path.removeprefix(passed.prefix)} of {kind}"
        )
        for path, found in readers.items()
    ]


def _of_mixture(path: str, moe: Moe) -> list[str]:
    """The layers of a mixture that read what it reads."""
    mlps: dict[str, Any] = {"shared": moe.shared}
    if moe.enter is None:
        mlps |= {f"experts.{i}": expert for i, expert in enumerate(moe.experts)}
    inner = [f"{name}.{part}" for name, mlp in mlps.items() if mlp is not None for part in ("gate", "up")]
    every = [*inner, "router", "enter", "shared_gate"]
    return [f"{path}.{each}" for each in every if _at(moe, each) is not None]


def _behind_layers(passed: Passed) -> Iterator[Fold]:
    """Values and the output of attention, and the two sides of a gated MLP."""
    for path, module in passed.module.named_modules(prefix=passed.prefix.rstrip(".")):
        kind = f"{path.rpartition('.')[2]} of {getattr(module, 'spec', None)}"
        if isinstance(module, Attention) and getattr(module, "v", None) is not None and not module.lends:
            heads, kv = module.spec.heads, module.spec.kv_heads
            row_I = torch.arange(module.v.out_features).view(kv, 1, -1).expand(kv, heads // kv, -1).flatten()
            yield Fold("values", [f"{path}.o"], module.v, path, row_I, alike=kind)
        elif isinstance(module, Mlp):
            yield Fold("upward matrices", [f"{path}.down"], module.up, path, alike=kind)


# ------------------------------------------------------------------------------------------------ parameters


def _parameters(passed: Passed) -> dict[str, Tensor]:
    """The parameters of a block by their names in the model, as objects."""
    return {
        f"{path}.{name}".lstrip("."): parameter
        for path, module in passed.module.named_modules(prefix=passed.prefix.rstrip("."))
        for name, parameter in dict.items(module._parameters)
        if parameter is not None
    }


def _held(model: Model, slot: str) -> Tensor:
    path, _, name = slot.rpartition(".")
    parameter = dict.__getitem__(model.get_submodule(path)._parameters, name)
    assert parameter is not None, slot
    return parameter


def _put(model: Model, slot: str, tensor: Tensor) -> None:
    path, _, name = slot.rpartition(".")
    module = model.get_submodule(path)
    parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
    module._parameters[name] = parameter
    if isinstance(module, Linear):
        module._packed = None


def _shared(model: Model) -> set[int]:
    """Modules that belong to several blocks."""
    towers = [tower for tower in (model.encoder, model) if tower is not None]
    blocks: Iterable[nn.Module] = [block for tower in towers for block in tower.blocks]
    count = Counter(id(module) for block in blocks for module in block.modules())
    return {each for each, times in count.items() if times > 1}


def _layer(slot: str) -> str:
    return slot.removesuffix(".weight")


def _at(module: nn.Module, path: str) -> Any:
    for step in path.split("."):
        module = getattr(module, step, None) if not step.isdigit() else module[int(step)]  # type: ignore[index,assignment]
        if module is None:
            return None
    return module
