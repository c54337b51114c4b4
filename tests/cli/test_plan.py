"""pellucid plan: what it says is what a loaded model has; and it says it without torch, without numbers, in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
import reference as ref
from endpoint import serving
from models import tiny as models
from models.tiny import refused
from pellucid import hub
from pellucid.errors import ArgumentError, NotAModel, PellucidError, Unsupported
from pellucid.models import machine, plan, sizes
from pellucid.models.targets import TARGETS, Options
from pellucid.ops.cpu.packed import library
from pellucid.ops.packed import PackedTensor

# Grouped heads, windows, latent vectors, recurrences of every kind, experts, lent keys, a family's own parts.
DECODERS = (
    "bloom", "deepseek_v3", "diffllama", "falcon_h1", "gemma2", "gemma4_text", "gpt2", "gpt_oss", "jamba",
    "kimi_linear", "lfm2", "llama", "longcat_flash", "mamba2", "minimax", "qwen3_next", "recurrent_gemma", "rwkv",
    "zamba2",
)  # fmt: skip

BLOCKS = {
    "hidden_size": 256, "head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
}  # fmt: skip


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> machine.Machine:
    """A machine of round numbers: 10 GB/s, 100 GFLOP/s; 8 GB free, no accelerator."""
    here = machine.Machine("a processor", 2, 1e10, 1e11, "2026-01-02")
    monkeypatch.setattr(plan, "machine", lambda again=False: here)
    monkeypatch.setattr(plan, "accelerators", dict)
    monkeypatch.setattr(plan, "free_memory", lambda: 8_000_000_000)
    return here


def held(model: torch.nn.Module) -> int:
    """Bytes of the parameters of a model, tied ones once, packed ones as they lie."""
    once = {id(p): p for p in torch.nn.Module.parameters(model)}.values()
    parts = (p.parts.values() if isinstance(p, PackedTensor) else [p] for p in once)
    return sum(part.nbytes for some in parts for part in some)


def decoder(family: str) -> Any:
    """A causal model of a fixture; a few of its keys only say in what pieces the reference computes."""
    keys = {k: v for k, v in ref.fixture(family)["config"].items() if k not in ("chunk_size", "mamba_chunk_size")}
    config = pellucid.AutoConfig.for_model(keys.pop("model_type"), **keys)
    return pellucid.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("family", DECODERS)
def test_bytes_are_those_of_the_loaded_model(family: str, tmp_path: Path) -> None:
    """Weights; and the cache's own pages and states, before and after a window has given pages back."""
    made = decoder(family)
    made.save_pretrained(tmp_path)
    tokens = min(made.spec.context or 200, 200) - 1
    model = models.auto(family).from_pretrained(tmp_path, dtype="bfloat16")
    found = pellucid.plan(tmp_path, context=tokens + 1, batch=2, dtype="bfloat16")
    assert sum(found.weights.values()) == held(model)
    assert found.parameters == model.num_parameters() and found.fits and found.dtype == "bfloat16"
    ids = models.ids(2, tokens) % made.spec.vocab
    with torch.inference_mode():
        cache = model(ids, use_cache=True).past_key_values
        model(ids[:, :1], past_key_values=cache)
    assert found.cache == cache.nbytes
    assert found.total == sum(found.weights.values()) + found.cache + found.activations


@pytest.mark.parametrize(
    "family, task", [("bert", "masked-lm"), ("bert", "sequence-classification"), ("t5", "seq2seq-lm"), ("albert", None)]
)
def test_other_tasks(family: str, task: Any, tmp_path: Path) -> None:
    made = models.make(family, task)
    made.save_pretrained(tmp_path)
    found = pellucid.plan(tmp_path, task=task, context=20, batch=3)
    assert sum(found.weights.values()) == held(ref.our_class(task).from_pretrained(tmp_path)) or task is None
    assert (found.decode is None) == (task != "seq2seq-lm") and found.prompt
    assert bool(found.cache) == (task == "seq2seq-lm")


