"""pellucid run: any task of `pipeline`, over a text or over many lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli._command import INTERRUPTED, Command, print_json, print_json_line, printable, texts_of, unbroken
from pellucid.errors import ArgumentError, InputError
from pellucid.text.lines import PAUSE

if TYPE_CHECKING:
    from pellucid.compat.pipelines import Pipeline

# What a line of text is for a task whose input has several parts; the other parts are options of every line.
PARTS = {
    "question-answering": ("context", ("question",)),
    "table-question-answering": ("query", ("table",)),
}


@click.command("run", cls=Command)
@click.argument("task")
@click.argument("text", required=False)
@click.option("-m", "--model", metavar="DIR_OR_ID", help="Default: the task's own, as in transformers.")
@click.option("-o", "--option", "pairs", multiple=True, metavar="NAME=VALUE", help="An option of the task; repeatable.")
@click.option("--file", "path", metavar="FILE", help="One input a line.")
@click.option("--jsonl", is_flag=True, help="Each line is JSON: a string, or an object with the input's parts.")
@click.option("--skip", type=click.IntRange(min=0), default=0, metavar="N", help="Begin behind the first N lines.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@click.option("--device", metavar="NAME", help="cpu, cuda:0 …; default: the CPU.")
@click.option("--quiet", is_flag=True, help="No count of lines while it runs.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each input, for scripts.")
@click.option("--offline", is_flag=True, help="Never open a socket.")
def command(
    task: str,
    text: str | None,
    model: str | None,
    pairs: tuple[str, ...],
    path: str | None,
    jsonl: bool,
    skip: int,
    dtype: str | None,
    device: str | None,
    quiet: bool,
    as_json: bool,
    offline: bool,
) -> None:
    """Do TASK for TEXT, or for each line of a file; TEXT "-" is standard input, a line at a time.

    Results come in the order of the lines, as a table; with --json as one line of JSON each. Ctrl-C keeps what is
    done and says how to go on. VALUE is JSON where it can be read so, else text. TASK is any name that
    pellucid.pipeline knows: text-classification, ner, fill-mask, question-answering, translation_en_to_de …

    \b
    pellucid run sentiment-analysis -m DIR "What a film!"
    pellucid run ner -m DIR -o aggregation_strategy=simple --file letters.txt --json > found.jsonl
    pellucid run zero-shot-classification -m DIR -o candidate_labels=sport,politics "The match ended 3:1."
    pellucid run question-answering -m DIR -o question="Who wrote it?" "The letter was written by Ada."
    zcat reviews.gz | pellucid run text-classification -m DIR - --json
    """
    lines = texts_of(() if text is None else (text,), path)
    options = dict(map(parse_option, pairs))
    line_name, part_names = PARTS.get(task, ("", ()))
    parts = {name: options.pop(name) for name in part_names if name in options}
    missing = [name for name in part_names if name not in parts]
    if missing and not jsonl:
        advice = f"-o {missing[0]}=…, for every {line_name}; or --jsonl, with an object of both in each line"
        raise ArgumentError(f"{task} without a {missing[0]}", where="-o", next=advice)
    pipe = open_pipeline(task, model, dtype, device, offline)
    if text not in (None, "-"):
        show(pipe(read(1, next(lines), parts, line_name, jsonl), **options), as_json)
        return
    from pellucid.tasks.rows import InputRefused

    progress = not quiet and sys.stderr.isatty() and not sys.stdout.isatty()
    run = Run(as_json, skip)
    try:
        for result in pipe(inputs(lines, skip, parts, line_name, jsonl), progress=progress, **options):
            with unbroken():
                run.take(result)
    except KeyboardInterrupt:
        click.echo(f"pellucid run: stopped; --skip {run.done} goes on behind what is done", err=True)
        click.get_current_context().exit(INTERRUPTED)
    except InputRefused as error:
        number = skip + error.row + 1
        advice = f"{error.next}; --skip {number} goes on behind it"
        raise InputError(error.what, where=f"line {number}", next=advice) from None


PYTHON = {"True": True, "False": False, "None": None}


def parse_option(pair: str) -> tuple[str, Any]:
    """`top_k=3` -> ("top_k", 3); what is neither JSON nor a constant of Python's is text."""
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise ArgumentError(f"-o {pair}", where="-o", next="write NAME=VALUE, such as -o top_k=3")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, PYTHON.get(value, value)


