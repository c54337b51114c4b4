"""pellucid embed: texts to vectors, to a terminal, as lines of JSON, or into a file of numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pellucid.cli._command import INTERRUPTED, Command, print_json_line, printable, texts_of
from pellucid.cli.run import open_pipeline
from pellucid.text.lines import PAUSE

if TYPE_CHECKING:
    from pellucid.compat.pipelines.sentences import SentenceEmbeddingPipeline
    from pellucid.tasks.sentences import Embedding

COMPARED = 12  # texts at most of which the terminal shows how near they are


@click.command("embed", cls=Command)
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("-m", "--model", metavar="DIR_OR_ID", help="Default: sentence-transformers/all-MiniLM-L6-v2.")
@click.option("--file", "path", metavar="FILE", help="One text a line, UTF-8.")
@click.option("--out", type=Path, metavar="FILE.npy", help="Write the vectors there, float32 [N, D].")
@click.option("--prompt", metavar="TEXT", help="Stands before each text.")
@click.option("--prompt-name", metavar="NAME", help="One of the model's prompts: query, document …")
@click.option("--task", metavar="NAME", help="query, document …: the route, of a model that has several.")
@click.option("--windows", is_flag=True, help="Read all of a text that is too long, in windows; else it is cut.")
@click.option("--dim", type=click.IntRange(min=1), metavar="N", help="Only so many dimensions, the first.")
@click.option("--normalize", is_flag=True, help="To length 1.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@click.option("--device", metavar="NAME", help="cpu, cuda:0 …; default: the CPU.")
@click.option("--quiet", is_flag=True, help="No count of texts while it runs.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each text, for scripts.")
@click.option("--offline", is_flag=True, help="Never open a socket.")
def command(
    texts: tuple[str, ...],
    model: str | None,
    path: str | None,
    out: Path | None,
    prompt: str | None,
    prompt_name: str | None,
    task: str | None,
    windows: bool,
    dim: int | None,
    normalize: bool,
    dtype: str | None,
    device: str | None,
    quiet: bool,
    as_json: bool,
    offline: bool,
) -> None:
    """A vector for each TEXT, whose nearness says how alike texts are; TEXT "-" is standard input, a line at a time.

    A few texts are shown with their similarities. --json prints a line for each text: the text, its tokens, how many
    were dropped, and the vector. Ctrl-C keeps what is done.

    \b
    pellucid embed "It is warm outside." "The sun shines." "He drove to the stadium."
    pellucid embed -m DIR --file sentences.txt --out vectors.npy
    zcat sentences.gz | pellucid embed -m DIR - --json > vectors.jsonl
    """
    given = texts_of(texts, path)
    pipe: Any = open_pipeline("sentence-embedding", model, dtype, device, offline)
    counted = not quiet and sys.stderr.isatty() and (out is not None or not sys.stdout.isatty())
    options = {
        "prompt": prompt, "prompt_name": prompt_name, "windows": windows, "truncate_dim": dim,
        "normalize_embeddings": normalize, "task": task,
    }  # fmt: skip
    found = embedded(pipe, given, counted, options)
    if out is not None:
        with Vectors(out) as file:
            kept(found, lambda text, one: file.add(one))
        click.echo(f"{file.rows} vectors of {file.width} dimensions in {out}", err=True)
    elif as_json:
        kept(found, print_line)
    elif texts in ((), ("-",)):
        kept(found, lambda text, one: click.echo(" ".join(f"{x:.6g}" for x in one.vector.tolist())))
    else:
        show(list(found), pipe)


def embedded(
    pipe: SentenceEmbeddingPipeline, texts: Iterator[str], counted: bool, options: dict[str, Any]
) -> Iterator[tuple[str, Embedding]]:
    """Each text and what the model makes of it, as they come."""
    from collections import deque

    waiting: deque[str] = deque()

    def noted() -> Iterator[str]:
        for text in texts:
            if text is not PAUSE:
                waiting.append(text)
            yield text

    for one in pipe(noted(), progress=counted, return_embeddings=True, **options):
        yield waiting.popleft(), one


def kept(found: Iterator[tuple[str, Embedding]], take: Callable[[str, Embedding], None]) -> None:
    """Takes all, or what is done when Ctrl-C comes."""
    try:
        for text, one in found:
            take(text, one)
    except KeyboardInterrupt:
        click.echo("pellucid embed: stopped; what is done is kept", err=True)
        click.get_current_context().exit(INTERRUPTED)


def print_line(text: str, one: Embedding) -> None:
    line = {"text": text, "tokens": one.tokens, "dropped": one.dropped, "vector": one.vector.tolist()}
    print_json_line(line)


def show(found: list[tuple[str, Embedding]], pipe: SentenceEmbeddingPipeline) -> None:
    """A page: each text with the beginning of its vector, then how near they are to each other."""
    from pellucid.tasks.vectors import SIMILARITIES

    for number, (text, one) in enumerate(found, 1):
        begin = " ".join(f"{x:7.4f}" for x in one.vector[:4].tolist())
        lost = f", {one.dropped} dropped" if one.dropped else ""
        click.echo(printable(f"{number:>3}  {text[:48]:<48}  {one.tokens} tokens{lost}  [{begin} … {len(one.vector)}]"))
    if not 2 <= len(found) <= COMPARED:
        return
    name = pipe.made.layout.similarity
    scores = SIMILARITIES[name][0](*[[one.vector for _, one in found]] * 2)
    click.echo(f"\n{name} " + "".join(f"{number:>8}" for number in range(1, len(found) + 1)))
    for number, row in enumerate(scores.tolist(), 1):
        click.echo(f"{number:>{len(name)}} " + "".join(f"{score:8.4f}" for score in row))


class Vectors:
    """A .npy file that grows by one row at a time; it takes its place when the block ends, whole or stopped."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.width = path, 0, 0
        self.part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Vectors:
        self.file: IO[bytes] = open(self.part, "wb")  # noqa: SIM115  closed in __exit__
        return self

    def add(self, one: Embedding) -> None:
        if not self.rows:
            self.width = len(one.vector)
            self._header()
        self.file.write(one.vector.float().cpu().numpy().tobytes())
        self.rows += 1

    def _header(self) -> None:
        """numpy leaves room in a header for a first axis that grows."""
        import numpy as np

        self.file.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.width)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            with self.file:
                self._header()
            if kind is None or issubclass(kind, click.exceptions.Exit):
                self.part.replace(self.path)
        finally:
            self.part.unlink(missing_ok=True)
