"""MXFP4: the numbers by hand and by the reference, and gpt-oss files as they are published, which stay packed."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

import pellucid
import reference as ref
from pellucid.cli import main
from pellucid.errors import PellucidError, WeightsError
from pellucid.ops.packed import PackedTensor
from pellucid.quant._mxfp4 import E2M1, Mxfp4, unpacked

# Sizes of whole groups: 2 of them in the width, 3 in an expert.
SIZES = {"hidden_size": 64, "intermediate_size": 96}
PUBLISHED = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
FIRST = "model.layers.0.mlp.experts.down_proj"

# ------------------------------------------------------------------------------------------------ the format


def test_numbers_are_those_of_the_specification():
    """Every code by sign, exponent and mantissa: (-1)^s 2^(e-1) (1 + m/2), and m/2 where e is 0."""
    for code, value in enumerate(E2M1):
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        size = 2.0 ** (exponent - 1) * (1 + mantissa / 2) if exponent else mantissa / 2
        assert value == (-1) ** sign * size


def test_the_low_nibble_comes_first():
    blocks = torch.zeros(1, 2, 16, dtype=torch.uint8)
    blocks[0, 0, :2] = torch.tensor([0x21, 0xF7])
    blocks[0, 1, 15] = 0x9A
    found = unpacked(blocks, torch.tensor([[128, 120]], dtype=torch.uint8))
    assert found.shape == (1, 64) and found.dtype == torch.bfloat16
    assert found[0, :5].tolist() == [1.0, 2.0, 12.0, -12.0, 0.0]
    assert found[0, -2:].tolist() == [-1.0 / 128, -0.5 / 128]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_code_and_scale_is_the_reference_s(dtype):
    """Also the smallest scales, where numbers are subnormal, and the largest, where they are infinite."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    scales = torch.arange(255, dtype=torch.uint8).reshape(1, 51, 5)
    blocks = torch.arange(256, dtype=torch.uint8).reshape(16, 16).repeat(16, 1)[:255].reshape(1, 51, 5, 16)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=dtype)
    found = unpacked(blocks, scales)
    assert torch.equal(found.to(dtype).transpose(1, 2), expected)
    seconds = found.unflatten(2, (5, 32))[..., 1].flatten()[:253].double()  # those that are finite
    codes = blocks[..., 0].flatten().tolist()
    assert seconds.tolist() == [math.ldexp(E2M1[code >> 4], s - 127) for s, code in enumerate(codes[:253])]


# ------------------------------------------------------------------------------------------------ files


