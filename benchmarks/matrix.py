"""Every family in every packed format: its tests' fixture packed, loaded, run, continued greedily, saved, loaded again.

    PYTHONPATH=src python benchmarks/matrix.py [FAMILY ...]

writes rows of the table in docs/packed.md: of these families, or of those that have none yet (`all`: of every one).
Layouts are those of tests/quant: numbers of a format drawn at random, and the same unpacked, which is what a packed
model must mean. A family's sizes are raised to whole blocks where its config allows. What llama.cpp makes of the
families' GGUF files is found by gguf_peer.py.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / part) for part in ("", "quant", "models")]

import test_awq  # noqa: E402
import test_compressed_tensors as ct  # noqa: E402
import test_gguf_models as files  # noqa: E402
import test_gptq  # noqa: E402
import test_hqq  # noqa: E402
import tiny  # noqa: E402
from gguf import GGMLQuantizationType as Kind  # noqa: E402

import gguf_models  # noqa: E402
import pellucid  # noqa: E402
import quantized  # noqa: E402
import reference as ref  # noqa: E402
from pellucid.compat.quantizing import quantize  # noqa: E402
from pellucid.errors import ArgumentError, PellucidError  # noqa: E402
from pellucid.models.loading import HEADS, load  # noqa: E402
from pellucid.models.quantizing import QuantizedWeights, upright  # noqa: E402
from pellucid.ops.packed import PackedTensor, exactly  # noqa: E402
from pellucid.weights.source import open_weights  # noqa: E402

DOC = ROOT / "docs" / "packed.md"
PEER = ROOT / "build" / "llama_cpp.json"  # of gguf_peer.py
BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"
WIDE = {  # keys that are a width, and what whole blocks need
    "intermediate_size": 256, "moe_intermediate_size": 128, "shared_expert_intermediate_size": 128, "n_inner": 256,
    "ffn_dim": 256, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "d_ff": 256, "ffn_hidden_size": 256,
    "hidden_dim": 256, "shared_intermediate_size": 128, "intermediate_size_mlp": 256, "dim_feedforward": 256,
    "d_inner": 256, "dim_ff": 256, "shared_experts_intermediate_size": 128,
}  # fmt: skip
HEAD = ("head_dim", "d_kv", "d_head", "dim_head")
WIDTH = ("hidden_size", "n_embd", "d_model", "dim", "emb_dim")
COUNTS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "attention_heads")
PARTS = ("text_config", "encoder", "decoder")  # models in a model
OTHER: dict[str, dict[str, Any]] = {  # keys whose values in the fixture allow no whole blocks
    "canine": {"num_hash_functions": 4},
    "convbert": {"num_attention_heads": 4},
    "encoder-decoder": {"encoder": {"num_attention_heads": 4}},
    "lilt": {"num_attention_heads": 6},
    "mobilebert": {"num_attention_heads": 4, "intra_bottleneck_size": 128, "embedding_size": 64},
    "prophetnet": {"num_encoder_attention_heads": 4, "num_attention_heads": 4},
    "squeezebert": {"num_attention_heads": 4, "embedding_size": 128, "k_groups": 2, "v_groups": 2,
                    "intermediate_groups": 2},
    "zamba2": {"num_attention_heads": 4, "n_mamba_heads": 4},
}  # fmt: skip


def words(numbers: np.ndarray, bits: int) -> Tensor:
    """As `quantized.words`, which puts them together number by number, for 4 and 8 bits."""
    each = 8 // bits
    numbers = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % (32 // bits)))).astype(np.uint8)
    bytes_ = sum(numbers[:, at::each] << bits * at for at in range(each))
    return torch.from_numpy(np.ascontiguousarray(bytes_).view(np.int32).copy())


class Float8(quantized.Float8):
    """As there, for blocks; by arrays."""

    def __call__(self, name: str, shape: tuple[int, int], chance: np.random.Generator) -> Any:
        bytes_ = chance.integers(0, 256, shape).astype(np.uint8)
        bytes_[(bytes_ & 127) == 127] = 56
        height, width = self.height or 1, self.width or 1
        count = -(-shape[0] // height), -(-shape[1] // width)
        scales = (0.5 + chance.random(count)).astype(np.float32) / 100 / np.sqrt(shape[1], dtype=np.float32)
        spread = scales.repeat(height, 0).repeat(width, 1)[: shape[0], : shape[1]]
        stored = torch.from_numpy(bytes_).view(torch.float8_e4m3fn)
        parts = {name: stored, f"{name.removesuffix('weight')}{self.scale}": torch.from_numpy(scales)}
        return parts, torch.from_numpy(quantized.VALUES[bytes_] * spread)


quantized.words = words
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}
LAYOUTS: dict[str, tuple[dict[str, Any], quantized.Layout, int]] = {  # options, layout, what sizes are multiples of
    "GPTQ": (GPTQ, test_gptq.layout(4, 32), 32),
    "AWQ": ({**test_awq.OPTIONS, "modules_to_not_convert": []}, test_awq.layout(32), 32),
    "CT int4": (ct.config("pack-quantized", ct.weights(4, size=32)), ct.Layout(4, 32), 32),
    "CT int8": (ct.config("int-quantized", ct.weights(8)), ct.Layout(8, words=False), 1),
    "FP8": (FP8, Float8(32, 32), 1),
    "HQQ": (test_hqq.OPTIONS, test_hqq.layout(4, 32), 32),
}
LOADED = {"NF4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "int8": {"load_in_8bit": True}}
COLUMNS = ["GGUF Q8_0", "GGUF Q4_K", *LOADED, *LAYOUTS]
FIRST = "llama.cpp"  # the peer's column


def widened(values: dict[str, Any], block: int) -> dict[str, Any]:
    """A config with a width of whole blocks."""
    heads = next((values[key] for key in COUNTS if isinstance(values.get(key), int)), 2)
    head = block // math.gcd(heads, block // 32)
    more = {key: max(size, block) for key, size in WIDE.items() if isinstance(values.get(key), int)}
    more |= {key: heads * head for key in WIDTH if isinstance(values.get(key), int)}
    more |= {key: head for key in HEAD if isinstance(values.get(key), int)}
    if "mrope_section" in (values.get("rope_scaling") or {}):
        third = head // 6  # of the pairs of channels
        sections = [head // 2 - 2 * third, third, third]
        more["rope_scaling"] = {**values["rope_scaling"], "mrope_section": sections}
    if values.get("model_type") == "mamba2":
        more["hidden_size"] = heads * head // 2  # its heads have twice the width together
    more |= {key: widened(values[key], block) for key in PARTS if isinstance(values.get(key), dict)}
    if isinstance(values.get("mamba_d_head"), int) and "mamba_d_ssm" not in values:
        more["mamba_d_head"] = values["mamba_expand"] * more["hidden_size"] // values["mamba_n_heads"]
    return {**values, **more}


def changed(values: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A config with other values of some keys, of models in it too."""
    return {**values, **{key: changed(values[key], each) if key in PARTS else each for key, each in other.items()}}


