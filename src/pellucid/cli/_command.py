"""What every command does in the same way: print errors, print JSON, take `--json`."""

from __future__ import annotations

import json
from typing import Any

import click

from pellucid.errors import NotAModel, PellucidError

INTERRUPTED = 130  # what shells report after Ctrl-C


class Command(click.Command):
    """A command that prints an error's three parts instead of a traceback, and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
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
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
