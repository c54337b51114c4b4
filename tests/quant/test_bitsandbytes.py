"""NF4, FP4 and LLM.int8(): the library's bits (tests/record_bitsandbytes.py), and those of the reference with it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import quantized
import reference as ref
from models import tiny
from pellucid import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig
from pellucid.errors import ArgumentError, PellucidError, Unsupported, WeightsError
from pellucid.ops.packed import PackedTensor
from pellucid.quant import _bitsandbytes as bnb

RECORDED = load_file(Path(__file__).parents[1] / "data" / "bitsandbytes.safetensors")
FOUR = ["nf4", "fp4", "nf4-double", "fp4-double"]
WAYS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4, double, stored as bf16": {
        "load_in_4bit": True, "bnb_4bit_use_double_quant": True, "bnb_4bit_quant_storage": "bfloat16",
    },
    "int8": {"load_in_8bit": True},
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "llama": {**quantized.SIZES, "intermediate_size": 128},
    "phi3": {**quantized.SIZES, "intermediate_size": 128, "sliding_window": None},  # fused, one below the other
    "gpt2": {"n_embd": 64, "n_head": 4, "n_inner": 128},  # [in, out] in files that are not packed
    "gpt_neox": {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4},  # fused head by head
}
LIBRARY = importlib.util.find_spec("bitsandbytes") is not None


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are not the same, bit for bit."""

    def bits(x: Tensor) -> Any:
        return x.dtype, x.shape, bytes(x.contiguous().flatten().view(torch.uint8).numpy())

    assert ours.keys() == theirs.keys()
    return [name for name in theirs if bits(ours[name]) != bits(theirs[name])]


def named(tensor: PackedTensor, name: str) -> dict[str, Tensor]:
    return {file_name: tensor.parts[part] for part, file_name in tensor.file_names(f"{name}.weight").items()}


class TestBits:
    def test_tables(self):
        assert torch.equal(bnb.table("dynamic"), RECORDED["dynamic"])
        for kind in ("nf4", "fp4"):
            assert torch.equal(bnb.table(kind), RECORDED[f"{kind}.weight.quant_map"])

    @pytest.mark.parametrize("name", FOUR)
    def test_four_bits(self, name):
        packed = bnb.four_bit(RECORDED["w"], name[:3], double="double" in name)
        wanted = {key: each for key, each in RECORDED.items() if key.startswith(f"{name}.weight")}
        assert same(named(packed, name), wanted) == []
        assert torch.equal(packed.dense(), RECORDED[f"{name}.numbers"])

    def test_eight_bits(self):
        packed = bnb.eight_bit(RECORDED["w"])
        wanted = {f"int8.{part}": RECORDED[f"int8.{part}"] for part in ("weight", "SCB", "weight_format")}
        assert same(named(packed, "int8"), wanted) == []
        assert torch.equal(packed.unpack(slice(0, 12)), RECORDED["int8.numbers"])

    def test_outliers_are_multiplied_as_they_are(self):
        packed = bnb.eight_bit(RECORDED["w"])
        found = packed.product(RECORDED["x"], None).float()
        wanted = RECORDED["int8.y"].float()
        assert (found - wanted).abs().max() <= wanted.abs().max() * 2**-7  # one rounding to bfloat16 less
        blind = replace_meta(packed, 0.0).product(RECORDED["x"], None).float()
        exact = RECORDED["x"].float() @ packed.unpack(slice(0, 12)).t()
        assert (blind - exact).abs().max() > 4 * (found - exact).abs().max()


