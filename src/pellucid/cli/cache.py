"""pellucid cache: the models that Hugging Face's tools and Pellucid have fetched. No torch."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from pellucid import hub
from pellucid.cli._command import Command, json_option, print_json
from pellucid.cli._folder import size_text
from pellucid.errors import NotAModel, nearest

SHORT = 12  # characters of a commit that are shown
DAY = 86400


@click.group("cache")
def command() -> None:
    """List the models in Hugging Face's cache, or remove some. Both commands take --json.

    \b
    pellucid cache list
    pellucid cache remove org/model
    """


@command.command("list", cls=Command, short_help="Each model with its revisions, their sizes, and when they were read.")
@json_option
def listing(as_json: bool) -> None:
    """Each model with its revisions, their sizes, and when they were read last.

    \b
    pellucid cache list
    """
    found = hub.cached()
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        click.echo("the cache is empty", err=True)
        return
    width = max(len(one.name) for one in found)
    now = time.time()
    for one in found:
        refs = f"  ({', '.join(one.refs)})" if one.refs else ""
        days = int(max(now - one.used, 0) // DAY)
        used = "today" if not days else f"{days} day{'s' if days > 1 else ''} ago"
        line = f"{one.name:<{width}}  {one.commit[:SHORT]}  {size_text(one.nbytes):>9}  {one.files:>3} files"
        click.echo(f"{line}  read {used}{refs}")
    names = len({one.name for one in found})
    click.echo(f"\n{names} models, {len(found)} revisions", err=True)


@command.command("remove", cls=Command)
@click.argument("name", metavar="ID")
@click.option("--revision", metavar="R", help="Only this one: a branch, a tag, or the beginning of a commit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def removing(name: str, revision: str | None, yes: bool, as_json: bool) -> None:
    """Remove the model ID, or one revision of it, after asking.

    \b
    pellucid cache remove org/model
    pellucid cache remove org/model --revision v1.0 --yes
    """
    there = hub.cached()
    found = [one for one in there if one.name == name and meant(one, revision)]
    if not found:
        names = sorted({one.name for one in there})
        known = [f"{one.commit[:SHORT]} {' '.join(one.refs)}".strip() for one in there if one.name == name]
        hint = f"revisions: {', '.join(known)}" if known else nearest(name, names) or "pellucid cache list shows all"
        what = f"{name!r} is not in the cache" + (f" at {revision!r}" if known else "")
        raise NotAModel(what, next=hint)
    size = size_text(sum(one.nbytes for one in found))
    for one in found:
        click.echo(f"{one.name} {one.commit[:SHORT]}, {size_text(one.nbytes)} in {one.folder}", err=True)
    if not yes:
        click.confirm(f"Remove {len(found)} revision{'s' if len(found) > 1 else ''}, {size}?", abort=True, err=True)
    freed = hub.remove(found)
    print_json({"removed": [asdict(one) for one in found], "freed": freed}) if as_json else click.echo(
        f"{size_text(freed)} are free"
    )


def meant(one: hub.Cached, revision: str | None) -> bool:
    """Whether a revision is the one that was asked for."""
    return revision is None or revision in one.refs or (len(revision) > 5 and one.commit.startswith(revision))
