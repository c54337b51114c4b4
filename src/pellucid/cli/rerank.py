"""pellucid rerank: texts in the order of how well they answer a query."""

from __future__ import annotations

import sys

import click

from pellucid.cli._command import Command, json_option, print_json, printable, texts_of
from pellucid.cli.run import open_pipeline
from pellucid.text.lines import PAUSE

FEW = 64  # texts that take no time worth a count


@click.command("rerank", cls=Command)
@click.argument("query")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("-m", "--model", metavar="DIR_OR_ID", help="Default: cross-encoder/ms-marco-MiniLM-L6-v2.")
@click.option("--file", "path", metavar="FILE", help="One text a line, UTF-8.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="N", help="Only the best.")
@click.option("--prompt", metavar="TEXT", help="Stands before QUERY; of a language model, what it is told to look for.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@click.option("--device", metavar="NAME", help="cpu, cuda:0 …; default: the CPU.")
@click.option("--quiet", is_flag=True, help="No count of texts while it runs.")
@json_option
@click.option("--offline", is_flag=True, help="Never open a socket.")
def command(
    query: str,
    texts: tuple[str, ...],
    model: str | None,
    path: str | None,
    top_k: int | None,
    prompt: str | None,
    dtype: str | None,
    device: str | None,
    quiet: bool,
    as_json: bool,
    offline: bool,
) -> None:
    """Each TEXT with the score that a cross-encoder gives it as an answer to QUERY, the best first.

    TEXT "-" is standard input, a line at a time. The number in front is the text's place among those given, from 0.

    \b
    pellucid rerank "How many people live in Berlin?" "Berlin has museums." "Berlin has 3.5 million."
    pellucid rerank -m DIR "How many people live in Berlin?" --file passages.txt --top-k 5
    """
    documents = [text for text in texts_of(texts, path) if text is not PAUSE]
    pipe = open_pipeline("reranking", model, dtype, device, offline)
    counted = not quiet and sys.stderr.isatty() and len(documents) > FEW
    found = pipe(query, documents=documents, top_k=top_k, prompt=prompt, progress=counted)
    if as_json:
        print_json(found)
        return
    for one in found:
        lost = f"  ({one['truncated_tokens']} tokens dropped)" if "truncated_tokens" in one else ""
        text = one["text"].replace("\t", " ").replace("\n", " ")
        click.echo(printable(f"{one['score']:9.4f}  {one['corpus_id']:>4}  {text}{lost}"))
