"""The command line: `pellucid COMMAND`, each in a file of its name.

A command's file is imported when it is called, torch inside the functions that need it: help is instant.
"""

from __future__ import annotations

import gc
from importlib import import_module

import click

from pellucid.errors import nearest

# command -> its line in `pellucid --help`
COMMANDS = {
    "generate": "Continue a text with a language model.",
    "run": "Do a task for a text, or for every line of a file.",
    "embed": "Turn texts into vectors that say how alike they are.",
    "rerank": "Put texts in the order of how well they answer a query.",
    "show": "Say what a model is: its parts, or the code that it runs.",
    "chat": "Talk with a model that has a chat template.",
    "tokenize": "Show the tokens of a text, or the text of ids.",
    "check": "Look over a model folder and its files; or else this machine.",
    "quantize": "Write a model in fewer bits: GGUF, or packed safetensors.",
    "convert": "Write a model in another container: safetensors to GGUF, or back.",
    "families": "List the model types that load, and how exact they are.",
    "diff": "Find the first value where two models part.",
    "plan": "Say what a model takes, and how fast it can be here.",
    "bench": "Measure prompt and decode speed, memory, share of the bandwidth.",
    "eval": "Measure how good a model is at a task, on known answers.",
    "card": "Show what a model's card says: licence, data, limits, results.",
    "download": "Fetch the files of a model; nothing is loaded.",
    "cache": "List the models that were fetched, or remove some.",
    "completion": "Print what a shell needs to complete commands and options.",
}


class Commands(click.Group):
    """Commands by their names in `COMMANDS`, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"pellucid.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = nearest(args[0], COMMANDS) or f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"No such command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pellucid", prog_name="pellucid", message="%(prog)s %(version)s")
def main() -> None:
    """Pretrained transformers, clear enough to see through.

    \b
    pellucid generate                        a story, from the small model inside the package
    pellucid generate -m DIR "Dear reader,"  a continuation
    pellucid chat -m DIR                     a talk
    pellucid run ner -m DIR "Ada saw Bob."   any task of pellucid.pipeline, for a text or for lines
    pellucid embed -m DIR "A cat." "A dog."  vectors, and how alike the texts are
    pellucid eval TASK -m DIR --data FILE    how good it is, on known answers
    pellucid download org/model              its files, nothing loaded; pellucid cache lists them
    pellucid show DIR                        what this model is
    pellucid tokenize -m DIR "Dear reader,"  its tokens, their ids and places
    pellucid check DIR                       whether this folder holds together
    pellucid check                           what this machine has, and what is missing
    pellucid quantize DIR x.gguf --to q4_k_m the same model in fewer bits
    pellucid convert x.gguf DIR              the same model in another container
    pellucid plan DIR                        what it takes, and how fast it can be here
    pellucid bench DIR                       how fast it is
    pellucid families                        which architectures there are
    pellucid diff A B                        where two models part
    """
    # To import torch makes 180,000 objects and no garbage: to look for it takes a fifth of a second.
    gc.set_threshold(100_000, 50, 100)