@pytest.mark.parametrize("kind, options", [("nf4", {"load_in_4bit": True}), ("int8", {"load_in_8bit": True})])
def test_packed_while_loading(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    models.make("llama", hidden_size=256, intermediate_size=512).save_pretrained(tmp_path)
    found = pellucid.plan(tmp_path, quantization=kind)
    model = models.auto("llama").from_pretrained(tmp_path, plan=found)
    assert models.auto("llama").from_pretrained(tmp_path, **options).config.quantization_config is not None
    assert kind in found.weights  # beside codes and scales a matrix has a few bytes that say how it is packed
    assert sum(found.weights.values()) == pytest.approx(held(model), rel=5e-3)
    with refused(Unsupported, "pellucid quantize"):
        models.auto("llama").from_pretrained(tmp_path, plan=pellucid.plan(tmp_path, quantization="q4_k_m"))


def test_a_file_of_packed_blocks(tmp_path: Path) -> None:
    gguf_models = pytest.importorskip("gguf_models")
    models.make("llama", **BLOCKS).save_pretrained(tmp_path)
    path = gguf_models.write(tmp_path, tmp_path / "x.gguf", gguf_models.Kind.Q8_0)
    found = pellucid.plan(path)
    model = models.auto("llama").from_pretrained(path)
    assert sum(found.weights.values()) == held(model)
    assert pellucid.plan(tmp_path, quantization="q8_0").weights == found.weights
    with torch.inference_mode():
        pages = model(torch.tensor([[1, 2, 3]])).past_key_values.pages.groups.values()
    assert found.cache_of_token * 32 == sum(group.page_bytes for group in pages)


@pytest.mark.parametrize("target", ["fp8", "hqq-4", "int8", "w4a16", "w8a16"])
def test_formats_of_linear_layers(target: str, tmp_path: Path) -> None:
    models.make("llama", **BLOCKS).save_pretrained(tmp_path / "before")
    TARGETS[target].run(tmp_path / "before", tmp_path / "after", Options())
    before, after = pellucid.plan(tmp_path / "before", quantization=target), pellucid.plan(tmp_path / "after")
    assert sum(after.weights.values()) == held(models.auto("llama").from_pretrained(tmp_path / "after"))
    assert sum(before.weights.values()) == pytest.approx(sum(after.weights.values()), rel=5e-3)


@pytest.mark.skipif(library() is None, reason="no native kernel: float16 is widened")
@pytest.mark.parametrize("dtype", [None, "float16", "float32"])
def test_a_gguf_file_in_float16(dtype: str | None, tmp_path: Path) -> None:
    """Matrices stay as they are, unless something else is asked for."""
    models.make("llama", **BLOCKS, num_hidden_layers=2).save_pretrained(tmp_path)
    TARGETS["f16"].run(tmp_path, tmp_path / "x.gguf", Options())
    model = models.auto("llama").from_pretrained(tmp_path / "x.gguf", dtype=dtype)
    found = pellucid.plan(tmp_path / "x.gguf", dtype=dtype)
    assert sum(found.weights.values()) == held(model)
    assert ("F16" in found.weights) == (dtype != "float32")


@pytest.mark.parametrize("target", ["q4_k_m", "q3_k_s", "q4_0"])
def test_before_and_after_quantizing(target: str, tmp_path: Path) -> None:
    """What is planned for a target is what `pellucid quantize` writes and a model then holds."""
    models.make("llama", **BLOCKS, num_hidden_layers=4).save_pretrained(tmp_path)
    before = pellucid.plan(tmp_path, quantization=target)
    TARGETS[target].run(tmp_path, tmp_path / "x.gguf", Options())
    after = pellucid.plan(tmp_path / "x.gguf")
    assert after.weights == before.weights and (after.read, after.dtype) == (before.read, before.dtype)
    assert sum(after.weights.values()) == held(models.auto("llama").from_pretrained(tmp_path / "x.gguf"))


def test_the_formulas(known_machine: machine.Machine) -> None:
    """By hand for the default model: 5 layers of width 64, 8 heads over 4, 172 hidden, 512 tokens, tied."""
    found = pellucid.plan(context=100, batch=2)
    layer = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 172
    numbers = 512 * 64 + 5 * (layer + 2 * 64) + 64
    assert found.parameters == numbers and found.weights == {"F32": 4 * numbers}
    token = 5 * 4 * 2 * 32  # layers, bytes, keys and values, channels
    assert found.cache_of_token == token and found.cache == 2 * 128 * token  # pages of 32
    assert found.read == 4 * numbers + 2 * 100 * token
    assert found.decode == pytest.approx(2 / (found.read / 1e10))
    work = 2 * 5 * layer * 100 + 5 * 2 * (100 * 101 / 2) * 8 * (8 + 8)
    assert found.prompt == pytest.approx(100 / (work / 1e11))
    wide = pellucid.plan(context=100, batch=100_000, memory="100TB")
    assert wide.decode is not None and wide.decode < 100_000 / (wide.read / 1e10) * 1.0001


def test_experts_are_read_as_they_are_chosen(tmp_path: Path) -> None:
    models.make("mixtral").save_pretrained(tmp_path)
    one, many = (pellucid.plan(tmp_path, batch=batch, context=32) for batch in (1, 64))
    moe = next(sizes.each(models.make("mixtral").spec.stack.blocks, sizes.s.Moe))
    assert one.read < sum(one.weights.values()) and moe.router.top_k < moe.experts
    rows = 63 * 32 * one.cache_of_token
    assert many.read - one.read - rows < sum(one.weights.values()) - one.read + 32 * one.cache_of_token


def test_the_longest_context_is_the_longest(tmp_path: Path) -> None:
    models.make("llama", max_position_embeddings=100_000).save_pretrained(tmp_path)
    found = pellucid.plan(tmp_path, memory=3_000_000)
    assert found.longest is not None and 100 < found.longest < 100_000
    at, after = (pellucid.plan(tmp_path, memory=3_000_000, context=found.longest + n) for n in (0, 1))
    assert at.fits and not after.fits and any("does not fit" in note for note in after.notes)
    assert pellucid.plan(tmp_path).longest == 100_000


def test_devices_are_filled_in_order(tmp_path: Path) -> None:
    models.make("llama", num_hidden_layers=12).save_pretrained(tmp_path)
    whole = pellucid.plan(tmp_path, context=64)
    sizes = {0: whole.total // 3, "1": whole.total // 3, "cpu": whole.total // 3, "disk": None}
    found = pellucid.plan(tmp_path, context=64, devices=sizes)
    order = list(dict.fromkeys(found.placement.values()))
    assert order == ["cuda:0", "cuda:1", "cpu", "disk"]
    assert [share.device for share in found.devices] == order and sum(share.blocks for share in found.devices) == 12
    assert all(share.weights + share.cache <= share.room for share in found.devices if share.room is not None)
    assert sum(share.weights for share in found.devices) == sum(whole.weights.values())
    assert sum(share.cache for share in found.devices) == whole.cache and found.decode is None
    assert set(pellucid.plan(tmp_path, devices="cuda:0=1GB,cpu").placement.values()) == {"cuda:0"}


def test_tied_heads_and_lenders_stay_together(tmp_path: Path) -> None:
    models.make("gpt2").save_pretrained(tmp_path / "tied")
    found = pellucid.plan(tmp_path / "tied", devices="cuda:0=40kB,cpu=1GB", context=8)
    assert "lm_head" not in found.placement or found.placement["lm_head"] == found.placement["embed"]
    models.make("gemma4_text").save_pretrained(tmp_path / "lent")
    found = pellucid.plan(tmp_path / "lent", devices="cuda:0=40kB,cpu=1GB", context=8)
    assert len(set(found.placement.values())) == 1 and any("one device" in note for note in found.notes)


# ------------------------------------------------------------------------------------------------ the hub


class Hub:
    """A model on the hub: files in a folder, of which pieces are read and counted."""

    def __init__(self, folder: Path) -> None:
        self.name, self.folder, self.bytes = "org/model", folder, 0
        self.sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}

    def read(self, file: str, begin: int, end: int) -> bytes:
        data = (self.folder / file).read_bytes()[begin:end]
        self.bytes += len(data)
        return data


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Hub]:
    def remote(folder: Path) -> Hub:
        there = Hub(folder)
        monkeypatch.setattr(hub, "Remote", lambda *given: there)
        monkeypatch.setattr(hub, "_reachable", lambda: True)
        monkeypatch.setattr(hub, "_fetch", lambda name, want, *rest: folder if want == "config" else pytest.fail(want))
        monkeypatch.setattr(hub, "HEAD", 2**12)
        return there

    return remote


