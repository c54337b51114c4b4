"""Linear layers and their execution forms.

Storage is one plain matrix, as in the file. What multiplies is chosen for each layer:

    mapped   F.linear on the stored matrix: training, saving, tracing, float64, accelerators
    read     our own kernel (ops/cpu) on the stored matrix: inference in bfloat16 on a CPU. Nothing is copied. 1.4 to 2
             times as fast as oneDNN's packed product for one row, and on most processors for many (docs/decisions.md)
    packed   oneDNN's own layout, made at the first inference forward on a CPU, after which the file's pages go back
             to the operating system: float32 (2 to 6 times as fast for few rows; those go through our own kernel, which
             reads the same layout at twice oneDNN's rate), bfloat16 where the processor multiplies it in tiles, and
             where it multiplies it in pairs that of layers that read whole texts (`Linear.many`: by our own kernel)
    tiles    a matrix that stays in a format of its own (ops/packed.py): by the format's native kernel, where there is
             one, which is decided once; else by unpacking some rows at a time, and multiplying by them as by any others

In each form a row's result does not depend on its neighbours (docs/decisions.md), and a packed copy never outlives
its matrix: while somebody else can write to the matrix, the stored one is multiplied (nn/watched.py).
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.nn.watched import Handed, countable, held, mapped, stored, watch
from pellucid.ops import cpu
from pellucid.ops.packed import PackedTensor

# oneDNN chooses its layout for a number of rows. For 16 it is one layout that is fastest from 1 to 512 rows.
ROWS_HINT = 16
# From so many rows on, or for multiples of so many, a row's result is the same bits in any company (measured).
PACKED_ROWS = 2
PLAIN_ROWS = 4
# How a large bfloat16 model is packed: so many bytes (about 0.1 s) in each forward of at most so many rows.
PACKED_PER_FORWARD = 2**26
PACKED_AT_ONCE = 2**28  # a model of no more bytes (0.4 s) is not worth the waiting
FEW_ROWS = 64


class Linear(nn.Linear):
    """y = x W^T + b for packed rows [N, I]."""

    _packed: Packed | None = None
    wait: int | None = None  # forwards to let pass before packing, of a few rows each; None to pack at once: `stagger`
    homes = 1  # modules that hold the weight: more than one where it is tied
    many = False  # of a tower that reads whole texts and never goes on from a token: its rows are many

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        watch(self)

    def reset_parameters(self) -> None:
        """Nothing: a model is built empty and filled from a file or by `models.initialise`."""

    def forward(self, input: Tensor) -> Tensor:
        weight_OI, bias_O = stored(self), stored(self, "bias")
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or cpu.recorded():
            return F.linear(input, weight_OI, bias_O)
        if isinstance(weight_OI, PackedTensor):
            return packed_product(input, weight_OI, bias_O)
        if not packable(weight_OI, input, self.many):
            return plain(input, weight_OI, bias_O)
        packed = self._packed
        if packed is None and self.wait is not None:
            few = input.shape[0] <= FEW_ROWS
            self.wait -= few
            if not few or self.wait >= 0:
                return plain(input, weight_OI, bias_O)
        looked_at = packed is None or getattr(weight_OI, "handed", math.inf) > packed.seen
        if looked_at and held(self._parameters, self.homes):
            self._packed = None
            return plain(input, weight_OI, bias_O)
        if packed is None or not packed.fits(weight_OI):
            packed = self._packed = Packed(weight_OI)
        return packed(input, bias_O)

    def __deepcopy__(self, memo: dict[int, Any]) -> Linear:
        self._packed = None
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        import copy as copying

        copy.__dict__.update(copying.deepcopy(self.__dict__, memo))
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_packed"}


def read_whole(tower: nn.Module | None) -> None:
    """Says of the layers of a tower that their rows are many: `Linear.many`."""
    for layer in tower.modules() if tower is not None else ():
        if isinstance(layer, Linear):
            layer.many = True


def stagger(model: nn.Module) -> None:
    """Spreads the packing of a large bfloat16 model over its first forwards.

    Packing 2 GB takes seconds, and the first token should not wait for them; nor a long prompt, for whose many rows the
    packed form is hardly faster. In bfloat16 both forms of oneDNN give the same
    bits (tests/nn/test_linear.py), so nobody can tell when a layer changed; in float32 they round differently, and so
    does our own kernel: there every layer is packed at once.
    """
    if cpu.bfloat16_way():
        return
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    layers = [
        layer for layer in layers if stored(layer).dtype == torch.bfloat16 and type(stored(layer)) is nn.Parameter
    ]
    sizes = [stored(layer).numel() * stored(layer).element_size() for layer in layers]
    if sum(sizes) <= PACKED_AT_ONCE:
        return
    for layer, before in zip(layers, accumulate(sizes, initial=0)):
        layer.wait = before // PACKED_PER_FORWARD


class Packed:
    """A matrix in oneDNN's layout, and what tells whether it still equals the stored one."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.matrix = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), ROWS_HINT)
        self.panels = cpu.panels(self.matrix, *weight_OI.shape)
        self.version = weight_OI._version
        self.address = weight_OI.data_ptr()
        self.note(weight_OI)
        source = mapped(weight_OI)
        if source is not None and weight_OI._version == 0:
            source.release()

    def note(self, weight_OI: Tensor) -> None:
        """From here on, only what is handed out later is suspicious."""
        self.seen = Handed.times
        weight_OI.handed = self.seen  # type: ignore[attr-defined]  # read by `Linear.forward`

    def fits(self, weight_OI: Tensor) -> bool:
        """Whether the stored matrix is still the one that was packed."""
        if weight_OI._version != self.version or weight_OI.data_ptr() != self.address:
            return False
        if getattr(weight_OI, "handed", math.inf) > self.seen:
            source = mapped(weight_OI)
            written = source.dirty() if source is not None else None
            if written is None:  # not a mapped file: compare
                written = not torch.equal(self.matrix.to_dense(), weight_OI)
            if written:
                return False
            self.note(weight_OI)
        return True

    def __call__(self, x: Tensor, bias_O: Tensor | None) -> Tensor:
        flat = x if x.dim() == 2 else x.flatten(0, -2)
        rows = flat.shape[0]
        if self.panels is not None and self.panels.fast(rows) and (bias_O is None or bias_O.dtype == x.dtype):
            y_NO = self.panels(flat, bias_O)
        else:
            y_NO = reordered_product(flat, self.matrix, bias_O)
        return y_NO if x.dim() == 2 else y_NO.unflatten(0, x.shape[:-1])


