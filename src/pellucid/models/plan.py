"""plan(): what a model will take and how fast it can be here, from its config and the headers of its files alone.

    weights      as the loaded model holds them: packed matrices as they lie, the rest in the dtype that it computes in
    cache        whole pages of keys and values of each row, and the states of recurrences
    activations  what one step holds at once; an estimate
    decode       rows / max(bytes read / bandwidth, operations / rate); bytes read = weights used + rows x cache
    prompt       tokens / max(operations / rate, weights / bandwidth); operations = 2 x numbers x tokens + attention

Bandwidth and rate are this machine's (`machine.py`). Both speeds are bounds: nothing that reads each weight once is
faster; how near a model comes, `pellucid bench` says. No torch, and of a model on the hub no numbers are fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from pellucid import families, gguf, hub, quant
from pellucid import spec as s
from pellucid.config import Config
from pellucid.errors import ArgumentError, WeightsError
from pellucid.families import Family
from pellucid.models import sizes
from pellucid.models.machine import Machine, accelerators, free_memory, machine
from pellucid.models.sides import table_for
from pellucid.models.sizes import Kept, Part
from pellucid.weights.source import Weights, open_weights

CONTEXT = 4096  # tokens, where nothing is said and the model was made for more
PROMPT = 512  # tokens of the prompt whose speed is told
DISK = "disk"


@dataclass(frozen=True)
class Share:
    """What a device holds of a model, in bytes.

    Args:
        blocks: how many of the stack's blocks.
        room: bytes that it may hold; None for the disk.
    """

    device: str
    blocks: int
    weights: int
    cache: int
    room: int | None


@dataclass(frozen=True)
class Plan:
    """What a model takes, and where it goes. Sizes are in bytes, speeds in tokens a second.

    Args:
        quantization: how matrices are packed while loading; None for as the file has them.
        weights: by the dtype or the packed kind of what is held.
        cache_of_token: bytes that one more token of a row adds, before any window is full.
        cache_of_row: bytes of a row's recurrences, however long it is.
        cache: of all rows at the whole context.
        longest: tokens a row that fit; None where every length does.
        made_for: positions that the model has or was trained for; None for no limit.
        prompt, decode: expected, None where the machine's rate for a device is not known, or the model does not decode.
        read: bytes that a step of decoding reads: weights, and what the cache has of all rows.
        read_of_cache: the latter alone.
        placement: canonical module -> device; the loader executes it (`from_pretrained(…, plan=…)`).
    """

    model: str
    family: str
    task: s.Task | None
    dtype: str
    quantization: str | None
    batch: int
    context: int
    parameters: int
    weights: Mapping[str, int]
    cache_of_token: int
    cache_of_row: int
    cache: int
    activations: int
    fits: bool
    longest: int | None
    made_for: int | None
    prompt: float | None
    decode: float | None
    read: int
    read_of_cache: int
    machine: Machine | None
    placement: Mapping[str, str]
    devices: tuple[Share, ...]
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.weights.values()) + self.cache + self.activations


def plan(
    model: str | os.PathLike[str] | None = None,
    *,
    context: int | None = None,
    batch: int = 1,
    dtype: object = None,
    quantization: str | None = None,
    devices: Mapping[Any, Any] | Sequence[Any] | str | None = None,
    memory: int | str | None = None,
    task: s.Task | None = None,
    measure: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    gguf_file: str | None = None,
    offline: bool | None = None,
) -> Plan:
    """What a folder, a GGUF file or a hub id will take. Nothing is loaded or downloaded, and torch is not imported.

    Args:
        context: tokens of each row; None for the model's own, at most 4096.
        batch: rows at once.
        dtype: to compute in; None or "auto" as loading has it.
        quantization: how matrices are packed while loading, or would be by `pellucid quantize`.
        devices: where it may go, in this order: names, or name -> bytes ("cuda:0=24GB,cpu"; transformers' `max_memory`
            too). None for the accelerators here, then the processor.
        memory: bytes of the processor's memory to use ("8GB"); None for what is free.
        task: None for the one that the file was saved for.
        measure: True measures this machine anew, False takes no speeds at all; None measures it once.

    Raises:
        ArgumentError: a value out of range.
        NotAModel, ConfigError, WeightsError: as `from_pretrained` has them.
    """
    if type(batch) is not int or batch < 1:
        raise ArgumentError(f"batch={batch!r}", where="batch", next="give how many rows, 1 or more")
    if context is not None and (type(context) is not int or context < 1):
        raise ArgumentError(f"context={context!r}", where="context", next="give how many tokens, 1 or more")
    room = budgets(devices, memory)
    folder = hub.outline(
        model, revision=revision, token=token, offline=offline, gguf_file=gguf_file, complete=_complete
    )  # fmt: skip
    known = _understand(folder, task, _name(dtype), quantization, cpu=next(iter(room)) in ("cpu", DISK))
    here = None if measure is False else machine(again=bool(measure))
    return known.plan(str(model or folder.name), room, batch, context, here)


def _complete(path: Path, known: int) -> bool:
    """Whether what a GGUF file says before its numbers is among the first bytes of it."""
    try:
        return gguf.read(path).data_offset <= known
    except WeightsError:
        return False


def _name(dtype: object) -> str | None:
    return None if dtype is None else str(dtype)


# ------------------------------------------------------------------------------------------------ what is known


def _understand(folder: Path, task: s.Task | None, dtype: str | None, pack: str | None, *, cpu: bool) -> _Known:
    config, family = families.read_config(folder)
    whole, _ = family.spec(config)
    task = family.task(task if task is not None else _task(config, family, whole))
    spec = whole.of(task)
    weights = quant.opened(open_weights(folder), config.given().get("quantization_config"))
    table = family.gguf_table(config, task) if sizes.is_gguf(weights) else family.table(config, task)
    if pack is not None and pack not in sizes.LAYERS and dtype in (None, "auto"):
        dtype = "float32"  # what a file has beside its blocks
    kind = sizes.computing_dtype(weights, dtype, cpu=cpu)
    half = pack is None and sizes.keeps_half(weights, dtype, cpu=cpu)
    found = sizes.parts(weights, table_for(task, table, whole), spec, task, kind, pack, half=half)
    if pack is not None and pack not in sizes.LAYERS:
        found = sizes.in_gguf(found, pack, family, config, spec)
    return _Known(spec, task, kind, pack, weights, tuple(found), whole.context, cpu)


def _task(config: Config, family: Family, spec: s.Spec) -> s.Task | None:
    """What the file was saved for, or else the first thing that the family does."""
    named = (config.get("architectures") or [""])[0]
    saved = (task for task, name in family.classes.items() if name == named and task is not None)
    return next(saved, next(iter(spec.heads), None))


@dataclass(frozen=True)
class _Known:
    """A model, from its headers."""

    spec: s.Spec
    task: s.Task | None
    dtype: str
    pack: str | None
    weights: Weights
    parts: tuple[Part, ...]
    limit: int | None
    cpu: bool  # whether it computes on one

    @property
    def ties(self) -> dict[str, str]:
        return sizes.tied(self.spec, self.head)

    @property
    def head(self) -> s.Head | None:
        return self.spec.heads.get(self.task) if self.task else None

    @property
    def decodes(self) -> bool:
        return self.task in ("causal-lm", "seq2seq-lm") and self.spec.remembers

    def plan(
        self, name: str, room: Mapping[str, int | None], batch: int, context: int | None, here: Machine | None
    ) -> Plan:
        context = context or min(self.limit or CONTEXT, CONTEXT)
        held = self.cache()
        acting = self.activations(batch, context)
        cache = batch * self.row(held, context)
        weights: dict[str, int] = {}
        for part in self.parts:
            weights[part.kind] = weights.get(part.kind, 0) + part.nbytes
        total = sum(weights.values())
        places, shares = self.places(room, batch, context, acting)
        free = sum(n for n in room.values() if n is not None)
        cached = batch * self.reads(held, context)
        read = round(self.reading("nbytes", batch)) + cached
        found = Plan(
            name, self.spec.family, self.task, _torch_name(self.dtype), self.pack, batch, context,
            sum(part.numbers for part in self.parts), weights, sum(held.token.values()) + held.memory, held.state,
            cache, acting, total + cache + acting <= free, self.longest(held, total, free, batch), self.limit,
            None, None, read, cached, here, places, shares,
        )  # fmt: skip
        speeds = here is not None and set(places.values()) == {"cpu"}
        if here is not None and speeds:
            found = replace(found, prompt=self.prompt(here, context), decode=self.decode(here, read, batch))
        return replace(found, notes=self.notes(found, held))

    # ------------------------------------------------------------------------------------ bytes

    def cache(self) -> Kept:
        """What the stack keeps of a row; nothing where a model reads a text once."""
        if not self.decodes:
            return Kept()
        return reduce(Kept.__add__, self.kept(), Kept())

    def kept(self) -> list[Kept]:
        """What each block keeps of a row."""
        rounding = {
            part.slot for part in self.parts if part.kind in sizes.ROUNDING and self.dtype == "F32" and self.cpu
        }
        keys = ("attn.k.weight", "attn.attention.k.weight")
        halved = [any(f"blocks.{i}.{name}" in rounding for name in keys) for i in range(len(self.blocks))]
        return [
            sizes.kept(part, self.spec.stack.width, self.dtype, "F16" if half else None)
            for part, half in zip(self.blocks, halved)
        ]

    @property
    def blocks(self) -> tuple[s.Block | s.Custom, ...]:
        body = self.spec.stack.body
        return self.spec.stack.blocks if body is None else (*self.spec.stack.blocks, body)

    def row(self, held: Kept, context: int) -> int:
        return held.row(context, context if self.spec.encoder else 0)

    def reads(self, held: Kept, context: int) -> int:
        return held.read(context, context if self.spec.encoder else 0) if self.decodes else 0

    def activations(self, batch: int, context: int) -> int:
        """Of a step: a piece of the prompts; of a model that reads a text once, all of it."""
        tokens = min(batch * context, sizes.STEP) if self.decodes else batch * context
        head = s.language(self.head)
        logits = batch if self.decodes else batch * context
        vocab = 0 if head is None else head.vocab or self.spec.vocab
        return sizes.activations(self.spec.stack, tokens, logits, vocab, self.dtype)

    def longest(self, held: Kept, weights: int, free: int, batch: int) -> int | None:
        """Tokens a row, up to what the model was made for; None where there is no end."""

        def fits(context: int) -> bool:
            return weights + batch * self.row(held, context) + self.activations(batch, context) <= free

        most = self.limit or 2**24
        if fits(most):
            return self.limit
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    # ------------------------------------------------------------------------------------ speed

    def reading(self, what: Literal["nbytes", "numbers"], tokens: int, parts: Sequence[Part] | None = None) -> float:
        """Bytes or numbers of the parameters that a step of so many tokens of different rows reads."""
        ties, experts = self.ties, sizes.chosen(self.spec.stack, tokens)
        parts = self.parts if parts is None else parts
        return sum(getattr(part, what) * sizes.used(part, self.spec, ties, experts) for part in parts)

    def decode(self, here: Machine, read: int, batch: int) -> float | None:
        if not self.decodes:
            return None
        work = 2 * batch * self.reading("numbers", 1, [part for part in self.parts if part.matrix])
        return batch / max(read / here.read, work / here.multiply)

    def prompt(self, here: Machine, context: int) -> float | None:
        """The head is left out: of a prompt, only the last token's logits are made."""
        tokens = min(PROMPT, context)
        inner = [part for part in self.parts if part.unit.split(".")[-2:-1] == ["blocks"]]
        encoder = self.spec.encoder if self.task == "seq2seq-lm" else None
        stack = encoder or self.spec.stack
        mine = [part for part in inner if part.slot.startswith("encoder.") == (encoder is not None)]
        if not mine:
            return None
        matrices = [part for part in mine if part.matrix]
        numbers = sum(part.numbers for part in matrices) if encoder else self.reading("numbers", 1, matrices)
        work = 2 * numbers * tokens + sizes.attention_work(stack, tokens)
        return tokens / max(work / here.multiply, sum(part.nbytes for part in mine) / here.read)

    # ------------------------------------------------------------------------------------ places

    def places(
        self, room: Mapping[str, int | None], batch: int, context: int, acting: int
    ) -> tuple[dict[str, str], tuple[Share, ...]]:
        """Each module's device: one device after the other is filled, so that a token crosses few borders."""
        modules = self.modules()
        cache = [batch * self.row(kept, context) for kept in self.kept()]
        kept = {f"blocks.{i}": size for i, size in enumerate(cache)} if self.decodes else {}
        whole = self.why_whole() is not None
        groups = [list(modules)] if whole else self.groups(list(modules))
        left = {device: (n or 0) - acting for device, n in room.items()}
        order, at, reserved = [*room, *([] if DISK in room else [DISK])], 0, False
        places: dict[str, str] = {}
        for number, group in enumerate(groups):
            while True:
                device = order[at]
                if device == "cpu" and not reserved:  # rows of blocks whose weights stay on the disk lie here, too
                    left[device] -= sum(kept.get(unit, 0) for later in groups[number:] for unit in later)
                    reserved = True
                size = sum(modules[unit] + (0 if device == "cpu" else kept.get(unit, 0)) for unit in group)
                if device == DISK or size <= left[device]:
                    break
                at += 1
            if device != DISK:
                left[device] -= size
            places.update(dict.fromkeys(group, device))
        shares = []
        for device in dict.fromkeys([*room, *places.values()]):
            own = [unit for unit, where in places.items() if where == device]
            rows = {"cpu": ("cpu", DISK), DISK: ()}.get(device, (device,))
            blocks = sum(unit.split(".")[-2:-1] == ["blocks"] for unit in own)
            cached = sum(kept.get(unit, 0) for unit, where in places.items() if where in rows)
            shares.append(Share(device, blocks, sum(modules[unit] for unit in own), cached, room.get(device)))
        return places, tuple(shares)

    def modules(self) -> dict[str, int]:
        """Bytes of each module that goes to a device as a whole, in the order in which a token meets them."""
        found: dict[str, int] = {}
        for part in self.parts:
            found[part.unit] = found.get(part.unit, 0) + part.nbytes
        stages = ["embed", "relative_bias", "blocks", "body", "norm", "out"]

        def place(unit: str) -> tuple[bool, int, int]:
            name = unit.removeprefix("encoder.")
            first, _, number = name.partition(".")
            at = stages.index(first) if first in stages else len(stages)
            return not unit.startswith("encoder."), at, int(number) if number.isdigit() else 0

        return {unit: found[unit] for unit in sorted(found, key=place)}

    def groups(self, units: list[str]) -> list[list[str]]:
        """Those that stay together: with the embedding, what is tied to it or added in every layer."""
        ties = self.ties
        near = {name.split(".")[0] for name in ties} if ties else set()
        first = [unit for unit in units if unit in ("embed", "relative_bias") or unit in near]
        if self.spec.encoder is not None:
            first = [unit for unit in units if not unit.startswith("blocks.")]
        return [first, *([unit] for unit in units if unit not in first)]

    def why_whole(self) -> str | None:
        """Why the blocks stay on one device; None where they may be on several."""
        return indivisible(self.spec)

    # ------------------------------------------------------------------------------------ notes

    def notes(self, found: Plan, held: Kept) -> tuple[str, ...]:
        said = []
        wide = any(self.weights.entry(name).dtype == "F16" for name in self.weights.names) and self.dtype == "F32"
        if wide and not any(part.kind == "F16" for part in self.parts):
            said.append("float16 computes in float32 on a CPU; dtype='float16' keeps it in memory, half the size")
        said += [f"what {name} keeps of a row is not counted: the cache takes more" for name in held.unknown]
        if found.made_for is not None and found.context > found.made_for:
            said.append(f"the model was made for {found.made_for} tokens, and {found.context} are asked for")
        if not found.fits:
            room = sum(share.room or 0 for share in found.devices)
            said.append(f"does not fit: {found.total / 1e9:.3g} GB, and there is room for {room / 1e9:.3g}")
        if on_disk := sum(share.weights for share in found.devices if share.device == DISK):
            said.append(f"{on_disk / 1e9:.3g} GB stay in the file and are read from the disk in every step")
        if (whole := self.why_whole()) is not None and len(found.devices) > 1:
            said.append(f"all on one device: {whole}")
        if found.machine is not None and found.prompt is None and found.decode is None:
            said.append("no expected speed: only the processor's memory and products are measured")
        return tuple(said)