def replace_meta(packed: Any, meta: Any) -> Any:
    return type(packed)(packed.parts, meta, packed.shape, packed.dtype)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestRows:
    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(FOUR), st.integers(1, 9), st.sampled_from([1, 2, 5, 31, 32, 64, 96, 128]),
        st.sampled_from([32, 64, 128]),
    )  # fmt: skip
    def test_numbers_are_within_half_a_step_of_what_was_packed(self, name, rows, width, size):
        numbers = random(rows, width)
        packed = bnb.four_bit(numbers, name[:3], size=size, double="double" in name)
        found = packed.unpack(slice(0, rows))
        for row in range(rows):
            assert torch.equal(packed.unpack(slice(row, row + 1))[0], found[row])
        flat, back = numbers.flatten(), found.flatten()
        values = bnb.table(name[:3]).sort().values
        step = values.diff().max() / 2 + (0.02 if "double" in name else 0)
        for start in range(0, flat.numel(), size):
            largest = numbers.abs().max() if "double" in name else flat[start : start + size].abs().max()
            assert (flat - back)[start : start + size].abs().max() <= largest * step + 1e-6

    @pytest.mark.parametrize("name", [*FOUR, "int8"])
    def test_rows_that_are_moved_stay_packed_and_come_back(self, name):
        numbers = random(24, 192)
        packed = bnb.eight_bit(numbers) if name == "int8" else bnb.four_bit(numbers, name[:3], double="double" in name)
        dense = packed.dense()
        order = torch.tensor([3, 0, 23, 3])
        assert torch.equal(torch.nn.functional.embedding(order, packed), dense[order])
        first, second = packed.split([7, 17])
        assert isinstance(second, PackedTensor) and torch.equal(second.dense(), dense[7:])
        again = torch.cat([first, second])
        assert isinstance(again, PackedTensor) and same(named(again, "x"), named(packed, "x")) == []
        heads = [part.flatten(0, 1) for part in packed.unflatten(0, (4, 6)).split([2, 4], dim=1)]
        assert torch.equal(heads[1].dense(), dense.unflatten(0, (4, 6))[:, 2:].flatten(0, 1))
        again = torch.cat([each.unflatten(0, (4, -1)) for each in heads], 1).flatten(0, 1)
        assert isinstance(again, PackedTensor) and same(named(again, "x"), named(packed, "x")) == []

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("name", FOUR)
    @pytest.mark.parametrize("size", [32, 64, 256])
    def test_the_kernel_gives_the_bits_of_the_reference(self, name, size, dtype):
        numbers = random(37, 256) * torch.logspace(-30, 30, 37)[:, None]
        numbers[5, 7] = numbers[6, 9] = 0
        packed = bnb.four_bit(numbers, name[:3], size=size, double="double" in name).to(dtype)
        assert torch.equal(packed.dense(), packed.unpack(slice(0, 37)).to(dtype))
        assert torch.equal(packed.dense(3, 20), packed.unpack(slice(3, 20)).to(dtype))
        large = bnb.four_bit(random(1100, 256), name[:3], size=size).to(dtype)  # for several threads
        assert torch.equal(large.dense(), large.unpack(slice(0, 1100)).to(dtype))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("kind", ["nf4", "fp4"])
    @pytest.mark.parametrize("size", [32, 64, 4096])
    def test_the_kernel_packs_to_the_bits_of_the_reference(self, size, kind, dtype):
        numbers = (random(37, 8192) * torch.logspace(-42, 38, 37)[:, None]).to(dtype)
        values, numbers[5, 7], numbers[6] = bnb.table(kind), torch.nan, 0
        middles = values.sort().values.unfold(0, 2, 1).mean(1)  # as near to one as to the other
        numbers[7] = middles.repeat(547)[:8192].to(dtype)
        numbers[7, ::32] = 1
        codes, scales = bnb._packed(numbers.flatten()[:-5], values, size)
        places, wanted = bnb._nearest(numbers.flatten()[:-5], values.sort().values, size)
        found = torch.stack([codes >> 4, codes & 15], 1).flatten()[: places.numel()]
        assert torch.equal(found, values.argsort()[places].to(torch.uint8))
        assert torch.equal(scales.nan_to_num(nan=-1), wanted.nan_to_num(nan=-1))

    def test_scales_that_are_packed_for_all_rows_are_not_saved_for_some(self):
        some = bnb.four_bit(random(64, 512), "nf4", double=True)[5:9]
        with pytest.raises(Unsupported, match="rows of a matrix"):
            some.file_names("x.weight")

    def test_matrices_with_packed_scales_of_their_own_are_not_one(self):
        pieces = [bnb.four_bit(random(4, 64, seed=seed), "nf4", double=True) for seed in range(2)]
        joined = torch.cat(pieces)
        assert not isinstance(joined, PackedTensor)
        assert torch.equal(joined, torch.cat([piece.dense() for piece in pieces]))

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 40), st.sampled_from([1, 3, 64, 100]), st.sampled_from([torch.float32, torch.bfloat16]))
    def test_company_does_not_matter_to_outliers(self, rows, width, dtype):
        packed, x = bnb.eight_bit(random(17, width)).to(dtype), (random(rows, width, seed=1) * 4).to(dtype)
        x[0] = 0
        found = packed.chosen().product(packed, x, random(17).to(dtype))
        for row in range(rows):
            alone = packed.chosen().product(packed, x[row : row + 1], random(17).to(dtype))
            assert torch.equal(alone[0], found[row])
        assert torch.equal(found[0], random(17).to(dtype))


