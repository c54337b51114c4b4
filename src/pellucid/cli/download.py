"""pellucid download: the files of a model, fetched and not loaded. No torch."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from pellucid import hub
from pellucid.cli._command import INTERRUPTED, Command, json_option, print_json
from pellucid.cli._folder import size_text

MOST = 8  # names of files left out that are shown


@click.command("download", cls=Command)
@click.argument("name", metavar="ID")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only such files, as in *.gguf; repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No such files; repeatable.")
@click.option("--revision", metavar="R", help="A branch, a tag or a commit; default: main.")
@click.option("--all", "everything", is_flag=True, help="Every file, also what Pellucid does not read.")
@click.option("--token", metavar="TOKEN", help="For a private or gated model; default: what `hf auth login` stored.")
@click.option("--quiet", is_flag=True, help="No progress.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    revision: str | None,
    everything: bool,
    token: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fetch the files of the model ID into the cache that Hugging Face's tools share; print their folder.

    Without --include: what Pellucid reads, which is config, tokenizer, card, and weights as safetensors where there are
    such. A connection that breaks is taken up where it broke. After a stop the same command goes on: with the files
    that are missing, and in a large one (16 MB) where it ended.

    \b
    pellucid download sentence-transformers/all-MiniLM-L6-v2
    pellucid download org/model --include "*Q4_K_M.gguf" --revision v1.0
    pellucid download org/model --all --exclude "onnx/*"
    """
    if everything and include:
        raise click.UsageError("--all and --include contradict each other")
    try:
        found = hub.download(
            name, include=include, exclude=exclude, revision=revision, token=token, everything=everything,
            progress=sys.stderr.isatty() and not quiet,
        )  # fmt: skip
    except KeyboardInterrupt:
        click.echo("pellucid download: stopped; the files that came are kept", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        print_json({**asdict(found), "bytes": sum(found.files.values())})
        return
    click.echo(str(found.folder))
    size = size_text(sum(found.files.values()))
    click.echo(f"{len(found.files)} files, {size}, revision {found.commit}", err=True)
    if found.left_out:
        names = [*found.left_out]
        more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
        size = size_text(sum(found.left_out.values()))
        click.echo(f"left out: {', '.join(names[:MOST])}{more} ({size}; --all fetches them)", err=True)
