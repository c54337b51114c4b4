"""What every command does in the same way: print errors, print JSON, take `--json`."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import click

from pellucid.errors import InputError, NotAModel, PellucidError
from pellucid.text.lines import PAUSE, Lines, arriving

INTERRUPTED = 130  # what shells report after Ctrl-C


class Option(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class Command(click.Command):
    """A command that prints an error's three parts instead of a traceback, and exits with 2; a warning is a line."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            line = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if line is not None:
                headings.setdefault(getattr(option, "heading", "Options"), []).append(line)
        for heading, lines in headings.items():
            with formatter.section(heading):
                formatter.write_dl(lines)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = lambda message, *place: click.echo(f"pellucid {self.name}: {message}", err=True)
                return super().invoke(ctx)
        except PellucidError as error:
            self.report(ctx, error)
        except BrokenPipeError:
            raise  # the reader of our output left; click ends quietly
        except OSError as error:
            what = error.strerror or str(error)
            next = "check the file and its permissions" if error.filename else "check what the output goes to"
            self.report(ctx, NotAModel(what, where=error.filename or "", next=next))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def report(self, ctx: click.Context, error: PellucidError) -> None:
        if ctx.params.get("as_json"):
            with suppress(OSError):  # which may be what the error is about
                print_json_line(error.to_dict())  # among others
        click.echo(f"pellucid {self.name}: {error}", err=True)
        ctx.exit(2)


@contextmanager
def unbroken() -> Iterator[None]:
    """Ctrl-C waits until what is within is done, so that it is known what was; a second one does not."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # nobody presses it, or somebody else listens
        yield
        return
    came = False

    def handle(*signalled: Any) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for scripts.")


def print_json(value: Any) -> None:
    """One JSON object; what JSON has no form for is written as text."""
    click.echo(printable(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def print_json_line(value: Any, default: Callable[[Any], Any] = str) -> None:
    """The same in one line; `default` is what becomes of what JSON has no form for."""
    click.echo(printable(json.dumps(value, ensure_ascii=False, default=default)))


def printable(text: str) -> str:
    """Text that every terminal takes: names in a file may hold bytes that are no UTF-8. Escaped as in JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_text(given: str | None, name: str, *, most: int | None = None) -> str:
    """A text argument: what was given, standard input without its last newline for "-", nothing for None.

    Args:
        most: bytes of standard input that are accepted.

    Raises:
        InputError: the text is no UTF-8, or there is more of it.
    """
    try:
        if given == "-":
            data = stdin().read(-1 if most is None else most + 1)
            if most is not None and len(data) > most:
                what = f"more than {most:,} bytes on standard input"
                raise InputError(what, where=name, next="--lines takes one line at a time, however many there are")
            return data.decode().removesuffix("\n")
        (given or "").encode()  # the shell may pass bytes that are no text
    except UnicodeError as error:
        raise InputError(f"{name} is not UTF-8: {error}", where=name, next="convert it to UTF-8") from None
    return given or ""


def texts_of(texts: tuple[str, ...], path: str | None) -> Iterator[Any]:
    """Texts of arguments, of a file's lines, or of standard input for "-" alone: with a PAUSE where it makes one.

    Raises:
        UsageError: none of them is given, or two.
    """
    if bool(texts) == (path is not None):
        raise click.UsageError("give TEXT ('-' for standard input), or --file")
    if path is not None:
        return iter(Lines(path))
    return arriving(stdin(), "standard input") if texts == ("-",) else iter([read_text(text, "TEXT") for text in texts])


def read_lines(text: str) -> Iterator[str]:
    """Lines of an argument, or of standard input as they come."""
    if text == "-":
        return (line for line in arriving(stdin(), "standard input") if line is not PAUSE)
    return iter(read_text(text, "TEXT").split("\n"))


def stdin() -> IO[bytes]:
    """Standard input.

    Raises:
        InputError: it is closed.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed", where="-", next="give a text, or --file")
    return sys.stdin.buffer
