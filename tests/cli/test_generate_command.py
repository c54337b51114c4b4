"""pellucid generate."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid import hub

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
        (["--greedy", "--min-p", "0.1"], "--min-p"),
        (["--min-p", "2"], "min_p=2.0"),
        (["-n", "2", "--greedy"], "--beams"),
        (["-n", "0"], "num_return_sequences=0"),
        (["-n", "3", "--beams", "2"], "num_beams=2"),
        (["--stop", ""], "stop_strings"),
        (["--logprobs", "2"], "--json"),
        (["--format", "jsn"], "did you mean 'json'?"),
        (["--format", "regex=("], "response_format"),
        (["--format", "schema=no/such.json"], "no/such.json"),
        (["--format", "choice="], "forms: "),
        (["--lookup", "3", "--draft", str(hub.default_model())], "choose one"),
        (["--lookup", "3", "--beams", "2"], "one beam"),
        (["-m", "no/such/folder"], "no/such/folder"),
        (["--draft", "no/such/draft"], "no/such/draft"),
        (["-m", "org/name", "--offline"], "offline"),
    ],
    ids=lambda value: str(value)[:30].encode("ascii", "replace").decode() if isinstance(value, list) else "",
)
def test_mistakes_have_no_traceback(call, args, says):
    result = call("generate", *args)
    assert result.exit_code == 2 and says in result.stderr and not result.stdout


# ------------------------------------------------------------------------------------- what else can be asked for


def generated(call, *args):
    """What --json says of 12 tokens."""
    result = call("generate", "--json", "--max-new-tokens", 12, *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_stop_strings_end_the_text_and_are_not_in_it(call):
    result = call("generate", "--greedy", "--stop", "no such text", "--stop", " girl")
    assert result.stdout == STORY[: STORY.index(" girl")] + "\n"
    assert "stop: the text is complete" in result.stderr


def test_forms(call, tmp_path):
    schema = '{"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"], "maxProperties": 1}'
    (tmp_path / "schema.json").write_text(schema)
    (tmp_path / "grammar").write_text('root ::= " one" | " two"')
    for form in (f"schema={tmp_path / 'schema.json'}", f"schema={schema}"):
        assert json.loads(generated(call, "--format", form)["text"])["a"] in (1, 22)
    assert generated(call, "--format", "json")["text"].startswith("{")
    assert re.fullmatch(r" [a-c]{2}\d=", generated(call, "Lily", "--format", r"regex= [a-c]{2}\d=")["text"])
    assert generated(call, "Lily", "--format", "choice= yes| no")["text"] in (" yes", " no")
    assert generated(call, "Lily", "--format", f"grammar={tmp_path / 'grammar'}")["text"] in (" one", " two")


def test_several_continuations(call):
    args = ["Lily", "--temperature", 0.8, "--seed", 4]
    found = generated(call, *args, "-n", 3)
    singles = [generated(call, *args[:-1], seed)["ids"] for seed in (4, 5, 6)]
    assert [one["ids"] for one in found["continuations"]] == singles
    assert found["ids"] == singles[0] and found["text"] == found["continuations"][0]["text"]
    shown = call("generate", "--max-new-tokens", 12, *args, "-n", 3)
    assert shown.stdout == "\n---\n".join(one["text"] for one in found["continuations"]) + "\n"
    assert shown.stderr.startswith("36 tokens · ")
    assert "continuations" not in generated(call, *args)


def test_beams_come_with_their_scores(call):
    found = generated(call, "Lily", "--beams", 3, "-n", 2)["continuations"]
    assert found[0]["score"] > found[1]["score"] and found[0]["ids"] != found[1]["ids"]
    alone = call("generate", "Lily", "--max-new-tokens", 12, "--beams", 3)
    assert alone.stdout == found[0]["text"] + "\n" and "tokens/s with the prompt" in alone.stderr


def test_logprobs(call):
    found = generated(call, "--greedy", "--logprobs", 2)
    assert [one["token"] for one in found["logprobs"]] == found["ids"]
    for one in found["logprobs"]:
        assert one["top"][0] == [one["token"], one["logprob"]] and len(one["top"]) == 2
    assert "logprobs" not in generated(call, "--greedy")


def test_guesses_change_no_token(call, folder):
    for guesses in (["--lookup", 4], ["--draft", folder]):
        found = generated(call, "--greedy", *guesses)
        assert STORY.startswith(found["text"]) and 0 <= found["accepted"] <= found["drafted"]
    result = call("generate", "--greedy", "--draft", folder)
    assert result.stdout == STORY and re.search(r" · (\d+) of \1 guessed tokens were right", result.stderr)
    assert "guessed" not in call("generate", "--greedy", "--max-new-tokens", 2).stderr


def test_what_changes_the_choice(call):
    plain = generated(call, "Lily", "--greedy")["ids"]
    assert generated(call, "Lily", "--min-p", 1.0)["ids"] == plain  # nothing but the most likely token is left
    assert call("generate", "--greedy", "--repetition-penalty", 2.0).stdout != STORY


def test_help_has_headings_and_fits_a_page(call):
    lines = call("generate", "--help").stdout.splitlines()
    assert len(lines) < 50 and {"Options:", "Which token comes next:"} <= set(lines)
    assert sum(line.startswith("  --greedy ") for line in lines) == 1


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