def open_pipeline(task: str, model: str | None, dtype: str | None, device: str | None, offline: bool) -> Pipeline:
    from pellucid import hub
    from pellucid.compat.pipelines import pipeline

    folder = None if model is None else hub.resolve(model, offline=offline or None)
    made: Pipeline = pipeline(task, folder, dtype=dtype, device=device)
    return made


# ---- what is read ----------------------------------------------------------------------------------------


def inputs(lines: Iterable[Any], skip: int, parts: dict[str, Any], name: str, jsonl: bool) -> Iterator[Any]:
    """The inputs of lines behind the first few; where more is waited for, that too."""
    number = 0
    for line in lines:
        if line is PAUSE:
            yield line
            continue
        number += 1
        if number > skip:
            yield read(number, line, parts, name, jsonl)


def read(number: int, line: str, parts: dict[str, Any], name: str, jsonl: bool) -> Any:
    """An input of the task: the line, or an object with it.

    Raises:
        InputError: the line is to be JSON and is none.
    """
    given: Any = line
    if jsonl:
        try:
            given = json.loads(line)
        except ValueError as error:
            what = f"line {number} is no JSON: {line[:60]!r}: {error}"
            raise InputError(what, where="--jsonl", next="write one value a line") from None
    if name and isinstance(given, str):
        given = {name: given}
    return {**parts, **given} if isinstance(given, dict) else given


# ---- what is printed -------------------------------------------------------------------------------------


@dataclass
class Run:
    """Results of many lines, printed as they come."""

    as_json: bool
    done: int = 0
    columns: list[str] = field(default_factory=list)

    def take(self, result: Any) -> None:
        if self.as_json:
            print_json_line(result, default=plain)
        else:
            for row in rows(result):
                if [*row] != self.columns:
                    self.columns = [*row]
                    click.echo("\t".join(["line", *self.columns]))
                click.echo(printable("\t".join([str(self.done + 1), *map(cell, row.values())])))
        self.done += 1


def show(result: Any, as_json: bool) -> None:
    """The result of one text: JSON, or columns of even width."""
    if as_json:
        print_json(json.loads(json.dumps(result, default=plain)))
        return
    found = [{key: cell(value) for key, value in row.items()} for row in rows(result)]
    if not found:
        click.echo("nothing found", err=True)
        return
    if len(found) == 1 and len(found[0]) == 1:
        click.echo(printable(*found[0].values()))  # a text by itself
        return
    names = [*found[0]]
    width = {name: max(len(name), *(len(row.get(name, "")) for row in found)) for name in names}
    for row in [dict(zip(names, names)), *found]:
        click.echo(printable("  ".join(row.get(name, "").ljust(width[name]) for name in names).rstrip()))


def rows(result: Any) -> Iterable[dict[str, Any]]:
    """A result as rows of a table: `[{…}, …]`, `{…}`, nested lists of them, or labels and their scores."""
    if isinstance(result, dict):
        if not result.keys() >= {"sequence", "labels", "scores"}:
            return [result]
        lost = {key: result[key] for key in ("truncated_tokens",) if key in result}
        return [{"label": label, "score": score, **lost} for label, score in zip(result["labels"], result["scores"])]
    if isinstance(result, list) and result and all(isinstance(each, (dict, list)) for each in result):
        return [row for each in result for row in rows(each)]
    return [] if result == [] else [{"result": result}]


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, str):
        return value.replace("\t", " ").replace("\n", " ")
    return json.dumps(value, ensure_ascii=False, default=plain)


def plain(value: Any) -> Any:
    """Numbers that JSON has no form for."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
