"""pellucid chat: a talk with a model in this process, printed as it is chosen."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pellucid import hub
from pellucid.cli._choosing import as_options, choosing
from pellucid.cli._command import Command, json_option, print_json
from pellucid.cli._talk import THINKING, Quit, Talk, read_messages, set_value, variables_of
from pellucid.cli.generate import open_model
from pellucid.errors import ArgumentError, InputError, PellucidError

if TYPE_CHECKING:
    from pellucid.text.answers import Delta

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
FENCE = '"""'


@click.command("chat", cls=Command)
@click.option("-m", "--model", metavar="DIR_OR_ID", help="A model with a chat template.")
@click.option("--system", metavar="TEXT", help="What the model is told before the talk.")
@click.option("--load", type=Path, metavar="FILE", help="Take up a talk that /save wrote.")
@click.option("--max-new-tokens", type=int, metavar="N", help="Of each answer. Default: the model's, else 4096.")
@choosing()
@click.option("--seed", type=int, metavar="N", help="The same seed and questions, the same answers.")
@click.option("--think/--no-think", default=None, help="Whether to reason first, where the template can say so.")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="What else the template reads; repeatable.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@json_option
@click.option("--offline", is_flag=True, help="Never open a socket.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    system: str | None,
    load: Path | None,
    think: bool | None,
    given: tuple[str, ...],
    dtype: str | None,
    as_json: bool,
    offline: bool,
    **wishes: Any,
) -> None:
    """Talk with a model. /help lists what can be typed beside questions; Ctrl-C stops an answer, Ctrl-D ends.

    Where standard input is no terminal, each of its lines is a question or a command; --json then prints the whole talk
    at its end.

    \b
    pellucid chat -m ./qwen3 --no-think --temperature 0.7
    echo "Why is the sky blue?" | pellucid chat -m ./qwen3 --json
    """
    if as_json and sys.stdin.isatty():
        raise click.UsageError("--json is for scripts: questions come from standard input", ctx)
    if model is None:
        what = "the model inside the package tells stories; it was not trained to talk"
        raise ArgumentError(what, where="-m", next="-m DIR_OR_ID of a chat model; pellucid generate for a story")
    folder = hub.resolve(model, offline=offline or None)

    from pellucid.engine.options import read_options
    from pellucid.tasks.chat import Chat, require_template
    from pellucid.text.tokenizer import Tokenizer

    options = read_options(folder).merged(as_options(**wishes))
    options.check()
    tokenizer = Tokenizer.from_folder(folder)
    require_template(tokenizer)  # before the weights are read
    messages = [] if load is None else read_messages(load)
    chat = Chat(open_model(folder, dtype), tokenizer, options)
    talk = Talk(chat, str(folder), set() if load is None else {load.absolute()})
    for name, value in settings(given, think, variables_of(tokenizer)):
        set_value(chat, name, value)
    chat.load(messages)
    if system is not None:
        talk.system(system)
    if chat.missed:
        click.echo(missed_text(*chat.missed), err=True)
    screen = Screen(talk, plain=not (sys.stdin.isatty() and sys.stdout.isatty()), silent=as_json)
    failed = screen.run()
    if as_json:
        print_json({"model": str(folder), "messages": chat.messages, "turns": screen.turns})
    ctx.exit(2 if failed else 0)


def settings(given: tuple[str, ...], think: bool | None, known: list[str]) -> Iterator[tuple[str, str]]:
    """What --set, --think and --no-think say."""
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise ArgumentError(f"--set {each}", where="--set", next="--set NAME=VALUE")
        yield name, value
    if think is not None:
        name = next((name for name in THINKING if name in known), "")
        if not name:
            what = f"the chat template reads neither of {', '.join(THINKING)}"
            raise ArgumentError(what, where="--think", next=f"it reads: {', '.join(known) or 'nothing of that kind'}")
        yield name, str(think)


def missed_text(text: str, i: int) -> str:
    return (
        f"pellucid chat: the template ends an answer with {text!r} = {i}, and generation_config.json does not name it "
        "among its ends; it ends answers here"
    )