def made(family: str, root: Path) -> tuple[Path, Any]:
    """A folder of random weights, in wide sizes if that makes a model, and the class of its first task."""
    task = ref.fixture(family)["tasks"][0]
    plain = ref.fixture(family)["config"]
    for values in (widened(changed(plain, OTHER.get(family, {})), 64), plain):
        try:
            model = ref.our_class(task).from_config(config(deepcopy(values)))
            said(model)
        except (PellucidError, RuntimeError, ValueError, KeyError, TypeError, AssertionError):
            if values is plain:
                raise
            continue
        ref.make_loud(model, ref.fixture(family).get("norm_offset", 0.0))
        model.save_pretrained(root / "dense")
        return root / "dense", ref.our_class(task)
    raise AssertionError(family)


def config(values: dict[str, Any]) -> Any:
    """Without keys that our families have no use for."""
    family = values.pop("model_type")
    while True:
        try:
            return pellucid.AutoConfig.for_model(family, **values)
        except ArgumentError as error:
            key = error.what.split("'")[1]
            if key not in values:
                raise
            del values[key]


def ids() -> Tensor:
    return torch.randint(3, 70, (2, 12), generator=torch.Generator().manual_seed(1))


def said(model: Any) -> Tensor:
    """The first result for two texts, or two pages: a token of BROS has a box."""
    boxes = {"bbox": torch.arange(8, 48, 10).expand(2, 12, 4)} if model.config.model_type == "bros" else {}
    return tiny.call(model, ids(), **boxes)


