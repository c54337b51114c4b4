"""How many bytes a model takes, from its spec and the headers of its files: weights, cache, activations. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

from pellucid import gguf
from pellucid import spec as s
from pellucid.config import Config
from pellucid.errors import ArgumentError, Unsupported, WeightsError, nearest
from pellucid.families import Family
from pellucid.families._gguf_write import architecture
from pellucid.quant._mixture import BASE, mixture
from pellucid.quant._mixture import Model as Shape
from pellucid.weights.gguf import GgufFile
from pellucid.weights.source import Weights
from pellucid.weights.table import OTHER_HEAD, Place, Stacked, Table, Transposed

T = TypeVar("T")

FLOATS = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # as torch and as files call them
WIDTH = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}  # bytes of a number
# Blocks whose products round activations to 8 bits: those with a kernel (ops/cpu/blocks.py, which needs torch). Keys
# and values are float16 then (nn/attention.py).
ROUNDING = frozenset(
    ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
)
PAGE, SPARE = 32, 64  # tokens: of a page, and kept behind a window (cache/group.py, cache/row.py: those need torch)
STEP = 2048  # tokens of a prompt that one step computes, at most

# Bits of a number, its share of scales included, where the matrices of blocks are packed in safetensors.
LAYERS = {
    "nf4": 4 + 32 / 64, "fp4": 4 + 32 / 64, "int8": 8.0, "fp8": 8 + 32 / 128**2, "hqq-4": 4 + 32 / 64, "w8a16": 8.0,
    "w4a16": 4 + 16 / 128, "awq-4": 4 + 20 / 128, **{f"gptq-{bits}": bits + (16 + bits) / 128 for bits in (2, 3, 4, 8)},
}  # fmt: skip
ROWS = {"int8": 4, "w8a16": 2}  # bytes of a row's scale
BLOCKS = {kind.name: kind for kind in gguf.TENSOR_TYPES.values()}
PACKS = (*LAYERS, *(target for target, (kind, _) in BASE.items() if BLOCKS[kind].block > 1))

# ------------------------------------------------------------------------------------------------ weights


@dataclass(frozen=True)
class Part:
    """One parameter, or several that a file keeps in one tensor, as the loaded model holds them."""

    slot: str
    kind: str  # a float dtype, or how it is packed
    shape: tuple[int, ...]  # of matrices, [out, in]
    nbytes: int
    matrix: bool  # whether a product reads it

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def unit(self) -> str:
        """The module that goes to a device as a whole: a block, or what stands before and after all blocks."""
        steps = self.slot.split(".")
        side, steps = (steps[:1], steps[1:]) if steps[0] == "encoder" else ([], steps)
        return ".".join(side + steps[: 2 if steps[0] == "blocks" else 1])


def computing_dtype(weights: Weights, asked: str | None, *, cpu: bool) -> str:
    """In what a model computes, "F32" or so: what was asked for, or what most of its file is in.

    Raises:
        ArgumentError: asked for something that is no dtype of a model.
    """
    if asked in (None, "auto"):
        size: Counter[str] = Counter()
        for name in weights.names:
            size[weights.entry(name).dtype] += weights.entry(name).nbytes
        floats = {kind: n for kind, n in size.items() if kind in WIDTH}
        found = max(floats, key=lambda kind: floats[kind]) if floats else "F32"
    else:
        found = FLOATS.get(str(asked).removeprefix("torch."), "")
        if not found:
            hint = nearest(str(asked), FLOATS) or f"use 'auto', {', '.join(map(repr, FLOATS))}"
            raise ArgumentError(f"dtype={asked!r} is none that a model computes in", where="dtype", next=hint)
    return "F32" if found == "F16" and cpu else found  # as `models.loading.choose_dtype` has it


def keeps_half(weights: Weights, asked: object, *, cpu: bool) -> bool:
    """Whether matrices in float16 stay so in memory, where a kernel reads them: asked for, or of a GGUF file."""
    if asked in (None, "auto"):
        return cpu and is_gguf(weights)
    return cpu and str(asked).removeprefix("torch.") == "float16"


def parts(
    weights: Weights,
    table: Table,
    spec: s.Spec,
    task: s.Task | None,
    dtype: str,
    pack: str | None = None,
    *,
    half: bool = False,
) -> list[Part]:
    """Every parameter that a model of a task loads from these files.

    Args:
        spec, table: of what the task needs (`Spec.of`, `sides.table_for`).
        pack: how matrices are packed while they are loaded or written before; one of PACKS.
        half: matrices in float16 stay so.

    Raises:
        ArgumentError: a `pack` that is not known.
        Unsupported: it is packed already.
        WeightsError: a tensor that has no place.
    """
    if pack is not None and pack not in PACKS:
        hint = nearest(str(pack), PACKS) or f"one of {', '.join(PACKS)}"
        raise ArgumentError(f"quantization={pack!r}", where="quantization", next=hint)
    head = spec.heads.get(task) if task else None
    ties, heads = tied(spec, head), held_heads(spec, task, head)
    found: dict[tuple[str, ...], Part] = {}
    for name in weights.names:
        place = table.find(name)
        if place is None:
            what = f"{name} has no place in a {spec.family} model"
            raise WeightsError(what, where=weights.file_of(name), next="`pellucid check` says more")
        if place.recomputed or place.unused or not place.slots or place.unused == OTHER_HEAD:
            continue
        if place.slots[0].split(".")[0] in HEADS - heads:
            continue
        key = tuple(ties.get(piece, piece) for piece in place.pieces)
        if key in found:
            continue  # an equal copy of a tied matrix
        if pack is not None and weights.packed(name):
            kind = weights.entry(name).dtype
            what = f"the weights are packed already ({kind}), and {pack} is asked for"
            raise Unsupported(what, where=weights.files[0], next="leave it out, or plan the unpacked checkpoint")
        bare = any(slot in key for slot in ties.values())
        found[key] = _part(weights, name, place, spec, dtype, pack, tied=bare, half=half)
    return list(found.values())


def _part(
    weights: Weights,
    name: str,
    place: Place,
    spec: s.Spec,
    dtype: str,
    pack: str | None,
    *,
    tied: bool,
    half: bool,
) -> Part:
    entry, slot = weights.entry(name), place.slots[0]
    layout = place.layout.of if isinstance(place.layout, Stacked) else place.layout
    turned = isinstance(layout, Transposed) and not weights.packed(name)
    shape = (*entry.shape[:-2], *entry.shape[:-3:-1]) if turned else tuple(entry.shape)
    matrix = (len(shape) > 1 and slot.endswith(".weight")) or isinstance(place.layout, Stacked)
    if weights.packed(name) and len(shape) > 1:
        return Part(slot, entry.dtype, shape, entry.nbytes, matrix)
    linear = matrix and ".blocks." in f".{slot}" and len(shape) == 2 and not _precise(slot, spec)
    if pack in LAYERS and linear and not tied:
        codes = math.ceil(math.prod(shape) * LAYERS[pack] / 8)
        return Part(slot, pack, shape, codes + shape[0] * ROWS.get(pack, 0), True)
    if half and matrix and entry.dtype == "F16" and not _precise(slot, spec):
        return Part(slot, "F16", shape, entry.nbytes, True)
    kept = entry.dtype if _precise(slot, spec) and WIDTH.get(entry.dtype, 0) > WIDTH[dtype] else dtype
    return Part(slot, kept, shape, math.prod(shape) * WIDTH[kept], matrix)


def in_gguf(parts: Sequence[Part], target: str, family: Family, config: Config, spec: s.Spec) -> list[Part]:
    """The same parameters in a GGUF file that `pellucid quantize` would write, read back.

    Raises:
        Unsupported: the family has no table of GGUF names.
    """
    table = Table(family.gguf.entries(config.copy()))
    names = {part.slot: next((p.name for p in table.default_places(part.slot, 1)), part.slot) for part in parts}
    kinds = mixture({names[part.slot]: part.shape for part in parts}, target, shape_of(spec))

    def packed(part: Part) -> Part:
        kind = kinds[names[part.slot]]
        if not part.matrix or BLOCKS[kind].block == 1:
            return part
        return replace(part, kind=kind, nbytes=part.numbers // BLOCKS[kind].block * BLOCKS[kind].nbytes)

    return [packed(part) for part in parts]


def shape_of(spec: s.Spec) -> Shape:
    """What the rules for mixtures of kinds ask of a model."""
    attn, moe = (next(each(spec.stack.blocks, kind), None) for kind in (s.Attention, s.Moe))
    grouped = attn.heads // attn.kv_heads if isinstance(attn, s.Attention) else 1
    experts = moe.experts if isinstance(moe, s.Moe) else 0
    return Shape(architecture(spec), len(spec.stack.blocks), grouped, experts)


def _precise(slot: str, spec: s.Spec) -> bool:
    """Whether a parameter keeps the file's float32: the choice of a router (nn/moe.py), the gate of an indexer."""
    if slot.endswith(".router.select_bias"):
        return True
    if ".router." in slot:
        return any(moe.router.float32 for moe in each((spec.stack, spec.encoder), s.Moe))
    return ".indexer." in slot and slot.endswith("weight.weight")