def folder_of(family: str, root: Path) -> Path:
    case = ref.case(family, "", "causal-lm")
    return ref.checkpoint(replace(case, variant="to be packed", config={**case.config, **SIZES[family]}), root)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", SIZES)
def test_packed_while_loading_is_what_is_saved_and_read_again(family, way, tmp_path):
    folder = folder_of(family, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**WAYS[way]))
    packed = {name for name, p in model.named_parameters() if isinstance(p, PackedTensor)}
    linear = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert packed == {name for name in linear if "lm_head" not in name and "embed_out" not in name} and packed
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, wanted, alone = again(ids).logits, model(ids).logits, again(ids[1:2]).logits
        dense = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
    assert torch.equal(found, wanted) and torch.equal(alone[0], found[1])
    assert 1e-3 < ref.distance(found, dense) < (0.3 if way == "int8" else 3)
    again.save_pretrained(tmp_path / "again")
    files = [load_file(tmp_path / name / "model.safetensors") for name in ("saved", "again")]
    assert same(*files) == []
    said = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("saved", "again")]
    assert said[0]["quantization_config"] == said[1]["quantization_config"]
    assert BitsAndBytesConfig.from_dict(said[0]["quantization_config"]) == BitsAndBytesConfig(**WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_a_matrix_whose_name_ends_otherwise_is_read_again(way, tmp_path):
    """`attn.in_proj_weight`, which is no `weight` of its module."""
    model = tiny.make("tipsv2_text_model", None, hidden_size=128, num_attention_heads=4, intermediate_size=128)
    model.save_pretrained(tmp_path / "plain")
    options = BitsAndBytesConfig(**WAYS[way])
    packed = AutoModel.from_pretrained(tmp_path / "plain", quantization_config=options)
    assert isinstance(packed.blocks[0].attn.q.weight, PackedTensor)
    packed.save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(tiny.call(again, tiny.ids(2, 9)), tiny.call(packed, tiny.ids(2, 9)))


@pytest.mark.skipif(not LIBRARY, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", SIZES)
def test_the_reference_saves_the_same_file(family, way, tmp_path):
    import transformers

    folder = folder_of(family, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=transformers.BitsAndBytesConfig(**WAYS[way])
    )
    theirs.save_pretrained(tmp_path / "theirs")
    config = transformers.BitsAndBytesConfig(**WAYS[way])  # their object does as well
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=config)
    ours.save_pretrained(tmp_path / "ours")
    files = [load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs")]
    # Of packed scales few are the next one: on a CPU the library rounds them by other steps than elsewhere.
    assert all("double" in way and name.endswith(".absmax") for name in same(*files))
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    read.save_pretrained(tmp_path / "again")
    assert same(load_file(tmp_path / "again" / "model.safetensors"), files[1]) == []
    ids = torch.randint(3, 100, (1, 1), generator=torch.Generator().manual_seed(1))  # a row without company
    with torch.inference_mode():
        assert ref.distance(read(ids).logits.float(), theirs.eval()(ids).logits.float()) < 0.03


class TestChoosing:
    @pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
    def test_short_forms(self, flag, tmp_path):
        folder = folder_of("llama", tmp_path)
        short = AutoModelForCausalLM.from_pretrained(folder, **{flag: True})
        long = AutoModelForCausalLM.from_pretrained(folder, quantization_config={flag: True})
        kinds = {p.kind for p in short.parameters() if isinstance(p, PackedTensor)}
        assert kinds == {"FP4" if flag == "load_in_4bit" else "LLM.int8()"}
        for name, p in short.state_dict().items():
            assert torch.equal(p, long.state_dict()[name])

    def test_modules_that_are_skipped(self, tmp_path):
        skip = ["lm_head", r"model.layers.0.*", "down_proj"]
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
        model = AutoModelForCausalLM.from_pretrained(folder_of("llama", tmp_path), quantization_config=config)
        packed = {name for name, p in model.named_parameters() if isinstance(p, PackedTensor)}
        assert packed and all("blocks.1." in name or "layers.1." in name for name in packed)
        assert not any("down" in name for name in packed)

    def test_a_packed_file_is_read_as_it_is(self, tmp_path):
        model = AutoModelForCausalLM.from_pretrained(folder_of("llama", tmp_path), load_in_8bit=True)
        model.save_pretrained(tmp_path / "packed")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", load_in_4bit=True)
        assert {p.kind for p in again.parameters() if isinstance(p, PackedTensor)} == {"LLM.int8()"}
        assert any("packed already" in note for note in again.report.notes)

    def test_nothing_asked_for(self, tmp_path):
        model = AutoModelForCausalLM.from_pretrained(folder_of("llama", tmp_path), load_in_4bit=False)
        assert not any(isinstance(p, PackedTensor) for p in model.parameters())

    @pytest.mark.parametrize(
        "given, says",
        [
            ({"load_in_4bit": True, "load_in_8bit": True}, "both"),
            ({"load_in_4bit": 1}, "load_in_4bit"),
            ({"load_in_4bit": True, "bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type"),
            ({"load_in_4bit": True, "bnb_4bit_quant_storage": "int64"}, "bnb_4bit_quant_storage"),
            ({"load_in_8bit": True, "llm_int8_threshold": "6"}, "llm_int8_threshold"),
            ({"load_in_8bit": True, "llm_int8_skip_modules": "lm_head"}, "llm_int8_skip_modules"),
            ({"load_in_8bit": True, "llm_int8_has_fp16_weight": True}, "llm_int8_has_fp16_weight"),
            ({"load_in_8bits": True}, "load_in_8bits"),
            ({"quant_method": "gptq", "bits": 4}, "quantization_config"),
        ],
        ids=str,
    )
    def test_what_is_refused(self, given, says):
        with pytest.raises(PellucidError, match=says):
            BitsAndBytesConfig.from_dict(given)

    def test_two_ways_at_once(self):
        with pytest.raises(ArgumentError, match="beside"):
            AutoModelForCausalLM.from_pretrained(load_in_4bit=True, quantization_config={"load_in_8bit": True})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("bnb")
    for name, way in WAYS.items():
        config = BitsAndBytesConfig(**way)
        model = AutoModelForCausalLM.from_pretrained(folder_of("llama", root), quantization_config=config)
        model.save_pretrained(root / name)
    return root


class TestBroken:
    """A file that is cut or wrong says which tensor."""

    @pytest.mark.parametrize(
        "way, part, new",
        [
            ("nf4", "weight", torch.zeros(3, 1, dtype=torch.uint8)),
            ("nf4", "weight.absmax", None),
            ("nf4", "weight.absmax", torch.zeros(3)),
            ("nf4", "weight.quant_map", torch.zeros(15)),
            ("nf4", "weight.quant_state.bitsandbytes__nf4", bnb.blob({"quant_type": "nf4"})),
            (
                "nf4", "weight.quant_state.bitsandbytes__nf4",
                bnb.blob({"quant_type": "fp4", "blocksize": 64, "shape": [64, 64]}),
            ),
            (
                "nf4", "weight.quant_state.bitsandbytes__nf4",
                bnb.blob({"quant_type": "nf4", "blocksize": 64, "shape": [2**39, 2**39]}),
            ),
            ("nf4", "weight.quant_state.bitsandbytes__nf4", torch.tensor([91] * 4000, dtype=torch.uint8)),
            ("fp4, double, stored as bf16", "weight.nested_absmax", None),
            ("fp4, double, stored as bf16", "weight.nested_quant_map", torch.zeros(255)),
            ("fp4, double, stored as bf16", "weight.absmax", torch.zeros(64)),
            ("int8", "weight", torch.zeros(64, 64)),
            ("int8", "SCB", torch.zeros(63)),
            ("int8", "weight_format", torch.tensor(2, dtype=torch.uint8)),
        ],
        ids=lambda x: x if isinstance(x, str) else "",
    )  # fmt: skip
    def test_parts(self, saved, tmp_path, way, part, new):
        name = f"model.layers.0.self_attn.q_proj.{part}"
        tensors = load_file(saved / way / "model.safetensors")
        assert tensors.pop(name) is not None
        save_file(tensors if new is None else {**tensors, name: new}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text((saved / way / "config.json").read_text())
        with pytest.raises((WeightsError, Unsupported), match="layers.0.self_attn.q_proj"):
            AutoModelForCausalLM.from_pretrained(tmp_path)
