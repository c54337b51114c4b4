"""pellucid bench: what it measures, that its table of a step adds up, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from models import tiny as models
from pellucid.cli import _profile, bench
from pellucid.engine import replayed
from pellucid.engine.decoding.line import Line
from pellucid.models.model import Model
from pellucid.models.plan import plan
from pellucid.ops.cpu import steps

FAST = ("--repeats", "1", "--new", "4", "--prompt", "12", "--threads", "1")


@pytest.fixture(autouse=True)
def known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 GB/s; and the threads as they were."""
    monkeypatch.setattr(bench, "read_rate", lambda cores: 1e10)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)


@pytest.fixture
def measured(call: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    def measured(*options: object) -> dict[str, Any]:
        result = call("bench", *options, *FAST)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout.splitlines()[-1]))

    return measured


def test_the_figures_of_peers_and_the_page(call: Callable[..., Any]) -> None:
    result = call("bench", *FAST, "--batch", "1,3", "--context", "16,40")
    found = json.loads(result.stdout.splitlines()[-1])
    for name in ("load_s", "prefill_tok_s", "decode_tok_s", "batch3_tok_s", "depth40_tok_s", "peak_rss_gb"):
        assert found[name] > 0, name
    assert (found["prompt"], found["short"], found["new"], found["dtype"]) == (12, 16, 4, "float32")
    assert found["bytes_per_token"] == plan(context=18, measure=False).read
    assert found["bandwidth_share"] == pytest.approx(found["decode_tok_s"] * found["bytes_per_token"] / 1e10, rel=1e-3)
    for word in ("decode", "batch 3", "depth 40", "10.0 GB/s", "of it in decode", "GiB"):
        assert word in result.stdout
    assert len(call("bench", *FAST, "--json").stdout.splitlines()) == 1


