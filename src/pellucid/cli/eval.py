"""pellucid eval: how good a model is at a task, on examples whose answers are known."""

from __future__ import annotations

import json
import sys

import click

from pellucid.cli._command import Command
from pellucid.cli.run import parse_option
from pellucid.errors import ArgumentError


@click.command("eval", cls=Command)
@click.argument("task", metavar="TASK")
@click.option("-m", "--model", metavar="DIR_OR_ID", help="Default: the task's own, as in pellucid run.")
@click.option("--data", metavar="FILE", required=True, help="Examples: .jsonl, .json, .csv or .tsv.")
@click.option("--column", "columns", multiple=True, metavar="NAME=OTHER", help="What the data calls it; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only so many examples, the first.")
@click.option("-o", "--option", "pairs", multiple=True, metavar="NAME=VALUE", help="An option of the task; repeatable.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@click.option("--device", metavar="NAME", help="cpu, cuda:0 …; default: the CPU.")
@click.option("--quiet", is_flag=True, help="No count of examples while it runs.")
@click.option("--json", "as_json", is_flag=True, help="Only the last line: one JSON object.")
@click.option("--offline", is_flag=True, help="Never open a socket.")
def command(
    task: str,
    model: str | None,
    data: str,
    columns: tuple[str, ...],
    limit: int | None,
    pairs: tuple[str, ...],
    dtype: str | None,
    device: str | None,
    quiet: bool,
    as_json: bool,
    offline: bool,
) -> None:
    """Measure a model at TASK on the examples of a file; the last line is one JSON object.

    \b
    text-classification   text, label (and text_pair)      accuracy, F1 macro and micro
    token-classification  words, tags                      precision, recall, F1 of entities, as seqeval
    question-answering    question, context, answers       exact match, F1, as SQuAD
    summarization         text, target                     ROUGE
    translation           text, target                     BLEU, chrF
    text2text-generation  text, target                     all four
    text-generation       text                             perplexity
    sentence-similarity   sentence1, sentence2, score      Spearman's correlation
    retrieval             query, positive (and negative)   nDCG@10, MRR@10, among all that the file has
    reranking             query, documents, relevance      nDCG@10, MRR@10

    \b
    pellucid eval text-classification -m DIR --data test.tsv --column text=sentence
    pellucid eval question-answering -m DIR --data dev.jsonl --limit 500
    """
    from pellucid import hub
    from pellucid.compat.evaluation import evaluate

    named = {}
    for pair in columns:
        name, equals, other = pair.partition("=")
        if not equals or not other:
            raise ArgumentError(f"--column {pair}", where="--column", next="write NAME=OTHER, as in text=sentence")
        named[name] = other
    folder = None if model is None else hub.resolve(model, offline=offline or None)
    found = evaluate(
        task, folder, data, columns=named, limit=limit, options=dict(map(parse_option, pairs)), dtype=dtype,
        device=device, progress=not quiet and sys.stderr.isatty(),
    )  # fmt: skip
    if not as_json:
        click.echo(f"{found.task}, {found.examples} examples, {found.model}")
        for each in found.measures:
            click.echo(f"  {each.name:<14}{each.value:10.4f}   95 %: {each.low:.4f} to {each.high:.4f}")
        if found.cut:
            click.echo(f"  {found.cut} texts were too long and were cut")
    click.echo(json.dumps(found.facts()))
