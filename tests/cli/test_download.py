"""pellucid download and pellucid cache: files alone, from a hub on this machine; nothing is loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from endpoint import COMMIT, MB, Endpoint, serving

FILES = {
    "config.json": b"{}", "tokenizer.json": b"{}", "README.md": b"# A model", "model.safetensors": b"s" * 300_000,
    "pytorch_model.bin": b"p" * 1000, "onnx/model.onnx": b"o" * 1000, "modules.json": b"[]",
    "1_Pooling/config.json": b"{}", "2_Dense/model.safetensors": b"d" * 10, "2_Dense/notes.txt": b"n",
    "config_sentence_transformers.json": b"{}", "odd [1].txt": b"odd",
}  # fmt: skip
READ = {name for name in FILES if not name.startswith(("onnx", "pytorch", "odd")) and name != "2_Dense/notes.txt"}
# Runs a command line and says whether torch came along.
ALONE = """
import sys
from pellucid.cli import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.fixture
def there(tmp_path: Path) -> Any:
    for name, data in FILES.items():
        path = tmp_path / "hub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with serving(tmp_path / "hub", tmp_path / "home") as found:
        yield found


@pytest.fixture
def run(there: tuple[type[Endpoint], dict[str, str]]) -> Callable[..., Any]:
    """`run("download", "org/model")` in a process of its own, whose hub is here."""

    def run(*args: str, code: int = 0, **env: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", ALONE, *args], capture_output=True, text=True, env={**os.environ, **there[1], **env}
        )
        assert done.returncode == code, done.stderr
        assert done.stderr.endswith("False\n"), "torch was imported"
        return done

    return run


def fetched(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_pellucid_reads_is_fetched_once(run: Any, there: Any) -> None:
    done = run("download", "org/model")
    assert fetched(done.stdout.strip()) == {name: FILES[name] for name in READ}
    assert "left out: " in done.stderr and "onnx/model.onnx" in done.stderr and COMMIT in done.stderr
    there[0].given.clear()
    again = run("download", "org/model", "--json")
    found = json.loads(again.stdout)
    assert found["bytes"] == sum(len(FILES[name]) for name in READ) and found["commit"] == COMMIT
    assert sum(there[0].given) < 20_000, "only lists of files are asked for again"


@pytest.mark.parametrize(
    "options, names",
    [
        (["--all"], sorted(FILES)),
        (["--include", "*.json"], sorted(name for name in FILES if name.endswith(".json"))),
        (["--include", "odd [[]1].txt"], ["odd [1].txt"]),
        (["--all", "--exclude", "*.safetensors", "--exclude", "onnx/*"],
         sorted(name for name in FILES if not name.endswith(".safetensors") and not name.startswith("onnx"))),
        (["--revision", "v1", "--include", "*.md"], ["README.md"]),
    ],
    ids=str,
)  # fmt: skip
def test_patterns_and_revisions(run: Any, options: list[str], names: list[str]) -> None:
    assert sorted(fetched(run("download", "org/model", *options).stdout.strip())) == names


def test_a_connection_that_breaks_is_taken_up_in_the_file(run: Any, there: Any) -> None:
    size = 24_000_000  # huggingface_hub writes 10 MB at a time
    (there[0].folder / "model.safetensors").write_bytes(bytes(size))
    there[0].breaks["model.safetensors"] = 1
    done = run("download", "org/model", "--include", "model.safetensors")
    assert fetched(done.stdout.strip()) == {"model.safetensors": bytes(size)}
    assert sum(there[0].given) < 1.2 * size, "what had come is not asked for again"


@pytest.mark.parametrize(
    "command", [["download", "org/model"], ["generate", "-m", "org/model", "x"]], ids=["download", "generate"]
)
def test_ctrl_c_stops_a_file_in_its_middle(there: Any, tmp_path: Path, command: list[str]) -> None:
    """What came of it is kept, and the next try goes on behind it; threads would go on to its end."""
    handler, env = there
    (handler.folder / "model.safetensors").write_bytes(bytes(60 * MB))
    handler.pause = 0.1
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **env}, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while sum(handler.given) < 22 * MB and process.poll() is None:  # huggingface_hub writes 10 MB at a time
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130, error
    assert "stopped; the files that came are kept" in error or command[0] != "download"
    assert sum(handler.given) < 40 * MB
    [part] = (tmp_path / "home").rglob("*.part")
    kept, handler.pause = part.stat().st_size, 0.0
    handler.given.clear()
    again = subprocess.run(
        [sys.executable, "-m", "pellucid", "download", "org/model", "--include", "model.safetensors"],
        capture_output=True, text=True, env={**os.environ, **env}, check=True,
    )  # fmt: skip
    assert kept >= 10 * MB and sum(handler.given) < 60 * MB - kept + MB
    assert fetched(again.stdout.strip()) == {"model.safetensors": bytes(60 * MB)}
    assert not list((tmp_path / "home").rglob("*.part"))


