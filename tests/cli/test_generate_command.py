"""pellucid generate."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STORY = (Path(__file__).parents[1] / "data" / "expected_greedy.txt").read_text("utf-8")


def test_the_greedy_story(call):
    result = call("generate", "--greedy")
    assert (result.exit_code, result.stdout) == (0, STORY)
    assert result.stderr.startswith("256 tokens · ") and "length: 256 tokens" in result.stderr


def test_complete_and_json_say_the_same_as_the_stream(call):
    assert call("generate", "--greedy", "--no-stream").stdout == STORY
    result = call("generate", "--greedy", "--json")
    found = json.loads(result.stdout)
    assert found["text"] + "\n" == STORY
    assert (len(found["ids"]), found["finish"], found["prompt"], found["prompt_tokens"]) == (256, "length", "", 1)
    assert not result.stderr


def test_a_prompt_from_the_command_line_and_from_stdin(call):
    given = call("generate", "Lily went", "--max-new-tokens", 9)
    piped = call("generate", "-", "--max-new-tokens", 9, input="Lily went\n")
    assert given.exit_code == 0 and given.stdout == piped.stdout


def test_a_seed_samples_and_repeats(call):
    texts = [call("generate", "--seed", seed, "--max-new-tokens", 40).stdout for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    cold = call("generate", "--temperature", 0, "--max-new-tokens", 40).stdout
    assert STORY.startswith(cold.removesuffix("\n"))


def test_the_end_is_explained(call):
    assert "context of 512" in call("generate", "--seed", 0, "--max-new-tokens", 4, " a" * 508).stderr
    assert "stop: an end token" in call("generate", "--greedy", "--max-new-tokens", 500).stderr


def test_an_empty_prompt_begins_with_bos_where_the_tokenizer_adds_none(call, folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": False}))
    assert call("generate", "-m", folder, "--greedy").stdout == STORY


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--greedy", "--temperature", "1"], "--temperature"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--top-p", "2"], "top_p=2.0"),
        (["--max-new-tokens", "0"], "max_new_tokens=0"),
        (["--max-new-tokens", "many"], "many"),
        (["--dtype", "float3"], "float3"),
        (["a\udcff"], "UTF-8"),
        (["a " * 600], "context 512"),
        (["-m", "no/such/folder"], "no/such/folder"),
        (["-m", "org/name", "--offline"], "offline"),
    ],
    ids=lambda value: str(value)[:30].encode("ascii", "replace").decode() if isinstance(value, list) else "",
)
def test_mistakes_have_no_traceback(call, args, says):
    result = call("generate", *args)
    assert result.exit_code == 2 and says in result.stderr and not result.stdout


def test_stdin_that_is_no_text(call):
    result = call("generate", "-", "--json", input=b"\xff")
    assert result.exit_code == 2 and json.loads(result.stdout)["error"] == "InputError"


@pytest.mark.parametrize("auto", ["AutoModelForMaskedLM"])
def test_a_model_that_does_not_generate(call, tiny, tmp_path, auto):
    result = call("generate", "-m", tiny("bert", auto))
    assert result.exit_code == 2 and "next:" in result.stderr


def test_a_head_that_is_not_trained_is_refused(call, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    result = call("generate", "-m", folder)
    assert result.exit_code == 2 and "not trained" in result.stderr


def test_ctrl_c_keeps_what_there_is():
    for _ in range(20):  # on a busy machine the story may be over before the signal is sent
        told, said, code = interrupted()
        if code:
            break
    assert code == 130 and "interrupted" in said and "Traceback" not in said
    assert STORY.startswith(told.removesuffix("\n")) and len(told) < len(STORY)


def interrupted() -> tuple[str, str, int]:
    """What a story says that is interrupted at its beginning, on both streams, and its exit status."""
    with subprocess.Popen(
        [sys.executable, "-m", "pellucid", "generate", "--greedy"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        begun = process.stdout.read(4)
        process.send_signal(signal.SIGINT)
        told = begun + process.stdout.read()
        said = process.stderr.read()
    return told, said, process.returncode
