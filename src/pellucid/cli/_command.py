"""What every command does in the same way: print errors, print JSON, take `--json`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click

from pellucid.errors import InputError, NotAModel, PellucidError

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
            self.report(ctx, NotAModel(what, where=error.filename or "", next="check the file and its permissions"))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def report(self, ctx: click.Context, error: PellucidError) -> None:
        if ctx.params.get("as_json"):
            print_json(error.to_dict())
        click.echo(f"pellucid {self.name}: {error}", err=True)
        ctx.exit(2)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for scripts.")


def print_json(value: Any) -> None:
    """One JSON object; what JSON has no form for is written as text."""
    click.echo(printable(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


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
            data = sys.stdin.buffer.read(-1 if most is None else most + 1)
            if most is not None and len(data) > most:
                what = f"more than {most:,} bytes on standard input"
                raise InputError(what, where=name, next="--lines takes one line at a time, however many there are")
            return data.decode().removesuffix("\n")
        (given or "").encode()  # the shell may pass bytes that are no text
    except UnicodeError as error:
        raise InputError(f"{name} is not UTF-8: {error}", where=name, next="convert it to UTF-8") from None
    return given or ""


def texts_of(texts: tuple[str, ...], path: str | None) -> Iterator[str]:
    """Texts of arguments, of standard input for "-" alone, or of a file's lines.

    Raises:
        UsageError: none of them is given, or two.
    """
    if bool(texts) == (path is not None):
        raise click.UsageError("give TEXT ('-' for standard input), or --file")
    if path is not None:
        from pellucid.tasks.flow import Lines

        return iter(Lines(path))
    return read_lines("-") if texts == ("-",) else iter([read_text(text, "TEXT") for text in texts])


def read_lines(text: str) -> Iterator[str]:
    """Lines of an argument, or of standard input as they come."""
    if text != "-":
        yield from read_text(text, "TEXT").split("\n")
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode().removesuffix("\n")
        except UnicodeDecodeError as error:
            what = f"line {number} is not UTF-8: {error}"
            raise InputError(what, where="standard input", next="convert it to UTF-8") from None