def pack(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[E, I, O] -> blocks, scales, and what they stand for, again [E, I, O]: each number goes to the nearest."""
    groups = weight.float().transpose(1, 2).unflatten(2, (-1, 32))  # [E, O, G, 32]
    exponents = groups.abs().amax(-1).log2().floor() - 2
    powers = 2.0 ** exponents.unsqueeze(-1)
    codes = (groups.unsqueeze(-1) / powers.unsqueeze(-1) - torch.tensor(E2M1)).abs().argmin(-1).to(torch.uint8)
    stood_for = (torch.tensor(E2M1)[codes.long()] * powers).flatten(2).transpose(1, 2).contiguous()
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + 127).to(torch.uint8), stood_for


def write(folder: Path, tensors: dict[str, Tensor], config: dict) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def case() -> ref.Case:
    data = ref.fixture("gpt_oss")
    return ref.Case("gpt_oss", "mxfp4", "causal-lm", data["config"] | SIZES, data)


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory) -> tuple[Path, Path]:
    """The same model twice: with its experts in MXFP4, as openai publishes it, and with what these stand for."""
    source, root = ref.checkpoint(case(), checkpoints), tmp_path_factory.mktemp("gpt-oss")
    config = json.loads((source / "config.json").read_text()) | {"dtype": "bfloat16"}
    packed, plain = {}, {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            packed[f"{name}_blocks"], packed[f"{name}_scales"], tensor = pack(tensor)
        else:
            packed[name] = tensor.bfloat16()
        plain[name] = tensor.bfloat16()
    whole = write(root / "packed", packed, config | {"quantization_config": PUBLISHED})
    return whole, write(root / "plain", plain, config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_published_files_are_the_model_that_they_stand_for(folders, dtype):
    packed, plain = (ref.ours(case(), folder, dtype) for folder in folders)
    theirs = dict(plain.state_dict())
    for name, tensor in packed.state_dict().items():
        assert isinstance(tensor, Mxfp4) == (".experts." in name and name.endswith("weight")), name
        assert torch.equal(tensor.to(dtype) + 0, theirs[name]), name
    with torch.no_grad():
        given = ref.inputs(case())
        found, same = packed(**given).logits, plain(**given).logits
        assert ref.distance(found, same) <= (1e-5 if dtype == torch.float32 else 2e-2)
        if dtype == torch.float32:
            assert ref.distance(found, ref.reference(case(), folders[1])(**given).logits) < 1e-4


def test_nothing_is_said_of_unpacking_and_the_file_s_bytes_are_those_in_memory(folders):
    model = pellucid.AutoModelForCausalLM.from_pretrained(folders[0])
    assert model.dtype == torch.bfloat16 and model.report.notes == []
    assert FIRST in model.report.used and not any(name.endswith("_blocks") for name in model.report.used)
    held = sum(p.packed_bytes for p in model.parameters() if isinstance(p, PackedTensor))
    assert held == 3 * 8 * 3 * 64 * 96 * 17 // 32  # layers, experts, matrices, inputs, outputs


def test_a_row_is_the_same_in_any_company_and_greedy_ids_are_those_of_the_numbers(folders):
    packed, plain = (ref.ours(case(), folder, torch.float32) for folder in folders)
    ids = torch.randint(3, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(packed(ids).logits[1], packed(ids[1:2]).logits[0])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(packed.generate(ids, **options), plain.generate(ids, **options))


def test_a_file_is_saved_byte_for_byte(folders, tmp_path):
    ref.ours(case(), folders[0], torch.bfloat16).save_pretrained(tmp_path)
    found, expected = load_file(tmp_path / "model.safetensors"), load_file(folders[0] / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == PUBLISHED


def test_halves_may_lie_in_two_shards(folders, tmp_path):
    tensors = load_file(folders[0] / "model.safetensors")
    shard_of = {name: f"{'b' if name.endswith('_scales') else 'a'}.safetensors" for name in tensors}
    for shard in ("a.safetensors", "b.safetensors"):
        save_file({name: tensor for name, tensor in tensors.items() if shard_of[name] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    (tmp_path / "config.json").write_bytes((folders[0] / "config.json").read_bytes())
    one, two = (dict(ref.ours(case(), folder).state_dict()) for folder in (folders[0], tmp_path))
    assert one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("command", ["check", "show"])
def test_the_command_line_knows_the_format(folders, command):
    found = CliRunner().invoke(main, [command, str(folders[0])], catch_exceptions=False)
    assert found.exit_code == 0 and "FAIL" not in found.output
    wanted = {"check": "every tensor has a place", "show": "MXFP4"}
    assert wanted[command] in found.output


# ------------------------------------------------------------------------------------------------ broken files


def nan(tensors: dict[str, Tensor]) -> None:
    tensors[f"{FIRST}_scales"][1, 2, 0] = 255


def cut(tensors: dict[str, Tensor]) -> None:
    tensors[f"{FIRST}_scales"] = tensors[f"{FIRST}_scales"][:, 1:].contiguous()


def short_groups(tensors: dict[str, Tensor]) -> None:
    tensors[f"{FIRST}_blocks"] = tensors[f"{FIRST}_blocks"][..., :8].contiguous()


def few_experts(tensors: dict[str, Tensor]) -> None:
    for half in ("_blocks", "_scales"):
        tensors[FIRST + half] = tensors[FIRST + half][1:].contiguous()


def other_dtype(tensors: dict[str, Tensor]) -> None:
    tensors[f"{FIRST}_scales"] = tensors[f"{FIRST}_scales"].float()


def twice(tensors: dict[str, Tensor]) -> None:
    tensors[FIRST] = torch.zeros(8, 96, 64)


def flat(tensors: dict[str, Tensor]) -> None:
    for half in ("_blocks", "_scales"):
        tensors[FIRST + half] = tensors[FIRST + half].flatten(0, 1)


BROKEN: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "a scale that is NaN": (nan, f"{FIRST}_scales has 1 scales of 255, which is NaN"),
    "no blocks": (lambda tensors: tensors.pop(f"{FIRST}_blocks"), f"there is no {FIRST}_blocks"),
    "no scales": (lambda tensors: tensors.pop(f"{FIRST}_scales"), f"there is no {FIRST}_scales"),
    "rows that are cut off": (cut, f"{FIRST}_blocks is U8 [8, 64, 3, 16] and {FIRST}_scales is U8 [8, 63, 3]"),
    "groups of 16": (short_groups, f"{FIRST}_blocks is U8 [8, 64, 3, 8] and"),
    "scales in float32": (other_dtype, f"{FIRST}_scales is F32"),
    "matrices without experts": (flat, f"{FIRST}_blocks is U8 [512, 3, 16]"),
    "an expert less": (few_experts, f"{FIRST} is [7, 64, 96], the model wants [8, 96, 64]"),
    "both forms": (twice, f"{FIRST} is there twice"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_pairs_are_refused_by_name(folders, tmp_path, kind):
    change, message = BROKEN[kind]
    tensors = load_file(folders[0] / "model.safetensors")
    change(tensors)
    folder = write(tmp_path / "broken", tensors, json.loads((folders[0] / "config.json").read_text()))
    with pytest.raises(WeightsError) as caught:
        ref.ours(case(), folder)
    assert message in caught.value.what and caught.value.next


@pytest.mark.parametrize("packed", [{"quant_method": "nobody-s", "bits": 4}, {"bits": 4}, "mxfp4"])
def test_other_ways_of_packing_are_refused(folders, tmp_path, packed):
    config = json.loads((folders[0] / "config.json").read_text()) | {"quantization_config": packed}
    with pytest.raises(PellucidError, match="quant"):
        ref.ours(case(), write(tmp_path / "other", {"a": torch.ones(1)}, config))


def test_a_config_that_speaks_of_packed_weights_where_there_are_none(folders, tmp_path):
    """As files have it that were unpacked with other tools: what is there is read, and saved without the claim."""
    plain = load_file(folders[1] / "model.safetensors")
    model = ref.ours(case(), write(tmp_path / "a", plain, json.loads((folders[0] / "config.json").read_text())))
    model.save_pretrained(tmp_path / "b")
    assert "quantization_config" not in json.loads((tmp_path / "b" / "config.json").read_text())
