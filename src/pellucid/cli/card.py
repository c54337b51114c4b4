"""pellucid card: what a model's card says. No torch."""

from __future__ import annotations

from dataclasses import asdict

import click

from pellucid import hub
from pellucid.cli._command import Command, json_option, print_json, printable
from pellucid.cli._folder import table_text
from pellucid.errors import NotAModel
from pellucid.text.card import Card, read_card
from pellucid.text.licenses import for_commercial_use

MOST = 12  # names of a list, and lines of a section, that are shown


@click.command("card", cls=Command)
@click.argument("model")
@click.option("--text", "whole", is_flag=True, help="The card itself, below its head.")
@json_option
@click.option("--revision", metavar="R", help="A branch, a tag or a commit of a hub id.")
@click.option("--offline", is_flag=True, help="Never open a socket.")
def command(model: str, whole: bool, as_json: bool, revision: str | None, offline: bool) -> None:
    """Show the card of MODEL (a folder, a hub id): licence, languages, data, limitations, evaluation results.

    A .gguf file has a card inside, in its metadata: licence, languages, data, and what it was made from.

    \b
    pellucid card ./gemma
    pellucid card sentence-transformers/all-MiniLM-L6-v2 --json
    """
    folder = hub.resolve(model, want="card", revision=revision, offline=offline or None)
    card = read_card(folder)
    if card is None:
        raise NotAModel("there is no model card", where=folder, next="a card is a README.md in the model's folder")
    if as_json:
        print_json({"folder": str(folder), **asdict(card), "commercial_use": asdict(for_commercial_use(card))})
    else:
        click.echo(printable(card.text if whole else page(card)))


def page(card: Card) -> str:
    """The card on one screen."""
    verdict = for_commercial_use(card)
    named = f" ({card.license_name})" if card.license_name else ""
    lines = [
        ("license", f"{card.license or 'not said'}{named}"),
        ("", f"commercial use: {verdict.level}; {verdict.why}"),
    ]
    for label, names in (
        ("languages", card.languages), ("made from", card.base_models), ("data", card.datasets), ("tags", card.tags),
    ):  # fmt: skip
        if names:
            more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
            lines.append((label, ", ".join(names[:MOST]) + more))
    lines += [(label, word) for label, word in (("task", card.pipeline_tag), ("library", card.library)) if word]
    for one in card.results:
        lines.append(
            ("results", f"{one.task}, {one.dataset}: {one.metric} {one.value}{' (verified)' if one.verified else ''}")
        )
    for heading, text in card.limitations:
        kept = [line for line in text.splitlines() if line.strip()]
        lines += [("limitations", f"{heading}:"), *(("limitations", f"  {line}") for line in kept[:MOST])]
        if len(kept) > MOST:
            lines.append(("limitations", f"  … {len(kept) - MOST} more lines: --text"))
    return table_text(lines)