@pytest.mark.parametrize("shards", ["50GB", "100KB"])
def test_a_model_on_the_hub_is_planned_from_its_headers(
    remote: Callable[[Path], Hub], tmp_path: Path, shards: str
) -> None:
    models.make("llama", vocab_size=4001).save_pretrained(tmp_path, max_shard_size=shards)
    there = remote(tmp_path)
    found = pellucid.plan("org/model", offline=False)
    here = pellucid.plan(tmp_path)
    assert found.weights == here.weights and found.placement == here.placement and found.model == "org/model"
    assert there.bytes < sum(there.sizes.values()) / 4


def test_a_gguf_file_on_the_hub(remote: Callable[[Path], Hub], tmp_path: Path) -> None:
    """Its header does not say how long it is: pieces are read until it is whole."""
    gguf_models = pytest.importorskip("gguf_models")
    models.make("llama", vocab_size=4001).save_pretrained(tmp_path / "hf")
    (tmp_path / "hub").mkdir()
    path = gguf_models.write(tmp_path / "hf", tmp_path / "hub" / "x.gguf", padding="p" * 2**13)
    there = remote(tmp_path / "hub")
    found = pellucid.plan("org/model", offline=False)
    assert found.weights == pellucid.plan(path).weights and there.bytes < there.sizes["x.gguf"] / 4
    (tmp_path / "hub" / "y.gguf").write_bytes(path.read_bytes())
    remote(tmp_path / "hub")
    with refused(NotAModel, "x.gguf, y.gguf"):
        pellucid.plan("org/model", offline=False)
    assert pellucid.plan("org/model", offline=False, gguf_file="y.gguf").weights == found.weights