def tied(spec: s.Spec, head: s.Head | None) -> dict[str, str]:
    """As `Holding.ties`: a parameter that is another one -> the name under which it is stored."""
    shared = spec.encoder is not None and spec.shared_embedding
    found = {"embed.tokens.weight": "encoder.embed.tokens.weight"} if shared else {}
    language = s.language(head)
    if language is not None and language.tied:
        found["lm_head.out.weight"] = found.get("embed.tokens.weight", "embed.tokens.weight")
    return found


HEADS = frozenset(("lm_head", "classifier", "span", "next_sentence", "pooler", "head"))  # models/loading.py


def held_heads(spec: s.Spec, task: s.Task | None, head: s.Head | None) -> frozenset[str]:
    """The names of the heads that a model of this task has."""
    match head:
        case s.PretrainingHead():
            kept = (held_heads(spec, task, part) for part in (head.lm, head.pair, head.token) if part is not None)
            own = frozenset().union(*kept)
        case s.LmHead():
            own = frozenset(("lm_head",))
        case s.SequenceHead() | s.TokenHead() | s.ChoiceHead():
            own = frozenset(("classifier",))
        case s.SpanHead():
            own = frozenset(("span",))
        case s.PairHead():
            own = frozenset(("next_sentence",))
        case s.Custom():
            own = frozenset(("head",))
        case None:
            own = frozenset()
    pooling = s.Pooling(act=spec.pooler) if isinstance(spec.pooler, str) else spec.pooler
    bare = head is None or task == "text-encoding"
    pooled = pooling is not None and s.pools(None if bare else head) and (not bare or pooling.returned != "never")
    return own | {"pooler"} if pooled else own