def works(model: Any, again: Callable[[Path], Any], root: Path) -> str:
    """Runs, continues, saves, and means the same when it is loaded again. "✓", or what does not."""
    if not any(isinstance(p, PackedTensor) for p in model.parameters()):
        return "no matrix is packed"
    found = said(model)
    if not bool(found.isfinite().all()):
        return "not finite"
    if model.task in ("causal-lm", "seq2seq-lm"):
        options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        model.generate(ids()[:1], **options)
    other = again(root / "again")
    off = ref.distance(said(other), found)  # not 0 where what could not be cut packed is a plain matrix
    return "✓" if off < 1e-3 else f"off by {off:.1g} when loaded again"


def packable(folder: Path, auto: Any) -> dict[str, bool]:
    """File tensors that a quantizer packs -> whether they lie as [in, out]."""
    model = load(folder=folder, task=auto.TASK, model_class=auto)
    how = quantize(pellucid.BitsAndBytesConfig(load_in_8bit=True))
    weights = QuantizedWeights(open_weights(folder), model, torch.float32, how, HEADS)
    return {name: upright(place) is not place for name, place in weights._places.items() if name.endswith(".weight")}


def in_layout(folder: Path, auto: Any, names: dict[str, bool], form: str, root: Path) -> str:
    """A checkpoint in a published layout, against the same numbers unpacked."""
    options, layout, multiple = LAYOUTS[form]
    chance, packed, dense = np.random.default_rng(5), {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        turned = names.get(name)
        shape = tuple(tensor.t().shape if turned else tensor.shape)
        if turned is None or any(n % multiple for n in shape):
            packed[name] = dense[name] = tensor
            continue
        parts, numbers = layout(name, shape, chance)
        packed |= parts
        dense[name] = (numbers.t() if turned else numbers).contiguous()
    written = json.loads((folder / "config.json").read_text())
    models = []
    for kind, tensors, more in (("packed", packed, {"quantization_config": options}), ("plain", dense, {})):
        (root / kind).mkdir()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, root / kind / "model.safetensors")
        (root / kind / "config.json").write_text(json.dumps({**written, **more}))
        models.append(auto.from_pretrained(root / kind, dtype=torch.float32))
    with exactly():
        found, wanted = (said(model) for model in models)
    if bool(wanted.isfinite().all()) and ref.distance(found, wanted) > 1e-3:
        return f"off by {ref.distance(found, wanted):.1g}"

    def again(path: Path) -> Any:
        models[0].save_pretrained(path)
        return auto.from_pretrained(path, dtype=torch.float32)

    return works(models[0], again, root)


def while_loading(folder: Path, auto: Any, names: dict[str, bool], form: str, root: Path) -> str:
    model = auto.from_pretrained(
        folder, dtype=torch.float32, quantization_config=pellucid.BitsAndBytesConfig(**LOADED[form])
    )

    def again(path: Path) -> Any:
        model.save_pretrained(path)
        return auto.from_pretrained(path, dtype=torch.float32)

    return works(model, again, root)


