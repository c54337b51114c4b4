"""Products with matrices as they lie packed: the bits of the product with the unpacked numbers, where it has some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import tiny
from native import needs_kernels as native_kernels
from native import on_threads
from pellucid.models.targets import TARGETS, Options
from pellucid.nn.linear import packed_product
from pellucid.ops import cpu
from pellucid.ops.cpu.packed import ALL, FLOAT8, FLOAT16, HIGH_FIRST, LOW_FIRST, SIGNED, Lying, best, library, nibbles
from pellucid.ops.packed import PackedTensor
from pellucid.quant import _words
from pellucid.quant._bitsandbytes import FourBit, four_bit
from pellucid.quant._columns import Awq, Gptq
from pellucid.quant._half import Float16
from pellucid.quant._hqq import Hqq
from pellucid.quant._mxfp4 import Mxfp4
from pellucid.quant._scaled import EVERY, Grid, Scaled, Words

needs_kernels = native_kernels(library() is not None)
ROWS = (1, 2, 3, 4, 5, 8, 9, 14, 47, 49)  # of x: tiles of each size, and several of them
FLAGS = Path("/proc/cpuinfo").read_text() if library() is not None else ""
LEVELS = [way for way, flag in ((1, "avx2"), (2, "avx512bw"), (3, "avx512_bf16")) if flag in FLAGS]
PAIRS = [*((torch.bfloat16, way) for way in LEVELS), *((torch.float32, way) for way in LEVELS[:2])]
SHAPES = [(1, 64), (5, 78), (5, 96), (37, 160), (130, 1088), (66, 2112)]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with on_threads(request.param) as count:
        yield count


def chance(*seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(sum(n * 1009**i for i, n in enumerate(seed)))


def codes(rows: int, inputs: int, bits: int = 8) -> Tensor:
    return torch.randint(0, 1 << bits, (rows, inputs), generator=chance(rows, inputs), dtype=torch.uint8)


def rows_of(count: int, inputs: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, inputs, generator=chance(count, inputs, 7)).to(dtype)


def alone_and_together(lying: Lying, x_NI: Tensor, bias_O: Tensor | None, way: int) -> Tensor:
    """The product; a row's bits do not depend on how many there are."""
    many_NO = lying.product(x_NI, bias_O, way)
    for rows in ROWS:
        assert torch.equal(lying.product(x_NI[:rows], bias_O, way), many_NO[:rows]), rows
    assert torch.equal(lying.product(x_NI[-3:], bias_O, way), many_NO[-3:])
    return many_NO


def exactly(x_NI: Tensor, numbers_OI: Tensor, found_NO: Tensor) -> None:
    """Within the rounding of sums in float32, and of results in their dtype."""
    wanted_NO = x_NI.double() @ numbers_OI.double().t()
    size_NO = x_NI.double().abs() @ numbers_OI.double().abs().t()
    rounding_NO = wanted_NO.abs() * torch.finfo(found_NO.dtype).eps / 2 + 2e-6 * size_NO
    assert ((found_NO.double() - wanted_NO).abs() <= rounding_NO).all()


def as_they_lie(numbers: Tensor, lie: int, way: int) -> Tensor:
    """Columns in the order in which numbers of 4 bits are multiplied: in pairs on x86 by nibbles of 8 words."""
    if way != 3:
        return numbers
    filled = torch.nn.functional.pad(numbers, (0, -numbers.shape[1] % 32)).unflatten(1, (-1, 8, 4))
    nibbles = [1, 0, 3, 2] if lie == HIGH_FIRST else [0, 1, 2, 3]
    return filled[..., nibbles].transpose(2, 3).flatten(1)


# ------------------------------------------------------------------------------------------- the kernel itself


