"""Ids from huggingface_hub's cache without a socket; paths never touch the network at all."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from models import tiny
from models.tiny import refused
from pellucid import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, hub, pipeline
from pellucid.errors import NotAModel, PellucidError

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*args: Any, **options: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", blocked)
    monkeypatch.setattr(socket, "create_connection", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    for name in hub.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models--org--story with two revisions and a tag, blobs and links, as huggingface_hub lays it out."""
    root = tmp_path_factory.mktemp("hub")
    repo = root / "models--org--story"
    for commit in (FIRST, SECOND):
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (repo / "blobs").mkdir(exist_ok=True)
        for file in hub.default_model().iterdir():
            blob = repo / "blobs" / f"{commit[0]}-{file.name}"
            shutil.copy(file, blob)
            os.symlink(os.path.relpath(blob, snapshot), snapshot / file.name)
    tiny.make("llama").save_pretrained(repo / "snapshots" / SECOND / "inner")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(SECOND)
    (repo / "refs" / "v1").write_text(FIRST)
    partial = root / "models--org--partial" / "snapshots" / FIRST
    partial.mkdir(parents=True)
    (partial.parents[1] / "refs").mkdir()
    (partial.parents[1] / "refs" / "main").write_text(FIRST)
    shutil.copy(hub.default_model() / "config.json", partial)
    return root


@pytest.mark.usefixtures("no_socket")
def test_an_id_from_the_cache(cache: Path) -> None:
    where: dict[str, Any] = {"cache_dir": cache, "local_files_only": True}
    wanted = AutoModelForCausalLM.from_pretrained()
    for options, commit in (({}, SECOND), ({"revision": "v1"}, FIRST), ({"revision": FIRST}, FIRST)):
        model = AutoModelForCausalLM.from_pretrained("org/story", **where, **options)
        assert commit in model.report.files[0]
        assert torch.equal(tiny.call(model, tiny.ids(1, 5)), tiny.call(wanted, tiny.ids(1, 5)))
        assert AutoConfig.from_pretrained("org/story", **where, **options).vocab_size == 512
        tokenizer = AutoTokenizer.from_pretrained("org/story", **where, **options)
        assert tokenizer.decode(tokenizer.encode("Once"), skip_special_tokens=True) == "Once"
    inner = AutoModelForCausalLM.from_pretrained("org/story", subfolder="inner", **where)
    assert inner.spec.vocab == 101
    assert (
        AutoModelForCausalLM.from_pretrained("org/story", cache_dir=str(cache), local_files_only=True).spec.vocab == 512
    )


@pytest.mark.usefixtures("no_socket")
@pytest.mark.parametrize(
    "name, options, says",
    [
        ("org/other", {}, "not in the local cache"), ("other", {}, "not in the local cache"),
        ("org/story", {"revision": "v2"}, "v2"), ("org/story", {"revision": "c" * 40}, "ccc"),
        ("org/story", {"revision": "../main"}, "revision"), ("org/story", {"revision": ""}, ""),
        ("org/partial", {}, "weights"), ("org/story", {"subfolder": "nothing"}, "nothing"),
        ("org/story", {"subfolder": "../.."}, "subfolder"), ("org/story", {"cache_dir": "/nowhere"}, "local cache"),
    ],
)  # fmt: skip
def test_what_the_cache_does_not_hold(cache: Path, name: str, options: dict[str, Any], says: str) -> None:
    options = {"cache_dir": cache, "local_files_only": True, **options}
    if options.get("revision") == "":
        assert SECOND in AutoModelForCausalLM.from_pretrained(name, **options).report.files[0]
        return
    with refused(PellucidError, says):
        AutoModelForCausalLM.from_pretrained(name, **options)


@pytest.mark.usefixtures("no_socket")
@pytest.mark.parametrize("variable", hub.OFFLINE_VARIABLES)
def test_offline_by_environment(cache: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    assert AutoModelForCausalLM.from_pretrained("org/story", cache_dir=cache).spec.vocab == 512
    with refused(NotAModel, "offline"):
        AutoModelForCausalLM.from_pretrained("org/other", cache_dir=cache)


@pytest.mark.usefixtures("no_socket")
def test_a_path_never_asks_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(hub.default_model(), tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "org" / "model", str(tmp_path / "org" / "model"), "org/model", "./org/model", None):
        assert AutoModelForCausalLM.from_pretrained(name).spec.vocab == 512
        assert AutoConfig.from_pretrained(name).vocab_size == 512 and len(AutoTokenizer.from_pretrained(name)) == 512
        assert pipeline("text-generation", name, max_new_tokens=2)("Once")
    assert GenerationConfig.from_pretrained("org/model").eos
    for missing in ("./org/other", "/no/such/folder", str(tmp_path / "none")):
        with refused(NotAModel, "there is no folder"):
            AutoModelForCausalLM.from_pretrained(missing)


def test_without_a_network_an_unknown_id_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not offline by wish, but no hub answers: the cache is used, and what is not there is named."""
    for name in hub.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "_reachable", lambda timeout=3.0: False)
    with refused(NotAModel, "no network", "org/other"):
        AutoModelForCausalLM.from_pretrained("org/other", cache_dir=tmp_path)


def test_import_needs_neither_torch_nor_a_socket() -> None:
    assert pellucid.__version__ and hub.default_model().is_dir()