def indivisible(spec: s.Spec) -> str | None:
    """Why a model's blocks cannot lie on several devices: they hand each other more than the residual; else None."""
    for stack in (spec.stack, spec.encoder):
        if stack is None:
            continue
        if stack.body is not None:
            return "its blocks are no chain"
        if isinstance(stack.relative_bias, s.Custom) or any(map(_own, stack.blocks)):
            return "blocks of its own kind may share what they compute"
        if any(attn.kv_from is not None for attn in sizes.each(stack.blocks, s.Attention)):
            return "some layers read the keys and values of others"
        if any(one.source is not None for one in sizes.each(stack.blocks, s.Indexer)):
            return "some layers use the choice of keys that others made"
    return None


def _own(block: s.Block | s.Custom) -> bool:
    """Whether the family's own code stands for a block, a mixer or a feed-forward part: these see the batch."""
    parts = (block,) if isinstance(block, s.Custom) else (block.attn, block.cross, block.mlp)
    return any(isinstance(part, s.Custom) for part in parts)


def _torch_name(kind: str) -> str:
    return next(name for name, short in sizes.FLOATS.items() if short == kind)


# ------------------------------------------------------------------------------------------------ arguments


def budgets(
    devices: Mapping[Any, Any] | Sequence[Any] | str | None, memory: int | str | None = None
) -> dict[str, int | None]:
    """Device -> bytes that may be used, None for the disk; by default the accelerators here, then the processor.

    Raises:
        ArgumentError: no device, one that has no name or memory, or a size that is none.
    """
    limit = None if memory is None else nbytes(memory, "memory")
    if devices is None:
        return {**accelerators(), "cpu": _free() if limit is None else limit}
    if isinstance(devices, str):
        devices = [one for one in devices.split(",") if one]
    if not isinstance(devices, Mapping):
        devices = {name: size or None for name, _, size in (str(one).strip().partition("=") for one in devices)}
    found: dict[str, int | None] = {}
    for key, size in devices.items():
        name = device_name(key)
        if size is not None:
            found[name] = nbytes(size, "devices")
        elif name == DISK:
            found[name] = None
        elif name == "cpu":
            found[name] = _free() if limit is None else limit
        else:
            here = accelerators()
            if name not in here:
                there = ", ".join(here) or "no accelerator"
                what = f"how much memory {name} has is not known: the driver here knows {there}"
                raise ArgumentError(what, where="devices", next=f"say it: {name}=24GB")
            found[name] = here[name]
    if not found:
        raise ArgumentError("no device", where="devices", next="name some: cuda:0=24GB,cpu=16GB,disk")
    return found


