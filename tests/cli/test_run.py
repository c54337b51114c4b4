"""pellucid run: a task at the terminal, over a text and over lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import pellucid
from pellucid.cli.run import rows
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


def test_a_part_that_is_missing_is_asked_for_as_an_option(call):
    for task, name in (("question-answering", "question"), ("table-question-answering", "table")):
        refused = call("run", task, "-m", "nowhere", "Ada wrote it.")  # before anything is loaded
        assert refused.exit_code == 2 and f"without a {name}" in refused.stderr and f"-o {name}=" in refused.stderr


def test_a_line_that_is_refused(call, classifier, tmp_path):
    """What was before it is printed; it is named by its line, and how to go on behind it is said."""
    path = tmp_path / "lines.txt"
    path.write_text("A film.\nA film.\n" + "word " * 600 + "\nA film.\n")
    asked = ("run", "text-classification", "-m", classifier, "--file", path, "--json")
    for skip in (0, 1):
        result = call(*asked, "--skip", skip)
        assert result.exit_code == 2 and "where: line 3" in result.stderr and "--skip 3 goes on" in result.stderr
        assert [json.loads(line) for line in result.stdout.splitlines()[: 2 - skip]] == expected(
            classifier, LINES[:1]
        ) * (2 - skip)
    assert len(call(*asked, "--skip", 3).stdout.splitlines()) == 1
    for truncation in ("true", "True"):
        cut = call(*asked, "-o", f"truncation={truncation}")
        assert not cut.exit_code and [*json.loads(cut.stdout.splitlines()[2])] == ["label", "score", "truncated_tokens"]


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ({"sequence": "x", "labels": ["a", "b"], "scores": [1, 2]},
         [{"label": "a", "score": 1}, {"label": "b", "score": 2}]),
        ({"sequence": "x", "labels": ["a"], "scores": [1], "truncated_tokens": 3},
         [{"label": "a", "score": 1, "truncated_tokens": 3}]),
        ({"answer": "SUM > 1, 2", "coordinates": [(0, 0), (1, 0)], "cells": ["1", "2"], "aggregator": "SUM"},
         [{"answer": "SUM > 1, 2", "coordinates": [(0, 0), (1, 0)], "cells": ["1", "2"], "aggregator": "SUM"}]),
        ([], []),
        ([[{"a": 1}], [{"a": 2}]], [{"a": 1}, {"a": 2}]),
    ],
)  # fmt: skip
def test_rows_of_a_table(result, found):
    """Nothing of an answer is left out, such as what is done with the cells."""
    assert list(rows(result)) == found


def test_lines_are_answered_before_the_next_ones_come(classifier):
    """As from tail -f."""
    command = [sys.executable, "-m", "pellucid", "run", "text-classification", "-m", str(classifier), "-", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        found = []
        for line in LINES[:3]:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            found.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert not process.stdout.read()
    assert not process.returncode and found == expected(classifier, LINES[:3])


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_no_output_and_no_input_is_an_error_of_one_line(classifier, more):
    base = [sys.executable, "-m", "pellucid", "run", "text-classification", "-m", str(classifier), *more]
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run([*base, "x"], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode and "No space left" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run(["sh", "-c", '"$@" - <&-', "sh", *base], capture_output=True, text=True)
    assert done.returncode == 2 and "standard input is closed" in done.stderr


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
