"""pellucid tokenize."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from test_commands import WITHOUT_TORCH

from pellucid import hub
from pellucid.cli.tokenize import LONGEST, visible, width
from pellucid.text import fingerprint
from pellucid.text.tokenizer import Tokenizer

TEXT = "Once upon a time, 日本 é\te\u0301 \u200b"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_folder(hub.default_model())


def test_the_table(call):
    assert call("tokenize", "Once upon").stdout == (
        " id  from  to  token  text\n  1            <s>\n403     0   4  ▁Once  'Once'\n407     4   9  ▁upon  ' upon'\n"
    )
    assert call("tokenize", "--no-special", "Once").stdout.splitlines()[1:] == ["403     0   4  ▁Once  'Once'"]
    assert call("tokenize", "Once").stderr == "2 tokens\n"


def test_the_columns_line_up_whatever_is_in_them(call):
    lines = call("tokenize", TEXT + "𝒳ﬁ한👩‍👩‍👧").stdout.splitlines()
    starts = [width(line[: line.index("'")]) for line in lines if "'" in line]
    assert len(starts) > 40 and len(set(starts)) == 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("text", "shown", "columns"),
    [
        ("a", "a", 1),
        ("日本", "日本", 4),
        ("e\u0301", "e\u0301", 1),
        ("\u0301", "◌\u0301", 1),
        ("\x1b[2J", "\\x1b[2J", 7),
        ("\u202e\u200d", "\\u202e\\u200d", 12),
        ("\n\t\r", "\\n\\t\\r", 6),
        ("\U000e0001", "\\U000e0001", 10),
        ("", "", 0),
    ],
)
def test_what_a_terminal_shows(text, shown, columns):
    assert visible(text) == shown and width(shown) == columns


def test_ids_count_and_json_say_the_same(call, tokenizer):
    ids = tokenizer(TEXT)["input_ids"]
    assert call("tokenize", "--ids", TEXT).stdout.split() == [str(i) for i in ids]
    assert call("tokenize", "--count", TEXT).stdout == f"{len(ids)}\n"
    found = json.loads(call("tokenize", "--json", TEXT).stdout)
    assert (found["text"], found["count"], found["ids"]) == (TEXT, len(ids), ids)
    assert found["tokens"] == tokenizer.convert_ids_to_tokens(ids) and len(found["offsets"]) == len(ids)
    assert found["special_tokens_mask"] == [1] + [0] * (len(ids) - 1)
    assert json.loads(call("tokenize", "--json", "--count", TEXT).stdout) == {"text": TEXT, "count": len(ids)}


def test_a_pair(call, tokenizer):
    found = json.loads(call("tokenize", "--json", "--pair", "two", "one").stdout)
    assert found["ids"] == tokenizer("one", "two")["input_ids"] and found["pair"] == "two"
    lines = call("tokenize", "--pair", "two", "one").stdout.splitlines()
    assert [line[-5:].split("'")[-2] for line in lines if "'" in line] == ["on", "e", "t", "w", "o"]


def test_ids_back_to_text(call, tokenizer):
    ids = tokenizer(TEXT)["input_ids"]
    for form in (" ".join(map(str, ids)), str(ids), ",".join(map(str, ids))):
        assert call("tokenize", "--decode", form).stdout == tokenizer.decode(ids) + "\n"
        assert call("tokenize", "--decode", "-", input=form + "\n").stdout == tokenizer.decode(ids) + "\n"
    assert call("tokenize", "--decode", "--count", "1 2 3").stdout == "3\n"
    assert json.loads(call("tokenize", "--decode", "--json", "403").stdout)["tokens"] == ["▁Once"]
    result = call("tokenize", "--decode", "403 5000")
    assert result.stdout == "Once\n" and "1 ids have no token, the first is 5000" in result.stderr


def test_standard_input(call, tokenizer):
    assert call("tokenize", "--ids", "-", input="Once\nupon\n").stdout == call("tokenize", "--ids", "Once\nupon").stdout
    rows = [tokenizer(line)["input_ids"] for line in ("Once", "", "upon")]
    done = call("tokenize", "--ids", "--lines", "-", input="Once\n\nupon")
    assert [list(map(int, line.split())) for line in done.stdout.splitlines()] == rows
    done = call("tokenize", "--json", "--lines", "-", input="Once\n\nupon\n")
    assert [json.loads(line)["ids"] for line in done.stdout.splitlines()] == rows
    assert call("tokenize", "--count", "--lines", "Once\nupon upon").stdout == "2\n3\n"


@pytest.mark.parametrize(
    ("args", "input", "says"),
    [
        (["-"], b"ab\xffc", "TEXT is not UTF-8"),
        (["-", "--lines", "--count"], b"ab\n\xe4\n", "line 2 is not UTF-8"),
        (["a\udcff"], None, "not UTF-8"),
        (["--decode", "1 two"], None, "'two' is no id"),
        (["--decode", "-1"], None, "'-1' is no id"),
        (["--decode", "9" * 30], None, "is no id"),
        (["--decode", "4294967296000"], None, "4294967296000"),
        ([], None, "TEXT"),
        (["--fingerprint", "a"], None, "TEXT"),
        (["--decode", "--pair", "a", "1"], None, "--decode"),
        (["--lines", "--pair", "a", "1"], None, "--lines"),
        (["-m", "no/such/folder", "a"], None, "no/such/folder"),
        (["--ids", "--cuont", "a"], None, "--count"),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode()[:30] if isinstance(value, list) else "",
)
def test_mistakes_have_no_traceback(call, args, input, says):
    if args == ["--decode", "-1"]:
        args = ["--decode", "--", "-1"]
    result = call("tokenize", *args, input=input)
    assert result.exit_code == 2 and says in result.stderr
    assert "Traceback" not in result.stderr


def test_more_than_one_text_can_be_is_told_and_lines_take_any_number():
    """Two million lines go through in constant memory; the reader may leave at any time."""
    with subprocess.Popen(
        [sys.executable, "-m", "pellucid", "tokenize", "--count", "--lines", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout and process.stderr

        def feed() -> None:
            try:
                while True:
                    process.stdin.write(b"Once upon a time\n" * 1000)
            except BrokenPipeError:
                pass

        writer = threading.Thread(target=feed)
        writer.start()
        counts = [process.stdout.readline() for _ in range(20_000)]
        process.stdout.close()
        said = process.stderr.read()
        process.wait()
        writer.join()
        try:  # noqa: SIM105
            process.stdin.close()
        except BrokenPipeError:
            pass
    assert set(counts) == {b"5\n"} and b"Traceback" not in said


def test_one_text_has_a_limit(call, monkeypatch):
    monkeypatch.setattr("pellucid.cli.tokenize.LONGEST", 10)
    assert LONGEST == 1 << 26
    result = call("tokenize", "-", input="a" * 11)
    assert result.exit_code == 2 and "more than 10 bytes" in result.stderr and "--lines" in result.stderr


def test_no_torch():
    for args in (["tokenize", "hi"], ["tokenize", "--decode", "403"], ["tokenize", "--fingerprint"]):
        done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *args], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr.splitlines()[-1] == "False"


def test_a_chat(call, chat_folder, tmp_path):
    """What the model reads: BOS once, tools and all."""
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "One day"}]
    tokenizer = Tokenizer.from_folder(chat_folder)
    file = tmp_path / "talk.json"
    for given in (messages, {"messages": messages, "model": "saved by /save"}):
        file.write_text(json.dumps(given))
        for prompt in ([], ["--prompt"]):
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=bool(prompt))["input_ids"]
            found = json.loads(call("tokenize", "-m", chat_folder, "--json", "--chat", *prompt, file).stdout)
            assert found["ids"] == ids and ids.count(1) == 1 and found["text"].endswith("assistant:\n") == bool(prompt)
    shown = call("tokenize", "-m", chat_folder, "--chat", "-", input=json.dumps(messages)).stdout
    assert shown.splitlines()[1].split() == ["1", "<s>"] or "<s>" in shown.splitlines()[1]
    for text, says in (("{", "JSON"), ("[]", "empty conversation"), ("7", "conversation")):
        result = call("tokenize", "-m", chat_folder, "--chat", "-", input=text)
        assert result.exit_code == 2 and says in result.stderr
    assert call("tokenize", "-m", chat_folder, "--chat", tmp_path / "none").exit_code == 2
    assert "chat template" in call("tokenize", "--chat", file).stderr
    assert call("tokenize", "--prompt", "a").exit_code == 2


def test_the_fingerprint_is_shown_compared_and_accepted(call, folder):
    digest = fingerprint.take(Tokenizer.from_folder(folder)).digest
    result = call("tokenize", "-m", folder, "--fingerprint")
    assert result.stdout == f"{digest}\n" and "none is stored" in result.stderr
    Tokenizer.from_folder(folder).save_pretrained(folder)
    assert "equal" in call("tokenize", "-m", folder, "--fingerprint").stderr
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    result = call("tokenize", "-m", folder, "hi")
    assert result.exit_code == 2 and "the chat template is new" in result.stderr and "--accept" in result.stderr
    found = json.loads(call("tokenize", "-m", folder, "--fingerprint", "--json").stdout)
    assert found["differences"] == ["the chat template is new"] and found["stored"] != found["fingerprint"]
    assert call("tokenize", "-m", folder, "--accept").exit_code == 0
    assert call("tokenize", "-m", folder, "hi").exit_code == 0