@dataclass
class Screen:
    """The loop: a line is read, a command done or a question answered, until the input ends.

    plain: lines from a pipe, answers as they are; else a terminal with a prompt, history and dim reasoning.
    silent: answers are not printed.
    """

    talk: Talk
    plain: bool
    silent: bool = False
    failed: int = 0
    turns: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> int:
        """How many lines failed."""
        if not self.plain:
            chat = self.talk.chat
            context = f", context {chat.model.spec.context}" if chat.model.spec.context else ""
            self.note(f"{Path(self.talk.model).name}{context}; /help, Ctrl-D ends")
        for line in read_lines() if self.plain else self.typed():
            try:
                self.act(line)
            except Quit:
                break
            except PellucidError as error:
                self.failed += 1
                click.echo(f"pellucid chat: {error}", err=True)
        return self.failed

    def act(self, line: str) -> None:
        if not line.strip():
            return
        command = line.startswith("/") and not line.startswith("//")  # "//" begins a question with a slash
        found = self.talk.do(line) if command else self.talk.chat.ask(line[line.startswith("//") :])
        if not isinstance(found, str):
            self.stream(found)
        elif found and not self.silent:
            click.echo(found if self.plain else printable(found))

    # ---- answers -----------------------------------------------------------------------------------------

    def stream(self, deltas: Iterator[Delta]) -> None:
        """Prints an answer. Ctrl-C stops it; a second one at once, whatever the model is doing."""
        chat = self.talk.chat
        dim = False
        try:
            with interrupts(lambda: setattr(chat, "stopped", True)):
                for delta in deltas:
                    dim = self.show(delta, dim)
        except KeyboardInterrupt:
            chat.forget()
        finally:
            if not self.silent:
                click.echo(PLAIN if dim else "")
        turn = chat.turn
        self.turns.append(asdict(turn))
        self.end(turn.finish, turn.prompt + turn.new)

    def show(self, delta: Delta, dim: bool) -> bool:
        """Prints a piece; whether it is dim, as reasoning is."""
        from pellucid.text.answers import Arguments, CallEnd, CallStart, Content, Malformed, Reasoning

        match delta:
            case Reasoning():
                text = "" if self.plain else ("" if dim else DIM) + printable(delta.text)
            case Content() | Arguments() | Malformed():
                text = delta.text if self.plain else printable(delta.text)
            case CallStart():
                text = f"[calls {delta.name} "
            case CallEnd():
                text = "]\n"
        now = isinstance(delta, Reasoning) and not self.plain
        if not self.silent:
            click.echo((f"{PLAIN}\n\n" if dim and not now else "") + text, nl=False)
        return now

    def end(self, finish: str, held: int) -> None:
        """Says why an answer ended, where it is not the model that ended it."""
        context = self.talk.chat.model.spec.context
        if finish == "interrupted":
            self.note("(stopped; what was said so far stays in the talk. /undo, /retry)")
        elif finish == "length" and context is not None and held >= context:
            self.note(f"(the context of {context} tokens is full: /undo takes a turn back, /reset begins anew)")
        elif finish == "length":
            self.note(f"(cut off after {self.talk.chat.turn.new} tokens: /set max_new_tokens N)")

    def note(self, text: str) -> None:
        click.echo(text if self.plain else f"{DIM}{text}{PLAIN}", err=self.plain)

    # ---- questions ---------------------------------------------------------------------------------------

    def typed(self) -> Iterator[str]:
        """Texts that are typed. Ctrl-C clears the line, and ends the talk when it was empty twice."""
        with suppress(ImportError):
            import readline  # noqa: F401  input() then edits lines and remembers them
        pressed = False
        while True:
            try:
                text = whole_text(input)
                pressed = False
                yield text
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                if pressed:
                    return
                pressed = True
                self.note("(Ctrl-C again, or Ctrl-D, ends the talk)")


def whole_text(ask: Any) -> str:
    """One text: a line, lines that end in a backslash and the next, or all between two fences."""
    line: str = ask("> ")
    lines = []
    if line.startswith(FENCE):
        line = line.removeprefix(FENCE)
        while not line.endswith(FENCE):
            lines.append(line)
            line = ask(". ")
        line = line.removesuffix(FENCE)
    else:
        while line.endswith("\\"):
            lines.append(line[:-1])
            line = ask(". ")
    return "\n".join([*lines, line]).strip("\n")


def read_lines() -> Iterator[str]:
    """Texts from a pipe; several lines in the same two ways."""
    lines = iter(sys.stdin.buffer)

    def ask(prompt: str) -> str:
        data = next(lines, None)
        if data is None:
            raise EOFError
        try:
            return data.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"a line is not UTF-8: {error}", where="standard input", next="convert it") from None

    while True:
        try:
            yield whole_text(ask)
        except EOFError:
            return


def printable(text: str) -> str:
    """Without what a terminal would act on, but for line ends and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t\u200d" else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def interrupts(first: Any) -> Iterator[None]:
    """Ctrl-C calls `first`; the next one raises KeyboardInterrupt as usual."""

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        first()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
