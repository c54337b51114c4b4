"""Pages that run: their commands and Python blocks, and what a page says that they print.

A ```console block holds commands behind "$ ", each with what it prints. A ```python block runs among the names of the
blocks before it, and a ```text block right behind it is what it prints, with the error that it ends in. A page is made
anew by running it, so a test compares two texts, and `write` keeps the new one.

Words must be as they stand. Whole numbers too; others may differ as processors round. Seconds, rates, drifts and
numbers of guesses may be any.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from itertools import zip_longest
from pathlib import Path

from click.testing import CliRunner

import pellucid
from pellucid.cli import main
from pellucid.engine.checks import tell

CONSOLE = re.compile(r"```console\n(.*?)```\n", re.S)
BLOCK = re.compile(r"```(console|python)\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.S)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
TIMES = re.compile(r"\d+(?:\.\d+)? (?:s\b|[kMG]?B/s|tokens/s|with the prompt)")
GUESSES = re.compile(r" · \d+ of \d+ guessed tokens were right")  # as many as the machine's speed makes worth it
# Which inputs are outliers hangs on roundings, and so does what packing costs: 5.65 to 5.83 % on one processor.
DRIFTS = re.compile(r"drift by \d+\.\d+%")
APART = 0.02  # of a number that is not whole, or of 1


def run(page: Path) -> str:
    """The page, its blocks run from top to bottom in the folder we are in."""
    names: dict[str, object] = {}
    tell.cache_clear()

    def made(block: re.Match[str]) -> str:
        if block[1] == "console":
            return console(block[2])
        printed = said(block[2], names)
        return f"```python\n{block[2]}```\n" + (f"\n```text\n{printed}```\n" if printed else "")

    return BLOCK.sub(made, page.read_text("utf-8"))


def run_console(page: Path, answer: Callable[[str], str]) -> str:
    """The page, its commands run, each answered by a function."""
    return CONSOLE.sub(lambda block: console(block[1], answer), page.read_text("utf-8"))


# ---- commands ----------------------------------------------------------------------------------------------


def console(block: str, answer: Callable[[str], str] | None = None) -> str:
    commands = re.findall(r"^\$ (.*)$", block, re.M)
    return "```console\n" + "".join(f"$ {each}\n{(answer or shown)(each)}" for each in commands) + "```\n"


def shown(command: str) -> str:
    """What a terminal shows of a command: ours in this process, with "> FILE" at its end, any other by the shell."""
    words = shlex.split(command)
    if words[0] != "pellucid" or "|" in words:
        return by_shell(command)
    words, file = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, "")
    tell.cache_clear()  # what is told once in a process: a command has one of its own
    with logged():
        result = CliRunner().invoke(main, words[1:], prog_name="pellucid", catch_exceptions=False)
    if not file:
        return result.output
    Path(file).write_text(result.stdout, "utf-8")
    return result.stderr


def by_shell(command: str) -> str:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    home = str(Path(pellucid.__file__).parents[1])
    result = subprocess.run(
        command, shell=True, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": beside, "PYTHONPATH": home},
    )  # fmt: skip
    return result.stdout


# ---- Python ------------------------------------------------------------------------------------------------


def said(block: str, names: dict[str, object]) -> str:
    """What a block prints and logs, and the last lines of what it raises."""
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), logged():
        try:
            exec(compile(block, "the page", "exec"), names)
        except pellucid.PellucidError as error:
            print("".join(traceback.format_exception_only(error)), end="")
    return printed.getvalue()


@contextmanager
def logged() -> Iterator[None]:
    """The log's warnings go to stderr, as where nobody has set up logging; pytest has."""
    log, handler = logging.getLogger("pellucid"), logging.lastResort
    assert handler is not None
    before, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


# ---- comparing and writing -----------------------------------------------------------------------------------


def compare(stands: str, runs: str) -> None:
    """Fails at the first line that is not what the page shows."""
    for number, (one, other) in enumerate(zip_longest(stands.splitlines(), runs.splitlines(), fillvalue=""), 1):
        assert alike(one, other), f"line {number}: the page shows\n  {one}\nand it prints\n  {other}"


def alike(one: str, other: str) -> bool:
    one, other = (GUESSES.sub("", DRIFTS.sub("# a drift", TIMES.sub("# a time", line))) for line in (one, other))
    words = [" ".join(NUMBER.sub(" # ", line).split()) for line in (one, other)]
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other))
    return words[0] == words[1] and all(near(*pair) for pair in pairs)


def near(one: str, other: str) -> bool:
    if "." not in one and "." not in other:
        return one == other
    first, second = (float(each.replace(",", "")) for each in (one, other))
    return abs(first - second) <= APART * max(1, abs(first))


def write(page: Path, lay_out: Callable[[Path], None], made: Callable[[Path], str] = run) -> None:
    """Runs a page where its files lie, and writes what it printed."""
    os.environ.setdefault("PELLUCID_CACHE", "")
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        os.chdir(folder)
        text = made(page)
        os.chdir(page.parent)
    page.write_text(text, "utf-8")
