"""pellucid tokenize: a text as the model will see it. No torch."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from pellucid import hub
from pellucid.cli._command import Command, json_option, print_json, read_lines, read_text, stdin
from pellucid.errors import InputError
from pellucid.text import fingerprint
from pellucid.text.tokenizer import Tokenizer

LONGEST = 1 << 26  # bytes of one text from standard input; its encoding takes about 20 times as much
BATCH = 1000  # lines at a time


@click.command("tokenize", cls=Command)
@click.argument("text", required=False)
@click.option("-m", "--model", metavar="DIR_OR_ID", help="Default: the small model inside the package.")
@click.option("--pair", metavar="TEXT", help="A second text, as for a model that reads two.")
@click.option("--no-special", is_flag=True, help="Without the special tokens around the text.")
@click.option("--ids", "show", flag_value="ids", help="Only the ids.")
@click.option("--count", "show", flag_value="count", help="Only how many tokens.")
@click.option("--decode", is_flag=True, help="TEXT holds ids; print the text that they stand for.")
@click.option("--chat", is_flag=True, help="TEXT is a JSON file of messages, rendered with the model's template.")
@click.option("--prompt", is_flag=True, help="With --chat: and what begins an answer.")
@click.option("--lines", is_flag=True, help="Each line of TEXT is a text of its own; any number of them.")
@click.option("--fingerprint", "mark", is_flag=True, help="What identifies this tokenizer, and what is stored.")
@click.option("--accept", is_flag=True, help="Store its fingerprint in the folder, whatever was there.")
@json_option
@click.option("--offline", is_flag=True, help="Never open a socket.")
@click.pass_context
def command(
    ctx: click.Context,
    text: str | None,
    model: str | None,
    pair: str | None,
    no_special: bool,
    show: str | None,
    decode: bool,
    chat: bool,
    prompt: bool,
    lines: bool,
    mark: bool,
    accept: bool,
    as_json: bool,
    offline: bool,
) -> None:
    """Show the tokens of TEXT: id, characters from and to, the token as the vocabulary writes it, and its text.

    TEXT "-" is read from standard input, without its last newline.

    \b
    pellucid tokenize "Once upon a time"
    pellucid tokenize -m ./gemma --count - < book.txt
    pellucid tokenize -m ./gemma --decode "2 651 4320"
    pellucid tokenize -m ./gemma --chat talk.json --prompt
    """
    sources = text is not None, mark, accept
    if sum(sources) != 1:
        raise click.UsageError("give TEXT ('-' for standard input), or --fingerprint, or --accept", ctx)
    if decode and (pair is not None or no_special or show == "ids" or lines):
        raise click.UsageError("--decode goes without --pair, --no-special, --ids and --lines", ctx)
    if chat and (pair is not None or no_special or decode or lines) or prompt and not chat:
        raise click.UsageError(
            "--chat goes without --pair, --no-special, --decode and --lines; --prompt with --chat", ctx
        )
    if lines and pair is not None:
        raise click.UsageError("--lines takes one text a line, and --pair two texts", ctx)
    folder = hub.resolve(model, want="tokenizer", offline=offline or None)
    tokenizer = Tokenizer.from_folder(folder, check_fingerprint=not (mark or accept))
    if mark or accept:
        tell_fingerprint(tokenizer, folder, accept=accept, as_json=as_json)
        return
    writer = Writer(tokenizer, show, as_json, special=not no_special)
    if decode:
        writer.decoded(parse_ids(read_text(text, "TEXT", most=LONGEST)))
    elif chat:
        writer.whole(rendered(tokenizer, text or "", prompt), None)
    elif lines:
        for batch in batches(read_lines(text or ""), BATCH):
            writer.lines(batch)
    else:
        second = None if pair is None else read_text(pair, "--pair", most=LONGEST)
        writer.whole(read_text(text, "TEXT", most=LONGEST), second)


# ---- what is read ----------------------------------------------------------------------------------------


def parse_ids(text: str) -> list[int]:
    """`1 2 3`, `1, 2, 3` or `[1, 2, 3]`."""
    words = re.split(r"[\s,]+", text.strip().removeprefix("[").removesuffix("]").strip(" ,"))
    for word in words:
        if word and not re.fullmatch(r"\d{1,18}", word, re.ASCII):
            raise InputError(
                f"{word!r:.40} is no id", where="TEXT", next="give whole numbers from 0, such as 1 403 407"
            )
    return [int(word) for word in words if word]


def rendered(tokenizer: Tokenizer, source: str, prompt: bool) -> str:
    """The messages in a file, or on standard input for "-", as the template writes them.

    Raises:
        InputError: that is no JSON, or no conversation. TemplateError: the template refuses them.
    """
    try:
        data = stdin().read(LONGEST) if source == "-" else Path(source).read_bytes()
        found = json.loads(data)
    except OSError as error:
        raise InputError(f"not read: {error.strerror}", where=source, next="--chat takes a file of messages") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", where=source, next="give a list of messages") from None
    given = found if isinstance(found, dict) else {"messages": found}
    text: str = tokenizer.apply_chat_template(
        given.get("messages"), tools=given.get("tools"), tokenize=False, add_generation_prompt=prompt
    )
    return text


def batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    lines = iter(lines)
    while batch := list(islice(lines, size)):
        yield batch


# ---- what is written -------------------------------------------------------------------------------------


@dataclass
class Writer:
    """Prints encodings in the form that was asked for."""

    tokenizer: Tokenizer
    show: str | None
    as_json: bool
    special: bool

    def whole(self, text: str, pair: str | None) -> None:
        found = self.tokenizer(text, pair, add_special_tokens=self.special, truncation=False)
        assert found.encodings is not None
        (encoding,) = found.encodings
        if self.as_json:
            facts = {"text": str(text)} | ({} if pair is None else {"pair": pair})
            print_json(facts | self.facts(found["input_ids"], encoding))
        elif self.show:
            self.brief(found["input_ids"])
        else:
            self.table(text, pair, encoding)

    def lines(self, texts: list[str]) -> None:
        """One line for each, or the table of each."""
        found = self.tokenizer(texts, add_special_tokens=self.special, truncation=False)
        assert found.encodings is not None
        for text, ids, encoding in zip(texts, found["input_ids"], found.encodings):
            if self.as_json:
                click.echo(json.dumps({"text": text} | self.facts(ids, encoding), ensure_ascii=False))
            elif self.show:
                self.brief(ids)
            else:
                self.table(text, None, encoding)
                click.echo()

    def decoded(self, ids: list[int]) -> None:
        text = self.tokenizer.decode(ids)
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        absent = [i for i, token in zip(ids, tokens) if token is None]
        if self.as_json:
            print_json({"text": text, "count": len(ids), "ids": ids, "tokens": tokens})
        else:
            click.echo(len(ids) if self.show else text)
        if absent:
            click.echo(f"{len(absent)} ids have no token, the first is {absent[0]}", err=True)

    def brief(self, ids: list[int]) -> None:
        click.echo(len(ids) if self.show == "count" else " ".join(map(str, ids)))

    def facts(self, ids: list[int], encoding: Any) -> dict[str, Any]:
        facts: dict[str, Any] = {"count": len(ids)}
        if self.show != "count":
            facts["ids"] = ids
        if not self.show:
            facts |= {"tokens": encoding.tokens, "offsets": encoding.offsets}
            facts["special_tokens_mask"] = encoding.special_tokens_mask
        return facts

    def table(self, text: str, pair: str | None, encoding: Any) -> None:
        """Columns that line up in a terminal; the ones that may be wide or run from right to left come last."""
        rows = [("id", "from", "to", "token", "text")]
        texts = {0: text, 1: pair or "", None: ""}
        parts = zip(
            encoding.ids, encoding.tokens, encoding.offsets, encoding.sequence_ids, encoding.special_tokens_mask
        )
        for i, token, (begin, end), sequence, special in parts:
            placed = sequence is not None and not special
            place = (str(begin), str(end)) if placed else ("", "")
            rows.append((str(i), *place, visible(token), f"'{visible(texts[sequence][begin:end])}'" if placed else ""))
        widths = [max(width(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            numbers = "  ".join(f"{cell:>{widths[column]}}" for column, cell in enumerate(row[:3]))
            click.echo(f"{numbers}  {row[3]}{' ' * (widths[3] - width(row[3]))}  {row[4]}".rstrip())
        click.echo(f"{len(encoding.ids)} tokens", err=True)


def visible(text: str) -> str:
    """Text without what a terminal would act on: control, format and unassigned characters as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "\N{DOTTED CIRCLE}" + shown if shown and unicodedata.combining(shown[0]) else shown


def width(text: str) -> int:
    """Columns that a terminal gives to a printable text."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    marks = sum(unicodedata.category(c) in ("Mn", "Me") for c in text)
    return len(text) + wide - marks


def tell_fingerprint(tokenizer: Tokenizer, folder: Path, *, accept: bool, as_json: bool) -> None:
    """The fingerprint, what is stored in the folder, and how they differ."""
    now = fingerprint.take(tokenizer, folder)
    if accept:
        fingerprint.write(now, folder)
    stored = fingerprint.read(folder)
    found = fingerprint.differences(stored, tokenizer, folder) if stored else []
    if as_json:
        facts = {"fingerprint": now.digest, "stored": stored and stored.digest, "differences": found}
        print_json(facts | {"tokens": now.tokens, "vocabulary": now.vocabulary, "templates": dict(now.templates)})
        return
    click.echo(now.digest)
    if accept:
        click.echo(f"written to {folder / fingerprint.FILE}", err=True)
    elif stored is None:
        click.echo("none is stored in the folder; --accept stores it", err=True)
    else:
        click.echo("; ".join(found) or "the folder's own is equal", err=True)
