"""What the commands that generate are told about the next token, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pellucid.cli._command import Option

F = TypeVar("F", bound=Callable[..., Any])

HEADING = "Which token comes next"
OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--greedy", {"is_flag": True, "help": "Always the most likely token."}),
    ("--temperature", {"type": float, "metavar": "F", "help": "Divides the logits; 0 is greedy."}),
    ("--top-k", {"type": int, "metavar": "N", "help": "Only the N most likely tokens; 0 for all."}),
    ("--top-p", {"type": float, "metavar": "F", "help": "Only the most likely tokens that together reach F."}),
    ("--min-p", {"type": float, "metavar": "F", "help": "Only tokens F times as likely as the first."}),
    ("--repetition-penalty", {"type": float, "metavar": "F", "help": "Divides the logits of tokens that occurred."}),
)
DRAWING = ("temperature", "top_k", "top_p", "min_p")


def choosing(heading: str = "Options") -> Callable[[F], F]:
    """These options, for a command."""

    def add(function: F) -> F:
        for name, settings in reversed(OPTIONS):
            function = click.option(name, cls=Option, heading=heading, **settings)(function)
        return function

    return add


def as_options(*, greedy: bool, **options: Any) -> dict[str, Any]:
    """The options of `generate` that the command line asked for; None where it did not."""
    if not greedy:
        return options
    for name in DRAWING:
        if options[name] is not None:
            raise click.UsageError(f"--greedy leaves nothing to --{name.replace('_', '-')}; give one of them")
    return {**options, "do_sample": False}