def device_name(key: object) -> str:
    """What torch calls it: "cuda:0" for 0, "0", "cuda" or "cuda:0"; "cpu" and "disk" are as they are.

    Raises:
        ArgumentError: no name of a device.
    """
    text = str(key).strip().lower()
    text = f"cuda:{text}" if text.isdigit() else {"cuda": "cuda:0", "cpu:0": "cpu"}.get(text, text)
    if not re.fullmatch(r"cpu(:\d+)?|disk|(cuda|xpu|mps|hpu|npu|meta)(:\d+)?", text):
        raise ArgumentError(f"{key!r} is no device", where="devices", next="name them cuda:0, cuda:1, cpu, disk")
    return text


UNITS = {"": 1, "b": 1}
UNITS |= {f"{letter}{end}": base**i for i, letter in enumerate("kmgt", 1) for end, base in (("b", 1000), ("ib", 1024))}


def nbytes(size: object, where: str) -> int:
    """Bytes of 8000000000, "8GB" or "8 GiB".

    Raises:
        ArgumentError: it is no size.
    """
    if type(size) is int and size > 0:
        return size
    read = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)\s*", str(size).lower())
    if read and (unit := UNITS.get(read[2])) and float(read[1]) > 0:
        return int(float(read[1]) * unit)
    raise ArgumentError(f"{size!r} is no size", where=where, next="give bytes, or a number with a unit: 8GB, 24GiB")


def _free() -> int:
    found = free_memory()
    if found is None:
        raise ArgumentError("this system does not say how much memory is free", where="memory", next="say it: 8GB")
    return found
