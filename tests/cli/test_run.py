"""pellucid run: a task at the terminal, over a text and over lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

import pellucid
from test_quick_tour import SMALL, checkpoint


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    labels = {"id2label": {0: "bad", 1: "good", 2: "odd"}}
    checkpoint(folder, "bert", "AutoModelForSequenceClassification", **SMALL, **labels)
    return folder


LINES = ["A film.", "", "What a film, again and again and again!", "日本 é", "A film."]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def expected(folder, inputs, **options):
    return pellucid.pipeline("text-classification", str(folder))(inputs, **options)


def test_one_text(call, classifier):
    found = expected(classifier, LINES[0], top_k=None)
    shown = [f"{each['label']}   {each['score']:.4f}".split() for each in found]
    result = call("run", "sentiment-analysis", "-m", classifier, LINES[0], "-o", "top_k=null")
    assert [line.split() for line in result.stdout.splitlines()] == [["label", "score"], *shown]
    as_json = call("run", "text-classification", "-m", classifier, LINES[0], "--json", "-o", "top_k=2").stdout
    assert json.loads(as_json) == expected(classifier, LINES[0], top_k=2)


def test_lines_of_a_file_and_of_standard_input(call, classifier, lines):
    asked = ("run", "text-classification", "-m", classifier, "--json")
    of_file = call(*asked, "--file", lines).stdout
    assert [json.loads(line) for line in of_file.splitlines()] == expected(classifier, LINES)
    assert call(*asked, "-", input=lines.read_bytes()).stdout == of_file
    assert call(*asked, "--file", lines, "--skip", 2).stdout.splitlines() == of_file.splitlines()[2:]
    table = call(*asked[:-1], "--file", lines, "--skip", 1).stdout.splitlines()
    assert table[0] == "line\tlabel\tscore" and [row.split("\t")[0] for row in table[1:]] == ["2", "3", "4", "5"]


def test_json_lines(call, classifier, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"text": "one", "text_pair": "two"}\n"three"\n')
    found = call("run", "text-classification", "-m", classifier, "--file", path, "--jsonl", "--json").stdout
    inputs = [{"text": "one", "text_pair": "two"}, "three"]
    assert [json.loads(line) for line in found.splitlines()] == expected(classifier, inputs)
    path.write_text('"one"\n{"text": \n')
    result = call("run", "text-classification", "-m", classifier, "--file", path, "--jsonl", "--json")
    assert result.exit_code == 2 and "no JSON" in result.stderr and "line 2" in result.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["sentimnet-analysis", "x"], "did you mean 'sentiment-analysis'?"),
        (["text-classification", "x", "-o", "topk=1"], "did you mean 'top_k'?"),
        (["text-classification", "x", "-o", "top_k"], "write NAME=VALUE"),
        (["fill-mask", "x"], "head"),
        (["text-classification", "--file", "nowhere.txt"], "there is no file 'nowhere.txt'"),
        (["text-classification"], "give TEXT"),
        (["image-classification", "x"], "more than text"),
    ],
)
def test_what_is_refused(call, classifier, asked, said):
    result = call("run", asked[0], "-m", classifier, *asked[1:])
    assert result.exit_code == 2 and said in result.stderr and not result.stdout


def test_interrupted(classifier):
    """What was printed stays, and the next call goes on behind it."""
    command = [sys.executable, "-m", "pellucid", "run", "text-classification", "-m", str(classifier), "-", "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write("A film.\n" * 64)
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest, error = process.stdout.read(), process.stderr.read()  # communicate() loses what readline read ahead
    assert process.returncode == 130 and "--skip 64 goes on" in error
    assert [first, *map(json.loads, rest.splitlines())] == expected(classifier, ["A film."] * 64)