def reordered_product(x_NI: Tensor, matrix: Tensor, bias_O: Tensor | None) -> Tensor:
    """oneDNN's x W^T + b with a matrix in its layout, the same bits for a row in any company."""
    rows = x_NI.shape[0]
    x_NI = x_NI if rows >= PACKED_ROWS else torch.cat([x_NI] * PACKED_ROWS)
    return torch.ops.mkldnn._linear_pointwise.default(x_NI, matrix, bias_O, "none", [], "")[:rows]


def plain(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W^T + b on the stored matrix, for inference.

    By our own kernel in bfloat16; else by F.linear, where rows are filled up to a multiple of `PLAIN_ROWS`, from where
    they are steady.
    """
    if isinstance(weight_OI, PackedTensor):
        return packed_product(x, weight_OI, bias_O)
    if cpu.multiplies(x, weight_OI, bias_O) and not (torch.is_grad_enabled() or cpu.recorded()):
        return cpu.product(x, weight_OI, bias_O)
    spare = -x.shape[0] % PLAIN_ROWS
    if x.dim() != 2 or not spare or x.device.type != "cpu":
        return F.linear(x, weight_OI, bias_O)
    return F.linear(F.pad(x, (0, 0, 0, spare)), weight_OI, bias_O)[: x.shape[0]]


def packed_product(x: Tensor, weight_OI: PackedTensor, bias_O: Tensor | None) -> Tensor:
    """x W^T + b for a matrix that stays packed, in the memory of one tile; inference only."""
    flat = x if x.dim() == 2 else x.flatten(0, -2)
    way = weight_OI.chosen()
    if way is not None and x.numel() and way.takes(flat, bias_O):
        y_NO = way.product(weight_OI, flat, bias_O)
    else:
        y_NO = torch.cat([
            tile_product(flat, weight_OI.dense(first, last), None if bias_O is None else bias_O[first:last])
            for first, last in weight_OI.tiles()
        ], -1)  # fmt: skip
    return y_NO if x.dim() == 2 else y_NO.unflatten(0, x.shape[:-1])


def tile_product(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W^T + b with numbers that are thrown away afterwards: the same bits as with a matrix that is kept."""
    kept = weight_OI.dtype in packed_dtypes() and weight_OI.is_cpu and type(x_NI) is Tensor and not cpu.recorded()
    if not kept or x_NI.dtype != weight_OI.dtype or not x_NI.numel():
        return plain(x_NI, weight_OI, bias_O)
    return reordered_product(x_NI, torch.ops.mkldnn._reorder_linear_weight(weight_OI, ROWS_HINT), bias_O)


def packable(weight_OI: Tensor, x: Tensor, many: bool = False) -> bool:
    """Whether the packed form computes this layer."""
    return (
        weight_OI.dtype in packed_dtypes(many)
        and x.dtype == weight_OI.dtype
        and weight_OI.is_cpu
        and x.is_cpu
        and type(x) is Tensor
        and x.numel() > 0
        and not weight_OI.is_inference()  # torch counts no changes of such a tensor
    )


@lru_cache(maxsize=2)
def packed_dtypes(many: bool = False) -> tuple[torch.dtype, ...]:
    """Dtypes that are packed on this processor, for `Linear.many`; none where torch was built without oneDNN."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    if not countable():
        return ()
    ways = (0, cpu.IN_PAIRS) if many else (0,)
    halves = torch.ops.mkldnn._is_mkldnn_bf16_supported() and cpu.bfloat16_way() in ways
    return (torch.float32, torch.bfloat16) if halves else (torch.float32,)
