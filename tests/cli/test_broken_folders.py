"""Folders that are broken in one way each: the right exit code, a next step, and never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

DATA = Path(__file__).parents[1] / "data"


def config(**keys: object) -> Callable[[Path], None]:
    return edit("config.json", **keys)


def edit(name: str, **keys: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | keys))

    return change


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def tensors(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        held = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(held)
        save_file(held, folder / "model.safetensors")

    return rewrite


def truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(500_000)


def foreign_tokenizer(folder: Path) -> None:
    shutil.copy(DATA / "tokenizers" / "llama2" / "tokenizer.model", folder)


def config_as_folder(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


NORM = "model.norm.weight"
Q0 = "model.layers.0.self_attn.q_proj.weight"


@dataclass
class Broken:
    """One way to break a folder; exit codes of show, check and generate; what check says of it."""

    how: Callable[[Path], None]
    show: int
    check: int
    generate: int
    says: str


TABLE = {
    "no config": Broken(remove("config.json"), 2, 1, 2, "no config.json"),
    "not JSON": Broken(text("config.json", '{"a":'), 2, 1, 2, "not JSON"),
    "not an object": Broken(text("config.json", "[]"), 2, 1, 2, "holds a list"),
    "config is a folder": Broken(config_as_folder, 2, 1, 2, "directory"),
    "unknown family": Broken(config(model_type="lama"), 2, 1, 2, "did you mean 'llama'?"),
    "a string for a size": Broken(config(hidden_size="64"), 2, 1, 2, "hidden_size='64'"),
    "a key that nobody reads": Broken(config(sliding_window=7), 2, 1, 2, "sliding_window=7"),
    "a layer too many": Broken(config(num_hidden_layers=6), 0, 1, 2, "model.layers.5.self_attn.q_proj.weight"),
    "a layer too few": Broken(config(num_hidden_layers=4), 0, 1, 2, "model.layers.4."),
    "another width": Broken(config(intermediate_size=170), 0, 1, 2, "the config wants [170, 64]"),
    "truncated": Broken(truncate, 2, 1, 2, "the file has 500000"),
    "no weights": Broken(remove("model.safetensors"), 0, 1, 2, "no weights"),
    "a missing tensor": Broken(tensors(lambda held: held.pop(NORM)), 0, 1, 2, f"not in the files: 1 tensor, {NORM}"),
    "a tensor too many": Broken(tensors(lambda held: held.update(odd=held[NORM].clone())), 0, 1, 2, "1 tensor, odd"),
    "a wrong shape": Broken(tensors(lambda held: held.update({Q0: held[Q0][:8].clone()})), 0, 1, 2, f"{Q0} is [8"),
    "integers for weights": Broken(
        tensors(lambda held: held.update({name: each.int() for name, each in held.items()})), 0, 1, 2, "I32"
    ),
    "broken tokenizer": Broken(text("tokenizer.model", "x"), 0, 1, 2, "sentencepiece"),
    "another model's tokenizer": Broken(foreign_tokenizer, 0, 1, 2, "beyond the 512 rows"),
    "no tokenizer": Broken(remove("tokenizer.model", "tokenizer_config.json"), 0, 0, 2, "has none"),
    "an end beyond the vocabulary": Broken(edit("generation_config.json", eos_token_id=512), 0, 1, 0, "is 512"),
    "an end that is text": Broken(edit("generation_config.json", eos_token_id="</s>"), 0, 1, 2, "'</s>'"),
    "an end the tokenizer lacks": Broken(
        edit("generation_config.json", eos_token_id=9), 0, 0, 0, "and 2 in the tokenizer"
    ),
    "beams": Broken(edit("generation_config.json", num_beams=0), 0, 0, 2, "num_beams=0"),
    "a temperature that is text": Broken(
        edit("generation_config.json", temperature="hot", do_sample=True), 0, 0, 2, "temperature='hot'"
    ),
    "settings that are no JSON": Broken(text("generation_config.json", "{"), 0, 1, 2, "not JSON"),
}


@pytest.mark.parametrize("name", TABLE)
def test_broken(call, folder, name):
    broken = TABLE[name]
    broken.how(folder)
    shown, checked = call("show", folder), call("check", folder)
    told = call("generate", "-m", folder, "Once upon a time there was a ship", "--max-new-tokens", 2)
    assert (shown.exit_code, checked.exit_code, told.exit_code) == (broken.show, broken.check, broken.generate)
    assert broken.says in checked.stdout
    assert ("FAIL" in checked.stdout) == (broken.check == 1)
    assert not checked.stderr, "findings are the output"
    for result in (shown, told):
        assert "Traceback" not in result.output
        assert (result.exit_code == 2) == ("next:" in result.stderr)


@pytest.mark.parametrize("command", ["show", "check", "generate"])
def test_no_folder(call, command, tmp_path):
    for path in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").touch()
        args = [command, "--json", "-m", path] if command == "generate" else [command, "--json", path]
        result = call(*args)
        assert result.exit_code == 2
        assert json.loads(result.stdout).keys() == {"error", "what", "where", "next"}
        assert result.stderr.startswith(f"pellucid {command}: ") and "next:" in result.stderr
