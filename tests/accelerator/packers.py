"""Every packed format, from the numbers of a matrix: what a file of that format would bring."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.gguf import TENSOR_TYPES
from pellucid.ops.packed import PackedTensor
from pellucid.quant import _encode
from pellucid.quant._bitsandbytes import eight_bit, four_bit
from pellucid.quant._blocks import UNPACK, GgufBlocks
from pellucid.quant._columns import awq, gptq
from pellucid.quant._gptq_rounding import Rounding, fitted, nearest
from pellucid.quant._hqq import hqq
from pellucid.quant._mxfp4 import Mxfp4
from pellucid.quant._scaled import fp8_blocks, in_words

SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "num_hidden_layers": 2,
}  # fmt: skip
BLOCKS = {kind.name: kind for kind in TENSOR_TYPES.values() if kind.name in UNPACK}

Pack = Callable[[Tensor], PackedTensor]


def blocks_of(kind: str) -> Pack:
    return lambda x: GgufBlocks({"blocks": _encode.encode(x.float(), kind)}, kind, x.shape, x.dtype)


def ordered(x: Tensor) -> PackedTensor:
    """GPTQ whose groups are no neighbours."""
    chance = torch.Generator().manual_seed(0)
    given = torch.randn(2 * x.shape[1], x.shape[1], generator=chance)
    return gptq(fitted(x.float(), given.t() @ given, Rounding(4, 64, neighbours=False)), 4, x.dtype)


def mxfp4(x: Tensor) -> PackedTensor:
    chance = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (x.shape[0], x.shape[1] // 32, 16), generator=chance, dtype=torch.uint8)
    scales = torch.randint(121, 125, blocks.shape[:2], generator=chance, dtype=torch.uint8)
    return Mxfp4({"blocks": blocks, "scales": scales}, None, x.shape, x.dtype)


PACKERS: dict[str, Pack] = {
    **{kind.lower(): blocks_of(kind) for kind in _encode.ENCODE},
    "nf4": lambda x: four_bit(x, "nf4"),
    "nf4, double": lambda x: four_bit(x, "nf4", double=True),
    "fp4": lambda x: four_bit(x, "fp4"),
    "LLM.int8": eight_bit,
    "gptq 4": lambda x: gptq(nearest(x, Rounding(4, 64, symmetric=False)), 4, x.dtype),
    "gptq 3": lambda x: gptq(nearest(x, Rounding(3, 64)), 3, x.dtype),
    "gptq 8": lambda x: gptq(nearest(x, Rounding(8, 64)), 8, x.dtype),
    "gptq 4, in an order": ordered,
    "awq": lambda x: awq(nearest(x, Rounding(4, 64, symmetric=False)), x.dtype),
    "fp8": fp8_blocks,
    "int4 in words": lambda x: in_words(x, 4, 64),
    "int8 in words": lambda x: in_words(x, 8, -1),
    "hqq": hqq,
    "mxfp4 of experts": mxfp4,
}


def packer(name: str, *, tables: bool = False) -> Callable[[str, Tensor], Tensor]:
    """What `load` asks of each parameter: matrices of layers are packed, and tables too where that is asked for."""

    def pack(slot: str, numbers: Tensor) -> Tensor:
        matrix = numbers.dim() == 2 and slot.endswith("weight") and numbers.shape[1] % 256 == 0
        table = slot.startswith(("embed", "lm_head"))
        return PACKERS[name](numbers) if matrix and (tables or not table) else numbers

    return pack
