"""MXFP4: 32 neighbours of a row share a power of two, and each has 4 bits of its own. 4.25 bits a number.

    X_blocks   uint8 [E, O, G, 16]   two E2M1 codes a byte, the low nibble first: sign, 2 bits exponent, 1 bit mantissa
    X_scales   uint8 [E, O, G]       E8M0: s stands for 2^(s - 127), and 255 for NaN

for E experts, O outputs, G groups of 32 inputs. `Weights` presents such a pair as X, the tensor that it was made of, in
the layout of 16-bit files, [E, inputs, outputs]; its numbers are made when it is asked for.
Format: OCP Microscaling Formats (MX) v1.0. Files that have it: huggingface.co/openai/gpt-oss-20b.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pellucid.errors import WeightsError
from pellucid.weights.safetensors import AGAIN, Entry

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.weights.source import WeightFile

DTYPE = "MXFP4"  # of the entries of pairs
GROUP = 32
NAN = 255
BLOCKS, SCALES = "_blocks", "_scales"
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def unpack(blocks: Tensor, scales: Tensor) -> Tensor:
    """The numbers, [..., G, 16] and [..., G] -> [..., 32 G], in bfloat16: it holds each of them exactly.

    From 2^128 on (the largest codes of scales 253 and 254) they are infinite, as in float32.
    """
    import torch
    import torch.nn.functional as F

    pairs = torch.tensor([(E2M1[byte & 15], E2M1[byte >> 4]) for byte in range(256)], dtype=torch.bfloat16)
    powers = torch.tensor([*(2.0 ** (s - 127) for s in range(NAN)), math.nan], dtype=torch.bfloat16).unsqueeze(1)
    unpacked = torch.empty(*scales.shape, GROUP, dtype=torch.bfloat16)
    for to, block, scale in zip(unpacked, blocks, scales):  # one by one: their indices take more than the numbers
        torch.mul(F.embedding(block.int(), pairs).flatten(-2), F.embedding(scale.int(), powers), out=to)
    return unpacked.flatten(-2)


class Pair:
    """Blocks and scales as a file of one tensor, with the interface of `SafetensorsFile`. They may be in two shards.

    Raises:
        WeightsError: one half is missing, or the two do not fit each other.
    """

    def __init__(self, name: str, owner: Mapping[str, WeightFile]) -> None:
        halves = name + BLOCKS, name + SCALES
        self.files = {half: owner[half] for half in halves if half in owner}
        self.path = next(iter(self.files.values())).path
        for half in halves:
            if half not in owner:
                raise WeightsError(f"half of {name} in MXFP4: there is no {half}", where=self.path, next=AGAIN)
        if name in owner:
            what = f"{name} is there twice, as it is and in MXFP4"
            raise WeightsError(what, where=self.path, next="remove one of the two from the files")
        blocks, scales = (file.entries[half] for half, file in self.files.items())
        whole = len(scales.shape) == 3 and blocks.shape == (*scales.shape, GROUP // 2)
        if (blocks.dtype, scales.dtype) != ("U8", "U8") or not whole:
            found = " and ".join(f"{half.name} is {half.dtype} {list(half.shape)}" for half in (blocks, scales))
            raise WeightsError(f"{found}: no MXFP4, U8 [E, O, G, 16] and [E, O, G]", where=self.path, next=AGAIN)
        experts, rows, groups = scales.shape
        shape = (experts, groups * GROUP, rows)
        self.entries = {name: Entry(name, DTYPE, shape, 0, blocks.nbytes + scales.nbytes)}

    def tensor(self, name: str) -> Tensor:
        """The numbers, made anew each time; the pages of the two halves go back to the operating system.

        Raises:
            WeightsError: a scale is NaN.
        """
        blocks, scales = (file.tensor(half) for half, file in self.files.items())
        if (broken := int((scales == NAN).sum())) > 0:
            what = f"{name}{SCALES} has {broken} scales of {NAN}, which is NaN"
            raise WeightsError(what, where=self.files[name + SCALES].path, next=AGAIN)
        unpacked = unpack(blocks, scales)
        for half, file in self.files.items():
            file.release(half)
        return unpacked.transpose(1, 2)

    def release(self, name: str) -> int:
        """Nothing: the numbers lie in memory of their own."""
        return 0

    def dirty(self, name: str) -> None:
        """Unknown: no file can be compared with them page by page."""


def joined(owner: Mapping[str, WeightFile]) -> dict[str, WeightFile | Pair]:
    """Tensor name -> its file, with every pair as one tensor, in the place of its first half."""
    found: dict[str, WeightFile | Pair] = {}
    for name, file in owner.items():
        whole = name.removesuffix(BLOCKS) if name.endswith(BLOCKS) else name.removesuffix(SCALES)
        if whole == name or file.entries[name].dtype != "U8":
            found[name] = file
        elif not isinstance(found.get(whole), Pair):
            found[whole] = Pair(whole, owner)
    return found
