"""pellucid embed, rerank and completion at the terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid import gguf

sys.path.append(str(Path(__file__).parents[1] / "tasks"))
from test_sentences import QUERY, TENSORS, TEXTS, lay_out  # noqa: E402

LINES = [text for text in TEXTS if text]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out("prompts", tmp_path_factory.mktemp("embed"))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


def vectors(model: Path, **options: Any) -> np.ndarray:
    return pellucid.SentenceTransformer(model).encode(LINES, **options)


def test_a_few_texts_are_shown_with_their_similarities(call: Callable[..., Any], model: Path) -> None:
    shown = call("embed", "-m", model, *LINES[:3]).stdout
    assert [f"{n}  {text}" in shown for n, text in enumerate(LINES[:3], 1)] == [True] * 3
    encoder = pellucid.SentenceTransformer(model)
    scores = encoder.similarity(encoder.encode(LINES[:3]), encoder.encode(LINES[:3]))
    found = [[float(x) for x in re.findall(r"-?\d\.\d{4}", line)] for line in shown.splitlines()[-3:]]
    np.testing.assert_allclose(found, scores, atol=6e-5)
    assert "cosine" not in call("embed", "-m", model, LINES[0]).stdout


def test_lines_of_json(call: Callable[..., Any], model: Path, lines: Path) -> None:
    asked = ("embed", "-m", model, "--json")
    of_file = call(*asked, "--file", lines).stdout
    found = [json.loads(line) for line in of_file.splitlines()]
    assert [each["text"] for each in found] == LINES
    np.testing.assert_allclose([each["vector"] for each in found], vectors(model), atol=2e-6)
    assert found[-1]["tokens"] == 20 and found[-1]["dropped"] > 0 and found[0]["dropped"] == 0
    assert call(*asked, "-", input=lines.read_bytes()).stdout == of_file
    assert call(*asked, *LINES).stdout == of_file
    plain = call("embed", "-m", model, "-", input=lines.read_bytes()).stdout
    np.testing.assert_allclose(np.loadtxt(plain.splitlines()), vectors(model), atol=1e-5)


@pytest.mark.parametrize("task", ["query", "document"])
def test_a_route_is_named_by_its_task(call: Callable[..., Any], tmp_path: Path, task: str) -> None:
    done = call("embed", "-m", lay_out("ways", tmp_path), "--task", task, "--json", *LINES).stdout
    wanted = [row for row, text in zip(TENSORS[f"ways {task}"].numpy(), TEXTS) if text]
    np.testing.assert_allclose([json.loads(line)["vector"] for line in done.splitlines()], wanted, atol=2e-6)


@pytest.mark.parametrize(
    "given, options",
    [
        ([], {}), (["--prompt", "red fox : "], {"prompt": "red fox : "}),
        (["--prompt-name", "passage"], {"prompt_name": "passage"}), (["--windows"], {"windows": True}),
        (["--dim", "3", "--normalize"], {"truncate_dim": 3, "normalize_embeddings": True}),
    ],
    ids=str,
)  # fmt: skip
def test_a_file_of_vectors(call: Callable[..., Any], model: Path, lines: Path, given: Any, options: Any) -> None:
    out = lines.with_name("vectors.npy")
    done = call("embed", "-m", model, "--file", lines, "--out", out, *given)
    found = np.load(out)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors(model, **options), atol=2e-6)
    assert f"{len(LINES)} vectors of {found.shape[1]} dimensions" in done.stderr
    assert sorted(path.name for path in out.parent.iterdir()) == ["lines.txt", "vectors.npy"]


def test_a_file_that_fails_leaves_what_was_there(call: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "vectors.npy", tmp_path / "bad.txt"
    out.write_bytes(b"before")
    bad.write_bytes(b"a red fox\n\xff\n")
    assert call("embed", "-m", model, "--file", bad, "--out", out).exit_code == 2
    assert out.read_bytes() == b"before" and sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.txt",
        "vectors.npy",
    ]


def test_a_disk_that_is_full_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the header, which is written last, has no room either."""
    import torch

    from pellucid.cli.embed import Vectors
    from pellucid.tasks.sentences import Embedding

    def full(self: Vectors) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), Vectors(tmp_path / "vectors.npy") as file:
        file.add(Embedding(torch.ones(3), 1))
        monkeypatch.setattr(Vectors, "_header", full)
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_what_is_done(model: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pellucid import cli
from pellucid.cli import embed
add, done = embed.Vectors.add, 0
def counted(self, one):
    global done
    add(self, one)
    done += 1
    if done == 3:
        os.kill(os.getpid(), signal.SIGINT)
embed.Vectors.add = counted
cli.main(["embed", "-m", {str(model)!r}, "--out", "v.npy", "-"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(LINES * 50), capture_output=True, text=True, cwd=tmp_path,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    found = np.load(tmp_path / "v.npy")
    assert len(found) == 3 and "stopped; what is done is kept" in done.stderr
    np.testing.assert_allclose(found, vectors(model)[: len(found)], atol=2e-6)


@pytest.mark.parametrize(
    "args, says",
    [
        ([], "give TEXT"), (["a", "--file", "b"], "give TEXT"), (["--file", "/nowhere"], "there is no file"),
        (["a", "--prompt-name", "web"], "no prompt 'web'"), (["a", "--dim", "0"], "--dim"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_refused(call: Callable[..., Any], model: Path, args: list[str], says: str) -> None:
    result = call("embed", "-m", model, *args)
    assert result.exit_code == 2 and says in result.stderr


def test_a_gguf_file_of_a_sentence_model_pools_as_its_folder(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = lay_out("cls", tmp_path)
    said = call("convert", folder, tmp_path / "m.gguf", "--dtype", "f32").stdout
    assert "left out, as a GGUF file cannot say it" not in said
    assert gguf.read(tmp_path / "m.gguf").metadata["bert.pooling_type"] == 2
    found = pellucid.SentenceTransformer(tmp_path / "m.gguf").encode(LINES)
    np.testing.assert_allclose(found, pellucid.SentenceTransformer(folder).encode(LINES), atol=1e-5)
    said = call("quantize", lay_out("dense", tmp_path), tmp_path / "q.gguf", "--to", "f16", "--no-measure").stdout
    assert "left out, as a GGUF file cannot say it: Dense, Normalize" in said
    assert gguf.read(tmp_path / "q.gguf").metadata["bert.pooling_type"] == 1


def test_rerank(call: Callable[..., Any], tmp_path: Path, lines: Path) -> None:
    folder = lay_out("cross", tmp_path / "models")
    ranks = [i for i in TENSORS["cross ranks"].tolist() if TEXTS[i]]
    wanted = [LINES.index(TEXTS[i]) for i in ranks]
    shown = call("rerank", "-m", folder, QUERY, "--file", lines).stdout.splitlines()
    assert [int(line.split()[1]) for line in shown] == wanted
    assert LINES[wanted[0]] in shown[0] and any("tokens dropped)" in line for line in shown)
    found = json.loads(
        call("rerank", "-m", folder, QUERY, "-", "--top-k", 2, "--json", input=lines.read_bytes()).stdout
    )
    assert [each["corpus_id"] for each in found] == wanted[:2]
    assert call("rerank", "-m", folder, QUERY).exit_code == 2
    refused = call("rerank", "-m", lay_out("transformer", tmp_path), QUERY, "a")
    assert refused.exit_code == 2 and "not trained" in refused.stderr


def test_rerank_by_a_language_model(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = lay_out("cross-judge-bare", tmp_path)
    done = call("rerank", "-m", folder, QUERY, *LINES, "--prompt", "dog : ", "--json")
    wanted = TENSORS["cross-judge-bare prompt"].numpy()[[TEXTS.index(line) for line in LINES]]
    for one in json.loads(done.stdout):
        np.testing.assert_allclose(one["score"], wanted[one["corpus_id"]], atol=2e-6)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(call: Callable[..., Any], shell: str) -> None:
    script = call("completion", shell).stdout
    assert "_PELLUCID_COMPLETE" in script
    assert json.loads(call("completion", shell, "--json").stdout) == {
        "shell": shell,
        "script": script.removesuffix("\n"),
    }
    assert call("completion", "csh").exit_code == 2


def test_a_shell_is_told_commands_and_options() -> None:
    def told(words: str, number: int) -> list[str]:
        env = {**os.environ, "_PELLUCID_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        code = "from pellucid.cli import main; main(prog_name='pellucid')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert told("pellucid em", 1) == ["embed"]
    assert told("pellucid cache ", 2) == ["list", "remove"]
    assert {"--windows", "--prompt", "--prompt-name"} <= set(told("pellucid embed --", 2))