def test_a_large_file_is_what_the_hub_says(run: Any, there: Any, tmp_path: Path) -> None:
    """By its SHA-256, which is its name there; a part that cannot be of it is not gone on with."""
    handler, data = there[0], bytes(20 * MB)
    (handler.folder / "model.safetensors").write_bytes(data)
    handler.sums["model.safetensors"] = "0" * 64
    asked = ["download", "org/model", "--include", "model.safetensors"]
    assert f"came with SHA-256 {sha256(data).hexdigest()}" in run(*asked, code=2).stderr
    assert not list((tmp_path / "home").rglob("*.part"))
    handler.sums["model.safetensors"] = sha256(data).hexdigest()
    [blobs] = (tmp_path / "home").rglob("blobs")
    (blobs / f"{sha256(data).hexdigest()}.part").write_bytes(bytes(len(data) + 1))
    assert fetched(run(*asked).stdout.strip()) == {"model.safetensors": data}


def test_a_download_that_failed_keeps_its_files(run: Any, there: Any) -> None:
    there[0].breaks["model.safetensors"] = 100
    failed = run("download", "org/model", code=2)
    assert "the files that came are kept" in failed.stderr
    there[0].breaks.clear()
    there[0].given.clear()
    done = run("download", "org/model")
    assert set(fetched(done.stdout.strip())) == READ
    assert sum(there[0].given) < 1.1 * len(FILES["model.safetensors"])


@pytest.mark.parametrize(
    "args, env, says",
    [
        (["org/nothing"], {}, "there is no 'org/nothing'"),
        (["org/model", "--revision", "nothing"], {}, "no revision 'nothing'"),
        (["org/model", "--include", "*.gguf"], {}, "no file of 'org/model' is left to fetch"),
        (["/tmp/model"], {}, "is no id of the hub"),
        (["org/model", "--all", "--include", "*"], {}, "contradict"),
        (["org/model"], {"HF_HUB_OFFLINE": "1"}, "offline mode is on"),
        (["org/model"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub does not answer"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_fetched(run: Any, args: list[str], env: dict[str, str], says: str) -> None:
    assert says in run("download", *args, code=2, **env).stderr


def test_the_cache_is_listed_and_emptied(run: Any, tmp_path: Path) -> None:
    assert "the cache is empty" in run("cache", "list").stderr
    run("download", "org/model")
    listed = run("cache", "list").stdout
    assert "org/model" in listed and COMMIT[:12] in listed and "main" in listed and "read today" in listed
    (one,) = json.loads(run("cache", "list", "--json").stdout)
    assert one["name"] == "org/model" and one["nbytes"] == sum(len(FILES[name]) for name in READ)
    assert "did you mean 'org/model'" in run("cache", "remove", "org/modl", code=2).stderr
    assert "revisions: aaa" in run("cache", "remove", "org/model", "--revision", "v2", code=2).stderr
    assert "Remove 1 revision" in run("cache", "remove", "org/model", code=1).stderr  # nobody says yes
    assert one["folder"] and Path(one["folder"]).is_dir()
    freed = json.loads(run("cache", "remove", "org/model", "--revision", "main", "--yes", "--json").stdout)["freed"]
    assert freed == one["nbytes"] and not Path(one["folder"]).exists()
    assert "the cache is empty" in run("cache", "list").stderr