def test_the_hubs_own_client(tmp_path: Path) -> None:
    """Over a socket of this machine: the config and the first megabyte are asked for, and no more."""
    (tmp_path / "hub").mkdir()
    models.make("llama", vocab_size=20_001, hidden_size=64).save_pretrained(tmp_path / "hub")
    with serving(tmp_path / "hub", tmp_path) as (handler, there):
        code = "import json, pellucid; print(json.dumps(dict(pellucid.plan('org/model', measure=False).weights)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **there})
        lost = "import pellucid; pellucid.plan('org/nowhere', measure=False)"
        none = subprocess.run([sys.executable, "-c", lost], capture_output=True, text=True, env={**os.environ, **there})
    assert done.returncode == 0, done.stderr
    wanted = sum(file.stat().st_size for file in (tmp_path / "hub").glob("*.safetensors"))
    assert json.loads(done.stdout) == dict(pellucid.plan(tmp_path / "hub").weights)
    assert wanted > 5_000_000 and sum(handler.given) < 1_200_000
    assert "there is no 'org/nowhere'" in none.stderr


def test_offline_opens_no_socket() -> None:
    with refused(NotAModel, "offline"):
        pellucid.plan("org/nowhere", offline=True)


# ------------------------------------------------------------------------------------------------ the command


