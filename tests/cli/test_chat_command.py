"""pellucid chat, through pipes and through a terminal."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from made_up_template import CHAT

from pellucid.cli._talk import COMMANDS, value_of
from pellucid.cli.chat import printable

THINKS = CHAT.replace("assistant:\n{% endif %}", "assistant:\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}")
THINKS += "{# </think> #}"


@pytest.fixture
def talk(call, chat_folder) -> Callable[..., tuple[str, str, int]]:
    """`talk("Hello", "/stats", "--seed", "1")`: lines, then options; stdout, stderr and the exit code."""

    def talk(*said: str, new: int = 8) -> tuple[str, str, int]:
        at = next((i for i, each in enumerate(said) if each.startswith("--")), len(said))
        lines, options = "".join(f"{line}\n" for line in said[:at]), said[at:]
        done = call("chat", "-m", chat_folder, "--max-new-tokens", new, *options, input=lines)
        assert "Traceback" not in done.output
        return done.stdout, done.stderr, done.exit_code

    return talk


# ---- pipes ---------------------------------------------------------------------------------------------------


def test_questions_from_a_pipe(talk):
    one, _, code = talk("Tell me of Lily.")
    assert code == 0 and one.count("\n") == 1 and len(one) > 8
    two, said, _ = talk("Tell me of Lily.", "And then?")
    assert two.startswith(one) and len(two) > len(one)
    assert said == "(cut off after 8 tokens: /set max_new_tokens N)\n" * 2


def test_the_last_line_may_have_no_end(call, chat_folder):
    whole = call("chat", "-m", chat_folder, "--max-new-tokens", 8, input="Hello\n").stdout
    assert call("chat", "-m", chat_folder, "--max-new-tokens", 8, input="Hello").stdout == whole
    assert call("chat", "-m", chat_folder, input="").stdout == ""
    assert call("chat", "-m", chat_folder, input="\n \n").stdout == ""


def test_texts_of_several_lines(talk):
    for lines in (['"""', "one", "two", '"""'], ['"""one', 'two"""'], ["one\\", "two"]):
        out, _, code = talk(*lines, "/tokens")
        assert code == 0 and "<s>user:\none\ntwo</s>assistant:\n" in out


def test_a_question_that_begins_with_a_slash(talk):
    assert "user:\n/etc is what?</s>" in talk("//etc is what?", "/tokens")[0]


def test_the_transcript(talk, chat_folder):
    out, _, code = talk("Tell me of Lily.", "/system Be brief.", "And then?", "--json")
    found = json.loads(out)
    assert code == 0 and found["model"] == str(chat_folder)
    assert [m["role"] for m in found["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn["new"] for turn in found["turns"]] == [8, 8]
    assert found["turns"][0]["finish"] == "length" and found["turns"][1]["prompt"] > found["turns"][0]["prompt"]


def test_the_cache_is_used(talk):
    out, _, _ = talk("Tell me of Lily.", "And then?", "/stats")
    before, read = map(int, re.search(r"(\d+) tokens before the answer, (\d+) of them read", out).groups())
    assert 20 < read < before
    assert "ended by length" in out and " of 512 " in out


def test_undo_retry_and_reset(talk):
    out, _, _ = talk("One", "Two", "/undo", "/tokens", "--seed", "1")
    assert "taken back: Two" in out and "user:\nTwo" not in out.split("taken back")[1]
    first, again = (talk("One", *more, "--seed", "1", "--json") for more in ((), ("/retry",)))
    answers = [json.loads(each[0])["messages"][1]["content"] for each in (first, again)]
    assert answers[0] != answers[1]
    assert json.loads(talk("--json", "--system", "S")[0])["messages"] == [{"role": "system", "content": "S"}]
    messages = json.loads(talk("One", "/reset", "Two", "--json", "--system", "S")[0])["messages"]
    assert [m["content"] for m in messages[:2]] == ["S", "Two"]
    assert "nothing was asked yet" in talk("/undo")[1] and "nothing was asked yet" in talk("/retry")[1]


def test_system(talk):
    assert "(there is no system message)\n" in talk("/system")[0]
    assert "Be brief.\n" in talk("/system Be brief.", "/system")[0]
    assert "(there is no system message)\n" in talk("/system Be brief.", "/system off", "/system")[0]


def test_a_template_that_takes_no_system_message(talk, chat_folder):
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    (chat_folder / "chat_template.jinja").write_text(refuses + CHAT)
    out, said, code = talk("/system S", "Hello", "/tokens")
    assert code == 2 and "no system role" in said and "<s>user:\nHello</s>" in out
    assert "no system role" in talk("Hello", "/system S")[1]
    out, said, code = talk("Hello", "--system", "S")
    assert (out, code) == ("", 2) and "no system role" in said


def test_save_and_load(talk, tmp_path):
    file, other = tmp_path / "talk ä.json", tmp_path / "other.json"
    out, _, code = talk("Tell me of Lily. é", f"/save {file}", "And?", f"/save {file}")
    assert code == 0 and f"4 messages in {file}" in out
    saved = json.loads(file.read_text("utf-8"))["messages"]
    assert len(saved) == 4 and saved[0]["content"].endswith("é")
    for said in (["--json", "--load", str(file)], [f"/load {file}", "--json"]):
        assert json.loads(talk(*said)[0])["messages"] == saved
    other.write_text("mine")
    out, said, code = talk("Hello", f"/save {other}", "/save", f"/save {tmp_path}/no/folder")
    assert code == 2 and "exists, and is no file of this talk" in said and "no file is named" in said
    assert other.read_text() == "mine" and "not written: No such file" in said
    for text, says in (("[", "JSON"), ("7", "no list of messages"), ('[{"a": 1}]', "no list of messages")):
        other.write_text(text)
        assert says in talk(f"/load {other}")[1]
        out, said, code = talk("--load", str(other))
        assert code == 2 and says in said
    assert "not read: No such file" in talk(f"/load {tmp_path}/none")[1]


def test_set(talk):
    out, said, code = talk("/set temperature 0.5", "/set top_k=3", "/set max_new_tokens 4", "/set seed 7", "/set")
    assert code == 0 and not said
    assert {"temperature = 0.5", "top_k = 3", "max_new_tokens = 4", "seed = 7", "do_sample = true"} <= set(
        out.split("\n")
    )
    out, said, code = talk("/set temperature 0.5", "/set temperature none", "/set temperature", "/set temperature -1",
                           "/set temprature 1", "/set max_new_tokens many", "/set")  # fmt: skip
    assert code == 2 and "temperature = 1.0" in out
    for says in ("no value for temperature", "temperature=-1", "did you mean 'temperature'", "max_new_tokens='many'"):
        assert says in said
    assert "(cut off after 3 tokens" in talk("/set max_new_tokens 3", "Hello")[1]


def test_what_the_template_reads(talk, chat_folder):
    (chat_folder / "chat_template.jinja").write_text(THINKS)
    plain, _, code = talk("Hello", "--json")
    assert code == 0 and "reasoning_content" not in json.loads(plain)["messages"][1]
    for options in (["--think"], ["--set", "enable_thinking=true"]):
        out, said, code = talk("Hello", *options)
        assert (out, code) == ("\n", 0), "reasoning is not the answer"
        assert json.loads(talk("Hello", *options, "--json")[0])["messages"][1]["reasoning_content"]
    out = talk("/set enable_thinking true", "/set", "/set enable_thinking none", "/set", "--no-think")[0]
    assert "enable_thinking = true" in out and "enable_thinking = null" in out
    assert "did you mean 'enable_thinking'?" in talk("/set enable_thinkin true")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_command(talk, name):
    out, _, code = talk("/help")
    assert code == 0 and re.search(rf"^/{name} .*\S$", out, re.M)


def test_commands_that_are_none(talk):
    out, said, code = talk("/rest", "/xyzzy", "/", "/do", "Hello")
    assert code == 2 and len(out) > 8
    assert "did you mean /reset?" in said and said.count("/help lists them") == 2 and "did you mean /undo?" in said


def test_quit_ends_it(talk):
    assert talk("/quit", "Hello") == ("", "", 0)


def test_a_full_context_is_told_and_the_talk_goes_on(talk):
    out, said, code = talk("a " * 600, "Hello", new=4)
    assert code == 2 and "tokens, and the model's context is 512" in said and len(out) > 3
    _, said, code = talk("Tell me. " * 40, new=500)
    assert code == 0 and "the context of 512 tokens is full: /undo" in said


def test_an_end_that_the_settings_miss_is_told(talk, chat_folder):
    (chat_folder / "chat_template.jinja").write_text(CHAT.replace("{{ eos_token }}", "<unk>"))
    assert "the template ends an answer with '<unk>' = 0" in talk("Hello")[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "a"], "--set NAME=VALUE"),
        (["--set", "tmperature=1"], "did you mean 'temperature'?"),
        (["--think"], "the chat template reads neither of enable_thinking, thinking"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--greedy", "--top-p", "0.5"], "--greedy"),
        (["--load", "no/such/file"], "not read"),
        (["--dtype", "float3"], "float3"),
    ],
    ids=" ".join,
)
def test_mistakes_have_no_traceback(talk, options, says):
    out, said, code = talk("Hello", *options)
    assert (out, code) == ("", 2) and says in said


def test_without_a_model_and_without_a_template(call, folder):
    result = call("chat", input="Hello\n")
    assert result.exit_code == 2 and "tells stories" in result.stderr and "-m DIR_OR_ID" in result.stderr
    result = call("chat", "-m", folder, input="Hello\n")
    assert result.exit_code == 2 and "no chat template" in result.stderr and "chat_template.jinja" in result.stderr
    result = call("chat", "-m", folder, "--json", input="Hello\n")
    assert json.loads(result.stdout)["error"] == "TokenizerError"


def test_bytes_that_are_no_text(call, chat_folder):
    result = call("chat", "-m", chat_folder, input=b"Hello \xff\n")
    assert result.exit_code == 2 and "not UTF-8" in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("0.5", 0.5), ("true", True), ("False", False), ("none", None), ("[1]", [1]), ("low", "low"),
        ("[" * 9999, "[" * 9999),
    ],
    ids=lambda value: str(value)[:9],
)  # fmt: skip
def test_values(text, value):
    assert value_of(text) == value and type(value_of(text)) is type(value)


def test_what_a_model_says_does_not_reach_the_terminal_as_an_order():
    assert printable("a\x1b[2J\r\u202eb\n\té👩‍👧") == "a\\x1b[2J\\r\\u202eb\n\té👩‍👧"


# An answer of the small model is there before a person could stop it: with this it takes its time.
SLOWLY = """
import time
from pellucid.cli import main
from pellucid.engine.engine import Engine
step = Engine.step
Engine.step = lambda engine: (time.sleep(0.02), step(engine))[1]
main()
"""


def test_an_interrupted_answer_in_a_pipe(chat_folder):
    """SIGINT ends the answer; the next line is answered, and the program ends as usual."""
    with subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "chat", "-m", chat_folder, "--seed", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"Tell me of Lily.\n")
        assert process.stdout.read(3)
        process.send_signal(signal.SIGINT)
        while process.stdout.read(1) != b"\n":
            pass
        process.stdin.write(b"/stats\n")
        line = b""
        while not line.endswith(b"\n"):
            line += process.stdout.read(1)
        process.stdin.write(b"/set max_new_tokens 5\nAnd?\n")
        process.stdin.close()
        rest, said = process.stdout.read(), process.stderr.read()
    assert b"ended by interrupted" in line and len(rest) > 3 and process.returncode == 0
    assert b"(stopped; what was said so far" in said and b"Traceback" not in said


# ---- a terminal ----------------------------------------------------------------------------------------------

pty = pytest.importorskip("pty")


class Terminal:
    """A program in a terminal: what is typed, and what it shows."""

    def __init__(self, *args: object, slowly: bool = False) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "dumb", "PYTHONUNBUFFERED": "1"}
            program = ["-c", SLOWLY] if slowly else ["-m", "pellucid"]
            os.execv(sys.executable, [sys.executable, *program, *map(str, args)])
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C at the prompt, a moment later: before Python waits for keys, it would be seen with the next one."""
        time.sleep(0.5)
        self.type("\x03")

    def until(self, text: str, seconds: float = 60.0) -> str:
        """What is shown up to `text`, which has to come."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.file], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} after {self.seen!r}"
            try:
                data = os.read(self.file, 4096)
            except OSError:  # the program has ended
                data = b""
            assert data, f"the end, and no {text!r} after {self.seen!r}"
            self.seen += data.decode("utf-8", "replace")
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def ended(self) -> int:
        """The exit status, once all is read."""
        with pytest.raises(AssertionError, match="the end"):
            self.until("\0")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(chat_folder) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def terminal(*options: object, slowly: bool = False) -> Terminal:
        opened.append(Terminal("chat", "-m", chat_folder, *options, slowly=slowly))
        return opened[-1]

    yield terminal
    for each in opened:
        os.close(each.file)


def test_a_talk_in_a_terminal(terminal):
    screen = terminal("--seed", 1, "--max-new-tokens", 6)
    assert "context 512; /help" in screen.until("> ")
    screen.type("Hello\n")
    assert "(cut off after 6 tokens" in screen.until("> ")
    screen.type("/tokens\n")
    assert "<s>user:" in screen.until("> ")
    screen.type('"""\none\n')
    screen.until(". ")
    screen.type('two"""\n')
    screen.until("(cut off")
    screen.type("/tokens\n")
    assert "user:\r\none\r\ntwo</s>" in screen.until(" tokens\r\n")
    screen.until("> ")
    screen.type("\x04")
    assert screen.ended() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal, tmp_path):
    screen = terminal("--seed", 1, slowly=True)
    screen.until("> ")
    screen.type("Tell me of Lily.\n")
    screen.until("Lily.\r\n")
    screen.until(" ")  # the first words are there
    screen.interrupt()
    assert "(stopped; what was said so far stays in the talk" in screen.until("> ")
    screen.type(f"/save {tmp_path}/talk.json\n")
    screen.until("2 messages in")
    screen.until("> ")
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert messages[1]["interrupted"] is True and messages[1]["content"]
    screen.type("/set max_new_tokens 5\n")
    screen.until("> ")
    screen.type("And?\n")
    screen.until("(cut off after 5 tokens")
    screen.type("/stats\n")
    shown = screen.until("ended by")
    before, read = map(int, re.search(r"(\d+) tokens before the answer, (\d+) of them read", shown).groups())
    assert 20 < read < before, "the stopped answer is still in the cache"
    screen.until("> ")
    screen.interrupt()
    screen.until("(Ctrl-C again, or Ctrl-D, ends the talk)")
    screen.until("> ")
    screen.type("/system\n")
    screen.until("(there is no system message)")
    screen.until("> ")
    screen.interrupt()
    screen.until("(Ctrl-C again")
    screen.until("> ")
    screen.interrupt()
    assert screen.ended() == 0 and "Traceback" not in screen.seen


def test_reasoning_is_dim(terminal, chat_folder):
    (chat_folder / "chat_template.jinja").write_text(THINKS)
    screen = terminal("--think", "--max-new-tokens", 6)
    screen.until("> ")
    screen.type("Hello\n")
    shown = screen.until("(cut off")
    assert re.search("\x1b\\[2m[^\x1b]+\x1b\\[0m", shown)
    screen.until("> ")
    screen.type("\x04")
    assert screen.ended() == 0


def test_json_is_for_scripts(terminal):
    screen = terminal("--json")
    screen.until("--json is for scripts")
    assert screen.ended() == 2