@needs_kernels
@pytest.mark.parametrize("way", LEVELS, ids=cpu.WAYS.get)
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("lie", [HIGH_FIRST, LOW_FIRST], ids=["high first", "low first"])
@pytest.mark.parametrize(("O", "I"), SHAPES)
def test_four_bits_in_bfloat16_are_those_of_the_unpacked_matrix(
    O: int,  # noqa: E741
    I: int,  # noqa: E741
    lie: int,
    bias: bool,
    way: int,
    threads: int,
) -> None:
    x_NI, pairs, group = rows_of(53, I, torch.bfloat16), codes(O, I // 2), I if I % 32 else 32
    values, scales = torch.randn(16, generator=chance(1)), torch.rand(O, I // group, generator=chance(2))
    zeros = torch.randn(O, I // group, generator=chance(3)) if lie == LOW_FIRST else None
    places = torch.stack([pairs >> 4, pairs & 15] if lie == HIGH_FIRST else [pairs & 15, pairs >> 4], 2).flatten(1)
    numbers = values[places.long()].unflatten(1, (-1, group))
    numbers = ((numbers if zeros is None else numbers - zeros[..., None]) * scales[..., None]).flatten(1).bfloat16()
    bias_O = torch.randn(O, generator=chance(4)).bfloat16() if bias else None
    lying = Lying(pairs, lie, I, group, values=values, scales=scales, zeros=zeros)
    found = alone_and_together(lying, x_NI, bias_O, way)
    assert torch.equal(found, cpu.product(as_they_lie(x_NI, lie, way), as_they_lie(numbers, lie, way), bias_O, way))


@needs_kernels
@pytest.mark.parametrize(("dtype", "way"), PAIRS, ids=str)
@pytest.mark.parametrize("lie", [SIGNED, FLOAT8], ids=["int8", "float8"])
@pytest.mark.parametrize(
    ("O", "I", "group", "height"), [(5, 77, ALL, 1), (37, 130, 32, 8), (130, 1025, 128, 128), (66, 2112, ALL, 66)]
)
def test_bytes_are_multiplied_as_they_are(
    O: int,  # noqa: E741
    I: int,  # noqa: E741
    group: int,
    height: int,
    lie: int,
    dtype: torch.dtype,
    way: int,
    threads: int,
) -> None:
    """Their scales come to sums: nothing is rounded but results."""
    q = codes(O, I)
    q[(q & 127 == 127) & (lie == FLOAT8)] = 3  # no NaN
    scales = torch.rand(-(-O // height), -(-I // group), generator=chance(2))
    lying = Lying(q, lie, I, group, height, scales=scales)
    x_NI = rows_of(53, I, dtype)
    found = alone_and_together(lying, x_NI, None, way)
    spread = scales.repeat_interleave(height, 0)[:O].repeat_interleave(min(group, I), 1)[:, :I].double()
    exactly(x_NI, q.view(torch.int8 if lie == SIGNED else torch.float8_e4m3fn).double() * spread, found)


@needs_kernels
@pytest.mark.parametrize("way", LEVELS[:2], ids=cpu.WAYS.get)
@pytest.mark.parametrize(("O", "I"), [(5, 77), (130, 1025), (66, 2112)])
def test_float16_is_multiplied_in_float32(O: int, I: int, way: int, threads: int) -> None:  # noqa: E741
    numbers, x_NI = torch.randn(O, I, generator=chance(5)).half(), rows_of(53, I, torch.float32)
    numbers[0, :3] = torch.tensor([6e-8, -65504.0, -0.0])
    exactly(x_NI, numbers, alone_and_together(Lying(numbers, FLOAT16, I), x_NI, None, way))


@needs_kernels
@pytest.mark.parametrize("way", LEVELS[:2], ids=cpu.WAYS.get)
def test_four_bits_in_float32_are_not_rounded(way: int, threads: int) -> None:
    weight = four_bit(torch.randn(130, 1088, generator=chance(6)), "nf4")
    lying = Lying(
        weight._bytes.view(130, -1), HIGH_FIRST, 1088, 64, values=weight.parts["quant_map"],
        scales=weight.parts["absmax"],
    )  # fmt: skip
    x_NI = rows_of(53, 1088, torch.float32)
    exactly(x_NI, weight.dense(), alone_and_together(lying, x_NI, None, way))


@needs_kernels
@pytest.mark.parametrize("way", LEVELS, ids=cpu.WAYS.get)
def test_every_float8_number(way: int) -> None:
    """All 256 codes, each in a product of its own."""
    q = torch.arange(256, dtype=torch.uint8).repeat(64, 1)
    lying = Lying(q.t().contiguous(), FLOAT8, 64, scales=torch.ones(256, 1))
    found = lying.product(torch.eye(64)[:9].bfloat16(), None, way)
    wanted = q[:9].view(torch.float8_e4m3fn).bfloat16()
    assert torch.equal(found.nan_to_num(nan=7), wanted.nan_to_num(nan=7))


@needs_kernels
@pytest.mark.parametrize("way", LEVELS, ids=cpu.WAYS.get)
@pytest.mark.parametrize("bits", [0x7FFFFFFF, -1, 0x7F800000], ids=["NaN", "-NaN", "infinite"])
def test_a_scale_that_is_no_number(bits: int, way: int) -> None:
    """Rounding adds to the bits of a NaN; it stays one, also for numbers that have carried into the sign."""
    scales = torch.tensor([[bits]], dtype=torch.int32).view(torch.float32)
    for lie, width in ((HIGH_FIRST, 32), (SIGNED, 64)):
        lying = Lying(codes(1, width), lie, 64, 64, values=torch.arange(1.0, 17.0), scales=scales)
        assert not lying.product(torch.ones(9, 64).bfloat16(), None, way).isfinite().any()


@needs_kernels
def test_rows_at_a_distance_from_each_other() -> None:
    """A slice of a wider matrix, at an odd address, by a slice of x."""
    q, scales = codes(20, 999), torch.rand(20, 1, generator=chance(1))
    part, x_NI = q[:, 13:213], rows_of(9, 400, torch.bfloat16)[:, 1::2]
    lying, whole = (Lying(each, SIGNED, 200, scales=scales) for each in (part, part.contiguous()))
    assert torch.equal(lying.product(x_NI, None), whole.product(x_NI.contiguous(), None))


# ------------------------------------------------------------------------------------------------ the formats


def nf4(rows: int, inputs: int, double: bool = False) -> FourBit:
    return four_bit(torch.randn(rows, inputs, generator=chance(rows)), "nf4", double=double)


def gptq(rows: int, inputs: int, bits: int = 4, act_order: bool = False, group: int = 32) -> Gptq:
    index = torch.arange(inputs) // group
    if act_order:
        index = index[torch.randperm(inputs, generator=chance(8))]
    zeros = torch.full((inputs // group, rows), 127) if bits == 8 else codes(inputs // group, rows, bits)
    parts = {
        "qweight": _words.pack(codes(rows, inputs, bits), bits).t().contiguous(), "qzeros": _words.pack(zeros, bits),
        "scales": torch.rand(inputs // group, rows, generator=chance(9)).half(), "g_idx": index.int(),
    }  # fmt: skip
    return Gptq(parts, (bits, 1), (rows, inputs))


def awq(rows: int, inputs: int) -> Awq:
    parts = {
        "qweight": _words.pack(codes(inputs, rows, 4), 4, _words.AWQ),
        "qzeros": _words.pack(codes(inputs // 32, rows, 4), 4, _words.AWQ),
        "scales": torch.rand(inputs // 32, rows, generator=chance(9)).half(),
    }
    return Awq(parts, None, (rows, inputs))


def hqq(rows: int, inputs: int, bits: int = 4) -> Hqq:
    each, count = {4: 2, 2: 4}[bits], rows * inputs // 64
    fractions = torch.rand(2, count, 1, generator=chance(9))
    parts = {"W_q": codes(count // each, 64), "scale": fractions[0].half(), "zero": fractions[1].half() * 9}
    return Hqq(parts, (bits, each), (rows, inputs))


def words(rows: int, inputs: int, zeros: bool = False, height: int = 1) -> Words:
    scales = torch.rand(-(-rows // height), inputs // 32, generator=chance(9)).bfloat16()
    parts = {"weight_packed": _words.pack(codes(rows, inputs, 4), 4), "weight_scale": scales}
    parts["weight_shape"] = torch.tensor([rows, inputs])
    if zeros:
        stored = codes(rows, inputs // 32, 4)
        parts["weight_zero_point"] = _words.pack(stored.t(), 4).t()
    return Words(parts, Grid("int4 in words", height, 32, bits=4), (rows, inputs))


def mxfp4(rows: int, inputs: int) -> Mxfp4:
    parts = {"blocks": codes(rows, inputs // 2).view(rows, -1, 16), "scales": codes(rows, inputs // 32) // 8 + 110}
    return Mxfp4(parts, None, (rows, inputs))


def float8(rows: int, inputs: int, kind: torch.dtype = torch.float8_e4m3fn, height: int = 128) -> Scaled:
    q = codes(rows, inputs)
    if kind == torch.float8_e4m3fn:
        q[q & 127 == 127] = 3
    scales = torch.rand(max(-(-rows // height), 1), -(-inputs // 128), generator=chance(9))
    return Scaled({"weight": q.view(kind), "weight_scale": scales}, Grid("float8", height, 128), (rows, inputs))


SAME: dict[str, Callable[[int, int], PackedTensor]] = {
    "NF4": nf4,
    "NF4, double": lambda rows, inputs: nf4(rows, inputs, double=True),
    "NF4, some rows of a double one": lambda rows, inputs: nf4(2 * rows, inputs, double=True)[1 : rows + 1],
    "GPTQ": gptq,
    "GPTQ, 3 bits": lambda rows, inputs: gptq(rows, inputs, 3),
    "GPTQ, a scale for each row": lambda rows, inputs: gptq(rows, inputs, group=inputs),
    "AWQ": awq,
    "HQQ": hqq,
    "HQQ, 2 bits": lambda rows, inputs: hqq(rows, inputs, 2),
    "compressed-tensors": words,
    "compressed-tensors, zeros": lambda rows, inputs: words(rows, inputs, zeros=True),
    "compressed-tensors, blocks": lambda rows, inputs: words(rows, inputs, height=16),
    "MXFP4": mxfp4,
}
SCALED: dict[str, Callable[[int, int], PackedTensor]] = {
    "float8, blocks": float8,
    "float8, rows": lambda rows, inputs: float8(rows, inputs, height=1),
    "float8, one scale": lambda rows, inputs: Scaled(
        {"weight": float8(rows, inputs).parts["weight"], "weight_scale": torch.tensor(0.3)},
        Grid("float8", EVERY, inputs),
        (rows, inputs),
    ),
    "int8": lambda rows, inputs: float8(rows, inputs, torch.int8, height=1),
    "GPTQ, 8 bits": lambda rows, inputs: gptq(rows, inputs, 8),
}


@needs_kernels
@pytest.mark.parametrize("name", SAME)
def test_a_format_of_four_bits(name: str) -> None:
    """The bits of the unpacked matrix in bfloat16; in float32, its sums."""
    weight = SAME[name](72, 192)
    half, bias_O = weight.to(torch.bfloat16), torch.randn(72, generator=chance(4))
    assert half.chosen() is not None
    for rows in (1, 3, 10):
        x_NI, lie = rows_of(rows, 192, torch.bfloat16), HIGH_FIRST if isinstance(weight, FourBit) else LOW_FIRST
        lain = [as_they_lie(each, lie, best(True)) for each in (x_NI, half.dense())]
        wanted = cpu.product(*lain, bias_O.bfloat16(), best(True))
        assert torch.equal(packed_product(x_NI, half, bias_O.bfloat16()), wanted)
        exactly(x_NI.float(), weight.dense(), packed_product(x_NI.float(), weight, None))


@needs_kernels
@pytest.mark.parametrize("name", SCALED)
def test_a_format_of_bytes(name: str) -> None:
    weight = SCALED[name](72, 192)
    for dtype in (torch.bfloat16, torch.float32):
        x_NI, of = rows_of(10, 192, dtype), weight.to(dtype)
        assert of.chosen() is not None
        exactly(x_NI, weight.dense(), packed_product(x_NI, of, None))


@needs_kernels
def test_gathered_groups() -> None:
    """Of act-order the sums are in the order of the groups."""
    weight = gptq(72, 192, act_order=True).to(torch.bfloat16)
    order = weight._group().argsort(stable=True)
    x_NI = rows_of(10, 192, torch.bfloat16)
    lain = [as_they_lie(each[:, order], LOW_FIRST, best(True)) for each in (x_NI, weight.dense())]
    wanted = cpu.product(*lain, None, best(True))
    assert torch.equal(packed_product(x_NI, weight, None), wanted)


@needs_kernels
def test_what_has_no_kernel_is_unpacked_in_tiles() -> None:
    for weight in (
        four_bit(torch.randn(6, 80), "nf4"),  # blocks over the ends of rows
        gptq(8, 64, group=16),
        float8(8, 128, torch.float8_e5m2),
        nf4(8, 64).double(),
    ):
        assert weight.chosen() is None
    x_NI, weight = rows_of(3, 64, torch.float32), nf4(8, 64)
    assert not weight.chosen().takes(x_NI.double(), None)  # type: ignore[union-attr]


@needs_kernels
def test_a_matrix_that_gets_other_bytes() -> None:
    """What was laid out anew for the old ones is forgotten."""
    weight, other = gptq(8, 64), gptq(8, 64)
    other.parts["qweight"].add_(1)
    x_NI = rows_of(2, 64, torch.float32)
    packed_product(x_NI, weight, None)
    weight.copy_(other)
    assert torch.equal(packed_product(x_NI, weight, None), packed_product(x_NI, other, None))


def test_nibbles() -> None:
    found = nibbles(torch.tensor([[1, 2, 15], [4, 5, 6]]))
    assert torch.equal(found, torch.tensor([[0x21, 0x0F], [0x54, 0x06]], dtype=torch.uint8))


@needs_kernels
@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_a_checkpoint_in_float16_that_is_asked_for_in_float16(family: str, tmp_path: Path) -> None:
    """Half the memory, the same numbers, saved as they are, and said."""
    tensors = {name: part.half() for name, part in tiny.tensors_of(tiny.make(family)).items()}
    tiny.folder_of(tmp_path / "f16", tensors, tiny.keys(family))
    wide, kept = (tiny.auto(family).from_pretrained(tmp_path / "f16", dtype=dtype) for dtype in (None, "float16"))
    matrices = [p for p in kept.parameters() if isinstance(p, Float16)]
    assert matrices and all(p.parts["weight"].dtype == torch.float16 for p in matrices)
    assert not [p for p in wide.parameters() if isinstance(p, Float16)]
    ids = tiny.ids(2, 7)
    found, wanted = tiny.call(kept, ids), tiny.call(wide, ids)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert any("not trained" in note for note in kept.report.notes)
    kept.save_pretrained(tmp_path / "again")
    again = tiny.auto(family).from_pretrained(tmp_path / "again")
    assert torch.equal(tiny.call(again, ids), wanted)


@needs_kernels
def test_a_gguf_file_in_float16_is_read_as_it_lies(tmp_path: Path) -> None:
    """As llama.cpp reads it: half the memory of float32, its numbers, and its bytes when it is saved."""
    tiny.folder_of(tmp_path, tiny.tensors_of(tiny.make("llama")), tiny.keys("llama"))
    TARGETS["f16"].run(tmp_path, tmp_path / "x.gguf", Options())
    wide, kept = (tiny.auto("llama").from_pretrained(tmp_path / "x.gguf", dtype=dtype) for dtype in ("float32", None))
    assert [p for p in kept.parameters() if isinstance(p, Float16)]
    found, wanted = tiny.call(kept, tiny.ids(2, 7)), tiny.call(wide, tiny.ids(2, 7))
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    kept.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "x.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()
