"""The door: help, versions, misspellings, and what is imported for them."""

from __future__ import annotations

import subprocess
import sys
import warnings

import click
import pytest
from click.testing import CliRunner

from pellucid import hub
from pellucid.cli import COMMANDS
from pellucid.cli._command import Command

# Runs a command line in a process of its own and says whether torch came along.
WITHOUT_TORCH = """
import sys
from pellucid.cli import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["show", "--help"],
        ["check", "--help"],
        ["generate", "--help"],
        ["chat", "--help"],
        ["tokenize", "--help"],
    ]
    + [["show", str(hub.default_model())], ["show", "--json", str(hub.default_model())]],
    ids=" ".join,
)
def test_help_and_show_need_no_torch(args):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *args], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert done.stdout


def test_help_is_instant():
    """Nothing large is imported: time itself depends on who else works on the machine."""
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pellucid", "--help"], check=True, capture_output=True, text=True
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.stderr.splitlines()}
    assert {"click", "pellucid"} <= imported
    assert not imported & {"torch", "numpy", "tokenizers", "safetensors", "jinja2", "yaml", "asyncio"}


def test_the_list_of_commands_is_the_commands(call):
    listed = call("--help").stdout
    for name, line in COMMANDS.items():
        assert name in listed and line in listed
        help = call(name, "--help").stdout
        assert f"pellucid {name}" in help.split("Options:")[0].split("\n\n", 1)[1], "an example"
        assert "--json" in help


def test_a_misspelt_command_or_option_is_suggested(call):
    command, option = call("genrate"), call("show", "--cod", ".")
    assert command.exit_code == option.exit_code == 2
    assert "did you mean 'generate'?" in command.stderr
    assert "--code" in option.stderr


def test_a_warning_is_a_line():
    @click.command("warn", cls=Command)
    def warn() -> None:
        for _ in range(3):
            warnings.warn("careful", stacklevel=1)

    result = CliRunner().invoke(warn)
    assert (result.exit_code, result.stderr) == (0, "pellucid warn: careful\n")


def test_missing_arguments_are_usage_errors(call):
    result = call("show")
    assert result.exit_code == 2 and "DIR" in result.stderr


def test_version(call):
    assert call("--version").stdout.startswith("pellucid ")


def test_a_reader_that_leaves_ends_it_quietly():
    with subprocess.Popen(
        [sys.executable, "-m", "pellucid", "generate", "--greedy"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == "Once"
        process.stdout.close()
        assert process.stderr.read() == ""