def as_gguf(family: str, kind: Kind, root: Path) -> str:
    """A file as llama.cpp's converter writes it; saved, it is the same bytes."""
    name = next((name for name, (of, _) in files.MODELS.items() if of == family), None)
    if name is None:
        return "no table"
    changes = deepcopy(files.MODELS[name][1])
    task: Any = None if family in files.ENCODERS else "seq2seq-lm" if family in files.SEQ2SEQ else "causal-lm"
    case = ref.case(family, "", task)
    values = {**case.config, **changes}
    try:
        case = replace(case, variant="matrix, wide", config=widened(values, 256 if kind is Kind.Q4_K else 64))
        folder = ref.checkpoint(case, root)
    except Exception:  # the reference knows no such sizes
        folder = ref.checkpoint(replace(case, variant="matrix", config=values), root)
    if family == "mt5":
        folder = files.with_head(folder)
    path = gguf_models.write(folder, root / "m.gguf", kind)
    auto = files.AUTO[task]
    model = auto.from_pretrained(path)

    def again(folder: Path) -> Any:
        model.save_pretrained(folder)
        if (folder / path.name).read_bytes() != path.read_bytes():
            raise AssertionError("saved as other bytes")
        return auto.from_pretrained(folder / path.name)

    return works(model, again, root)


def told(run: Callable[..., Any], *given: Any) -> Any:
    """What it returns; or as text, how it failed."""
    try:
        return run(*given)
    except PellucidError as error:
        return error.what
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def row(family: str) -> dict[str, str]:
    """What each format does with a family."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        model = told(made, family, root)
        names = model if isinstance(model, str) else told(packable, *model)
        found = {}
        for form in COLUMNS:
            (root / form).mkdir()
            if form.startswith("GGUF"):
                found[form] = told(as_gguf, family, Kind[form.removeprefix("GGUF ")], root / form)
            elif isinstance(names, str):
                found[form] = names
            else:
                run = while_loading if form in LOADED else in_layout
                found[form] = told(run, *model, names, form, root / form)
        return found


# ------------------------------------------------------------------------------------------------ the table


@cache
def families() -> list[str]:
    return [family for family in ref.families() if "tasks" in ref.fixture(family)]


def table(found: dict[str, dict[str, str]]) -> str:
    """Reasons are numbered below. A dash: not asked."""
    reasons: list[str] = []

    def short(text: str) -> str:
        if text in ("✓", "", "no table") or text[:1].isdigit():
            return text or "–"
        text = text.splitlines()[0][:160]
        if text not in reasons:
            reasons.append(text)
        return f"[{reasons.index(text) + 1}]"

    columns = [FIRST, *COLUMNS]
    lines = [f"| family | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for family in sorted(found):
        lines.append(f"| {family} | {' | '.join(short(found[family].get(column, '')) for column in columns)} |")
    notes = [f"{at}. {text}" for at, text in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes])


def untabled(text: str) -> dict[str, dict[str, str]]:
    """What `table` was made of, but for what it left out of reasons."""
    heads, _, *lines = text.strip().splitlines()
    columns = [cell.strip() for cell in heads.strip("|").split("|")][1:]
    notes = {f"[{at}]": reason for at, _, reason in (line.partition(". ") for line in lines) if at.isdigit()}
    found = {}
    for line in lines:
        if line.startswith("|"):
            family, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found[family] = {key: notes.get(cell, cell).replace("–", "") for key, cell in zip(columns, cells)}
    return found


def parts() -> tuple[str, str, str]:
    """The document before the table, the table, and the document behind it."""
    before, _, rest = DOC.read_text().partition(BEGIN)
    return before, *rest.partition(END)[::2]


def write(found: dict[str, dict[str, str]]) -> None:
    before, _, after = parts()
    DOC.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{after}")


def main() -> None:
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    found = untabled(parts()[1])
    for family, text in (json.loads(PEER.read_text()) if PEER.exists() else {}).items():
        found.setdefault(family, {})[FIRST] = text
    asked = sys.argv[1:] or [family for family in families() if set(COLUMNS) - set(found.get(family, {}))]
    write(found)
    for family in families() if asked == ["all"] else asked:
        found[family] = found.get(family, {}) | row(family)
        cells = [found[family][form] for form in COLUMNS]
        print(f"{family:24s}", " ".join("✓" if each == "✓" else each[:60] for each in cells), flush=True)
        write(found)  # a long run may be stopped


if __name__ == "__main__":
    main()