def test_the_page(call: Callable[..., Any]) -> None:
    said = call("plan", "--context", "64").output
    for word in ("260,032 parameters", "F32 1.04 MB", "1.28 kB a token", "decode", "a processor, 2 cores", "cpu"):
        assert word in said, word
    found = json.loads(call("plan", "--json", "--batch", "2").stdout)
    assert found["total"] == sum(found["weights"].values()) + found["cache"] + found["activations"]
    assert found["placement"]["blocks.0"] == "cpu" and found["machine"]["cores"] == 2


@pytest.mark.parametrize(
    "options, says",
    [
        (["--context", "0"], "context=0"), (["--context", "-3"], "context=-3"), (["--batch", "0"], "batch=0"),
        (["--batch", "nonsense"], "integer"), (["--dtype", "bfloat61"], "bfloat16"), (["--memory", "much"], "8GB"),
        (["--memory", "-1"], "8GB"), (["--memory", "0"], "8GB"), (["--devices", "gpu"], "cuda:0"),
        (["--devices", "cuda:7"], "cuda:7=24GB"), (["--devices", ""], "no device"), (["--quantization", "q9"], "nf4"),
        (["--devices", "cpu=x"], "no size"),
    ],
    ids=str,
)  # fmt: skip
def test_odd_options(call: Callable[..., Any], options: list[str], says: str) -> None:
    result = call("plan", *options)
    assert result.exit_code == 2 and says in result.output


def test_odd_models(call: Callable[..., Any], tmp_path: Path, folder: Path) -> None:
    (tmp_path / "note.txt").write_text("no model")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 90)
    (folder / "model.safetensors").write_bytes(b"\xff" * 30)
    for path in ("note.txt", "broken.gguf", "nowhere", "model"):
        result = call("plan", tmp_path / path)
        assert result.exit_code == 2 and "next:" in result.output and "Traceback" not in result.output
    (folder / "model.safetensors").unlink()
    assert "no weights" in call("plan", folder).output


def test_it_needs_no_torch() -> None:
    code = "import sys, pellucid; p = pellucid.plan(measure=False); assert 'torch' not in sys.modules; print(p.total)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 1_040_000, done.stderr


# ------------------------------------------------------------------------------------------------ the machine


def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "READ", 2**20)
    monkeypatch.setattr(machine, "SIDE", 64)
    first = machine.machine()
    (kept,) = (tmp_path / "machines").iterdir()
    assert machine.machine() == first and first.read > 1e8 and first.multiply > 1e7 and first.cores >= 1
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "read": 5.0}))
    assert machine.machine().read == 5.0 != machine.machine(again=True).read
    for broken in ("", "{}", "[]", '{"read": -1}', json.dumps({**vars(first), "read": 0})):
        kept.write_text(broken)
        assert machine.machine().read > 1e8
    monkeypatch.setenv("PELLUCID_CACHE", "")
    assert machine.machine().read > 1e8


@pytest.mark.parametrize(
    "given, wanted",
    [(5, 5), ("5", 5), ("8GB", 8 * 10**9), ("8 GiB", 2**33), ("1.5mb", 1_500_000), ("2k", None), ("", None),
     (True, None), ("0", None), (None, None), ("GB", None)],
)  # fmt: skip
def test_sizes(given: object, wanted: int | None) -> None:
    if wanted is None:
        with refused(ArgumentError, "no size"):
            plan.nbytes(given, "memory")
    else:
        assert plan.nbytes(given, "memory") == wanted


def test_arguments() -> None:
    for options in ({"batch": 1.5}, {"batch": True}, {"context": "x"}, {"devices": {}}, {"task": "nonsense"}):
        with pytest.raises(PellucidError):
            pellucid.plan(**options)


def test_rates_are_read_at_a_glance():
    from pellucid.cli.plan import rate

    assert [rate(x) for x in (99812.3, 1234567, 345.6, 3.14159, 0.0123)] == [
        "99,800", "1,230,000", "346", "3.14", "0.0123",
    ]  # fmt: skip