# ------------------------------------------------------------------------------------------------ cache


@dataclass(frozen=True)
class Kept:
    """Bytes that layers keep of a row.

    Args:
        token: of each token, by the window of the layers that keep it (None: every token).
        memory: of each token of an encoder's output.
        state: of recurrences, however long the row is.
        unknown: parts that keep something nobody here can count.
    """

    token: Mapping[int | None, int] = field(default_factory=dict)
    memory: int = 0
    state: int = 0
    unknown: tuple[str, ...] = ()

    def __add__(self, other: Kept) -> Kept:
        token = dict(self.token)
        for window, size in other.token.items():
            token[window] = token.get(window, 0) + size
        unknown = tuple(dict.fromkeys(self.unknown + other.unknown))
        return Kept(token, self.memory + other.memory, self.state + other.state, unknown)

    def row(self, tokens: int, read: int = 0) -> int:
        """Bytes of a row of so many tokens, in whole pages, behind an encoder that has `read` so many."""
        own = sum(pages(tokens, window) * PAGE * size for window, size in self.token.items())
        return own + -(-read // PAGE) * PAGE * self.memory + self.state

    def read(self, tokens: int, read: int = 0) -> int:
        """Bytes that a step reads of a row of so many tokens."""
        own = sum(min(tokens, window or tokens) * size for window, size in self.token.items())
        return own + read * self.memory + 2 * self.state  # a state is read and written


def pages(tokens: int, window: int | None) -> int:
    """Pages that a row holds after so many tokens: those wholly behind a window and a spare were given back."""
    behind = 0 if window is None else max(0, (tokens - 1 - window - SPARE) // PAGE)
    return -(-tokens // PAGE) - behind


def kept(part: Any, width: int, dtype: str, cache: str | None = None) -> Kept:
    """What a block, a mixer, or a family's own part keeps, in a model of this dtype.

    Args:
        cache: the dtype of attention's keys and values, if it is another one.
    """
    item = WIDTH[dtype]
    wide = max(4, item)  # states are summed in float32 at least
    match part:
        case s.Block():
            cross = part.cross
            found = kept(part.attn, width, dtype, cache)
            if isinstance(cross, s.Attention):
                found += Kept(memory=item * cross.kv_heads * (cross.head_dim + (cross.value_dim or cross.head_dim)))
            elif cross is not None:
                found += Kept(unknown=(_named(cross),))
            return found + (kept(part.mlp, width, dtype) if isinstance(part.mlp, s.Custom) else Kept())
        case s.Attention():
            if part.kv_from is not None:
                return Kept()
            size = WIDTH[cache or dtype] * part.kv_heads * (part.head_dim + (part.value_dim or part.head_dim))
            return Kept({part.window or part.chunk: size})
        case s.LatentAttention():
            own = part.indexer is not None and part.indexer.source is None
            index = part.indexer.head_dim if own and part.indexer else 0
            return Kept({part.window: item * (part.kv_rank + part.rope_dim + index)})
        case s.ShortConv():
            return Kept(state=item * (part.kernel - 1) * width)
        case s.DeltaNet():
            keys, values = part.key_heads * part.key_dim, part.value_heads * part.value_dim
            return Kept(state=item * (part.kernel - 1) * (2 * keys + values) + wide * values * part.key_dim)
        case s.KimiDelta():
            inner = part.heads * part.head_dim
            return Kept(state=item * (part.kernel - 1) * 3 * inner + wide * inner * part.head_dim)
        case s.Mamba():
            return Kept(state=item * (part.kernel - 1) * part.inner + wide * part.inner * part.state)
        case s.Mamba2():
            inner = part.heads * part.head_dim
            tail = item * (part.kernel - 1) * (inner + 2 * part.groups * part.state)
            return Kept(state=tail + wide * inner * part.state)
        case s.Wkv():
            return Kept(state=item * width + wide * 3 * part.inner)
        case s.Together():
            return kept(part.attention, width, dtype, cache) + kept(part.mamba, width, dtype)
        case s.Custom():
            inside = keeping(part)
            return sum((kept(own, width, dtype) for own in inside), Kept(unknown=() if inside else (_named(part),)))
        case _:
            return Kept()


MIXERS = (
    s.Block, s.Attention, s.LatentAttention, s.ShortConv, s.DeltaNet, s.KimiDelta, s.Mamba, s.Mamba2, s.Wkv, s.Together,
)  # fmt: skip


def keeping(part: s.Custom) -> tuple[Any, ...]:
    """The known parts that keep as much as a part of a family's own: what its family says in KEEPS, or its options."""
    path, _, name = part.path.partition(":")
    keeps = getattr(import_module(path.rpartition(".")[0]), "KEEPS", {})
    if name in keeps:
        return tuple(keeps[name](part))
    return tuple(each(tuple(value for _, value in part.options), s.Custom, *MIXERS))


def _named(part: s.Custom) -> str:
    return part.path.partition(":")[2]


# ------------------------------------------------------------------------------------------------ activations, work


def activations(stack: s.Stack, tokens: int, rows: int, vocab: int, dtype: str) -> int:
    """Bytes of what a step holds at once, about: the residual and its norm, the widest part of a block, the logits.

    Twice, because an allocator keeps what was freed: measured, 0.7 to 2 times the tensors themselves.
    """
    widest = 0
    for attn in each(stack.blocks, s.Attention):
        values = attn.value_dim or attn.head_dim
        widest = max(widest, attn.heads * (attn.head_dim + values) + attn.kv_heads * (attn.head_dim + values))
    for mlp in each(stack.blocks, s.Mlp):
        widest = max(widest, mlp.hidden * (3 if mlp.gated else 2))
    return 2 * WIDTH[dtype] * tokens * (3 * stack.width + widest) + rows * vocab * (WIDTH[dtype] + 4)


def chosen(stack: s.Stack, tokens: int) -> list[float]:
    """For each block, the share of its experts that so many tokens are expected to need, if routers choose evenly."""
    shares = []
    for block in stack.blocks:
        moe = next(each(block, s.Moe), None)
        shares.append(1.0 if moe is None else 1 - (1 - moe.router.top_k / moe.experts) ** tokens)
    return shares


def used(part: Part, spec: s.Spec, ties: Mapping[str, str], experts: Sequence[float]) -> float:
    """How often a step of decoding reads a parameter, on average.

    Of an embedding a step reads a row, and of experts those that are `chosen`. An encoder, and what its output is
    multiplied by, have done their work before the first step.
    """
    steps = part.slot.split(".")
    if steps[0] in ("encoder", "pooler") and part.slot not in ties.values():
        return 0.0
    if steps[0] == "embed" or steps[:2] == ["encoder", "embed"]:
        return float(part.slot in ties.values() and "lm_head.out.weight" in ties)
    if steps[0] != "blocks":
        return 1.0
    if steps[2:4] in (["cross", "k"], ["cross", "v"]):
        return 0.0
    block = int(steps[1])
    times = spec.stack.depth.count(block) if spec.stack.depth else 1
    return times * (experts[block] if "experts" in steps else 1.0)


def attention_work(stack: s.Stack, tokens: int) -> float:
    """Floating point operations of all scores and mixtures of a prompt."""
    total = 0.0
    for block in stack.blocks:
        for attn in each(block, s.Attention):
            seen = min(tokens, attn.window or attn.chunk or tokens)
            pairs = tokens * seen - seen * (seen - 1) / 2 if attn.causal else tokens * seen
            total += 2 * pairs * attn.heads * (attn.head_dim + (attn.value_dim or attn.head_dim))
    return total


def each(part: Any, *kinds: type[T]) -> Iterator[T]:
    """Every part of these kinds within a spec, outermost first; nothing within one that was found."""
    if isinstance(part, kinds):
        yield part
    elif isinstance(part, (tuple, list)):
        for one in part:
            yield from each(one, *kinds)
    elif isinstance(part, Mapping):
        yield from each(tuple(part.values()), *kinds)
    elif is_dataclass(part) and not isinstance(part, type):
        for one in fields(part):
            yield from each(getattr(part, one.name), *kinds)


def is_gguf(weights: Weights) -> bool:
    """Whether they come from a file of llama.cpp."""
    return isinstance(weights.only_file, GgufFile)