def test_what_is_run_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many forwards of so many tokens: prompts are read whole, and rows decode together."""
    seen: list[int] = []
    run = Model.run

    def noted(self: Model, x_ND: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(x_ND))
        return run(self, x_ND, *rest)

    monkeypatch.setattr(Model, "run", noted)
    monkeypatch.setattr(replayed, "replays_of", lambda runner: None)  # a recorded step does not come by
    asked = bench.Asked(12, 4, [3], [20], 1, None, None)
    bench.measure(pellucid.hub.default_model(), asked)
    one = [16, 1, 1, 1]
    assert seen == [8, 12, *one, *one, *(3 * n for n in one), 20, 1, 1, 1, 1]


@pytest.mark.parametrize("family", ["gemma2", "jamba", "llama", "qwen2_moe"])
def test_a_step_adds_up(family: str, tmp_path: Path, measured: Callable[..., dict[str, Any]]) -> None:
    """Kinds are whole and apart; the bytes are those that the plan says of a step."""
    models.make(family).save_pretrained(tmp_path)
    found = measured(tmp_path, "--profile", "--context", "20")
    rows = {row["kind"]: row for row in found["profile"]}
    assert found["profile_replayed"] == (family in ("gemma2", "llama") and steps.library() is not None)
    if found["profile_replayed"]:
        assert all(sum(row["by"].values()) == pytest.approx(row["ms"], rel=1e-3) for row in found["profile"][:-2])
        assert set(rows["attention"]["by"]) >= {"attend", "write"}
    assert all(row["ms"] > 0 for row in rows.values()) and list(rows) == [k for k in _profile.KINDS if k in rows]
    assert sum(row["ms"] for row in rows.values()) == pytest.approx(found["profiled_step_ms"], rel=1e-3)
    assert {"norms", "attention products", "mlp products", "attention", "sampling", "rest"} <= set(rows)
    assert ("recurrence" in rows) == (family == "jamba")
    wanted = plan(tmp_path, context=22, measure=False).read
    said = sum(row["bytes"] for row in rows.values())
    assert said == pytest.approx(wanted, rel=0.2 if family in ("jamba", "qwen2_moe") else 1e-3)  # which experts: chance
    assert rows["mlp products"]["share"] == pytest.approx(rows["mlp products"]["gb_per_s"] / 10, rel=1e-3)


def test_packed_weights_count_as_they_lie(tmp_path: Path, measured: Callable[..., dict[str, Any]]) -> None:
    gguf_models = pytest.importorskip("gguf_models")
    sizes = {"hidden_size": 256, "head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    models.make("llama", **sizes, intermediate_size=256).save_pretrained(tmp_path)
    path = gguf_models.write(tmp_path, tmp_path / "x.gguf", gguf_models.Kind.Q4_K)
    found = measured(path, "--profile")
    said = sum(row["bytes"] for row in found["profile"])
    assert said == pytest.approx(plan(path, context=18, measure=False).read, rel=1e-3)


def test_measuring_leaves_nothing_behind() -> None:
    model = pellucid.AutoModelForCausalLM.from_pretrained()
    choose, meter = Line.choose, _profile.Meter()
    with pytest.raises(ZeroDivisionError), _profile.wrapped(model, meter.timed), _profile.choices(meter):
        assert Line.choose is not choose and "forward" in model.blocks[0].__dict__
        model(torch.tensor([[5, 6]]))
        raise ZeroDivisionError
    assert Line.choose is choose and not any("forward" in module.__dict__ for module in model.modules())
    assert meter.runs["blocks.0"] == 1 and meter.seconds["norms"] > 0


def test_the_page_says_which_steps_it_is_about(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said = call("bench", *FAST, "--profile").stdout
    assert "\nreplayed; behind 16 tokens" in said or steps.library() is None
    monkeypatch.setattr(replayed, "replays_of", lambda runner: None)
    assert "\ncomputed by the modules" in call("bench", *FAST, "--profile").stdout


@pytest.mark.parametrize("family, task", [("bert", "masked-lm"), ("bert", "sequence-classification")])
def test_a_model_that_decodes_nothing(
    family: str, task: Any, tmp_path: Path, call: Callable[..., Any], measured: Callable[..., dict[str, Any]]
) -> None:
    models.make(family, task).save_pretrained(tmp_path)
    found = measured(tmp_path, "--batch", "1,2")
    assert found["prefill_tok_s"] > 0 and found["batch2_prefill_tok_s"] > 0 and "decode_tok_s" not in found
    assert "nothing" in call("bench", tmp_path, *FAST).stdout
    assert "leave --profile out" in call("bench", tmp_path, *FAST, "--profile").stderr


def test_an_encoder_beside_a_decoder(tmp_path: Path, measured: Callable[..., dict[str, Any]]) -> None:
    models.make("t5").save_pretrained(tmp_path)
    found = measured(tmp_path, "--profile")
    assert found["task"] == "seq2seq-lm" and found["decode_tok_s"] > 0 and found["profile"]


@pytest.mark.parametrize(
    "options, says",
    [
        (["--batch", "nonsense"], "1,8"), (["--batch", "0"], "1,8"), (["--batch", "1,,2"], "1,8"),
        (["--batch", ""], "1,8"), (["--context", "0"], "1,8"), (["--context", "-3"], "1,8"),
        (["--context", "100000"], "512"), (["--prompt", "513"], "512"), (["--new", "0"], "1 or more"),
        (["--new", "500"], "512"), (["--repeats", "0"], "1 or more"), (["--threads", "0"], "1 or more"),
        (["--prompt", "0"], "1 or more"), (["--dtype", "int3"], "dtype"), (["/nowhere/at/all"], "no folder"),
    ],
    ids=str,
)  # fmt: skip
def test_what_it_refuses(call: Callable[..., Any], options: list[str], says: str) -> None:
    result = call("bench", *options)
    assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output


def test_a_file_that_is_no_model(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    (tmp_path / "note.txt").write_text("a note")
    for name in ("x.gguf", "note.txt"):
        result = call("bench", tmp_path / name)
        assert result.exit_code == 2 and "next:" in result.output
